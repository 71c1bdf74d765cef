{{- /* What a schema cannot say: values that do not go together. */}}

{{- define "dvt.graceSeconds" -}}
{{- $needed := add .Values.shutdown.noticeSeconds .Values.shutdown.drainSeconds -}}
{{- $grace := .Values.shutdown.graceSeconds | default (add $needed 10) -}}
{{- if le (int64 $grace) (int64 (add $needed 2)) -}}
{{- fail (printf "shutdown.graceSeconds is %d: it must be more than 2 s over noticeSeconds and drainSeconds together (%d), or pods are killed while they answer" (int64 $grace) (int64 $needed)) -}}
{{- end -}}
{{ $grace }}
{{- end }}

{{- define "dvt.check" -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- if and $several (not .Values.secrets.redisUrl) (not .Values.independentBudgets) -}}
{{- fail "several replicas without Redis have a budget each, and PUT /budget reaches one of them: set secrets.redisUrl, or independentBudgets: true" -}}
{{- end -}}
{{- if and $several .Values.state.claimName -}}
{{- fail "state.claimName is for a single replica: the budget of several is in Redis" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail "autoscaling.maxReplicas is below minReplicas" -}}
{{- end -}}
{{- if and .Values.bundle.claimName .Values.bundle.image -}}
{{- fail "bundle.claimName and bundle.image are both set: keep one" -}}
{{- end -}}
{{- if and .Values.bundle.claimName (not .Values.bundle.path) -}}
{{- fail "bundle.claimName needs bundle.path, the folder of it to serve: /bundles/mine" -}}
{{- end -}}
{{- if and .Values.ingress.enabled .Values.allowedHosts (not (has .Values.ingress.host .Values.allowedHosts)) -}}
{{- fail (printf "allowedHosts lacks ingress.host, %s: every request through it would be refused" .Values.ingress.host) -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor.enabled .Values.allowedHosts -}}
{{- fail "Prometheus asks pods by their address, which allowedHosts refuses: leave it empty with monitoring.serviceMonitor" -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor.enabled .Values.secrets.apiKeys (not .Values.monitoring.metricsPublic) -}}
{{- fail "monitoring.serviceMonitor has no key for /metrics: set monitoring.metricsPublic" -}}
{{- end -}}
{{- if and (eq (int .Values.rollout.maxSurge) 0) (eq (int .Values.rollout.maxUnavailable) 0) -}}
{{- fail "rollout.maxSurge and maxUnavailable are both 0: no rollout could ever begin" -}}
{{- end -}}
{{- end }}
