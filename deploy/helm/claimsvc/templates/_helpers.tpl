{{- define "claimsvc.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 50 characters, so that names with suffixes stay within the limit. */ -}}
{{- define "claimsvc.fullname" -}}
{{- $name := include "claimsvc.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "claimsvc.selector" -}}
app.kubernetes.io/name: {{ include "claimsvc.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "claimsvc.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "claimsvc.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "claimsvc.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "claimsvc.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "claimsvc.fullname" .) .Values.serviceAccount.name -}}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end -}}
{{- end -}}

{{- define "claimsvc.secret" -}}
{{- default (include "claimsvc.fullname" .) .Values.connections.existingSecret -}}
{{- end -}}

{{- /* A setting as text. Numbers are floats, and a million would become 1e+06. */ -}}
{{- define "claimsvc.setting" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ toString . }}{{ end -}}
{{- end -}}

{{- /* How long idle connections of a pod that stops stay open, in seconds: by the setting, its former name, or 5. */ -}}
{{- define "claimsvc.drainNotice" -}}
{{- $settings := .Values.settings -}}
{{- if hasKey $settings "CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS" -}}
{{- include "claimsvc.setting" $settings.CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS -}}
{{- else if hasKey $settings "CLAIMSVC_SHUTDOWN_FAREWELL_SECONDS" -}}
{{- include "claimsvc.setting" $settings.CLAIMSVC_SHUTDOWN_FAREWELL_SECONDS -}}
{{- else -}}5{{- end -}}
{{- end -}}

{{- /* Restrictions of every pod: no privileges, writes only to /tmp, no token, and no variables of Services, because
       that of a Service named claimsvc would be CLAIMSVC_PORT. */ -}}
{{- define "claimsvc.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
volumes:
  - name: tmp # where workers share their metrics
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end -}}

{{- define "claimsvc.container" -}}
image: {{ include "claimsvc.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- end -}}
