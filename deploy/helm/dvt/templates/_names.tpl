{{- define "dvt.name" -}}
{{- if contains "dvt" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-dvt" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "dvt.selector" -}}
app.kubernetes.io/name: dvt
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dvt.labels" -}}
{{ include "dvt.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "dvt.image" -}}
{{- $tag := .Values.image.tag | default (ternary "cuda" "cpu" .Values.gpu.enabled) -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "dvt.adminSecret" -}}
{{ .Values.secrets.adminKey | default (printf "%s-admin" (include "dvt.name" .)) }}
{{- end }}
