{{- define "dvt.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "dvt.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  {{- with .root.Values.allowedHosts }}
  # Probes come by the pod's address, which is none of the hosts that may be named.
  httpHeaders: [{name: Host, value: {{ first . | quote }}}]
  {{- end }}
timeoutSeconds: 3
{{- end }}

{{- define "dvt.env" -}}
- {name: DVT_HOST, value: "0.0.0.0"}
- {name: DVT_PORT, value: "8000"}
- {name: DVT_STATE_DIR, value: /state}
- {name: DVT_DRAIN_SECONDS, value: {{ .Values.shutdown.drainSeconds | quote }}}
- {name: DVT_LOG_FORMAT, value: json}
- {name: DVT_METRICS_PUBLIC, value: {{ .Values.monitoring.metricsPublic | quote }}}
- {name: DVT_ADMIN_KEY_FILE, value: /secrets/admin/admin-key}
{{- if .Values.secrets.apiKeys }}
- {name: DVT_API_KEYS_FILE, value: /secrets/api/api-keys}
{{- end }}
{{- if .Values.secrets.redisUrl }}
- {name: DVT_REDIS_URL_FILE, value: /secrets/redis/redis-url}
{{- end }}
{{- with .Values.allowedHosts }}
- {name: DVT_ALLOWED_HOSTS, value: {{ join "," . | quote }}}
{{- end }}
{{- with (.Values.bundle.path | default (ternary "/bundles/bundle" "" (ne .Values.bundle.image ""))) }}
- {name: DVT_BUNDLE, value: {{ . | quote }}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{- define "dvt.volumes" -}}
- name: tmp
  # Uploads are spooled here; it counts as memory of the pod.
  emptyDir: {medium: Memory, sizeLimit: 320Mi}
- name: state
  {{- if .Values.state.claimName }}
  persistentVolumeClaim: {claimName: {{ .Values.state.claimName }}}
  {{- else }}
  emptyDir: {sizeLimit: 64Mi}
  {{- end }}
- name: admin-key
  secret: {secretName: {{ include "dvt.adminSecret" . }}, defaultMode: 0440}
{{- with .Values.secrets.apiKeys }}
- name: api-keys
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.secrets.redisUrl }}
- name: redis-url
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- if .Values.bundle.claimName }}
- name: bundles
  persistentVolumeClaim: {claimName: {{ .Values.bundle.claimName }}, readOnly: true}
{{- else if .Values.bundle.image }}
- name: bundles
  emptyDir: {}
{{- end }}
{{- end }}

{{- define "dvt.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: state, mountPath: /state}
- {name: admin-key, mountPath: /secrets/admin, readOnly: true}
{{- if .Values.secrets.apiKeys }}
- {name: api-keys, mountPath: /secrets/api, readOnly: true}
{{- end }}
{{- if .Values.secrets.redisUrl }}
- {name: redis-url, mountPath: /secrets/redis, readOnly: true}
{{- end }}
{{- if or .Values.bundle.claimName .Values.bundle.image }}
- {name: bundles, mountPath: /bundles, readOnly: true}
{{- end }}
{{- end }}
