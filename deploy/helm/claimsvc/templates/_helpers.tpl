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

{{- /* The ports that a URL leads to outside of the pod, separated by blanks. It may name several hosts; a password in it is
       never rendered. */ -}}
{{- define "claimsvc.portsOf" -}}
{{- $authority := regexFind "^[a-zA-Z0-9+]+://[^/?#]*" .url -}}
{{- range $host := splitList "," (regexReplaceAll "^[^:]+://(.*@)?" $authority "") -}}
{{- if not (regexMatch "^(localhost|127\\.[0-9.]+|\\[::1\\])(:[0-9]+)?$" $host) }}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default (toString $.port) }} {{ end -}}
{{- end -}}
{{- end -}}

{{- /* `yes` if a rule of extraEgress is for the port, or for all. */ -}}
{{- define "claimsvc.isExtraEgress" -}}
{{- $port := int .port -}}
{{- range .rules -}}
{{- if not .ports }}yes{{ end -}}
{{- range .ports -}}
{{- /* What a named port is, only the pods there say. */ -}}
{{- if or (not .port) (kindIs "string" .port) }}yes
{{- else if and (ge $port (int .port)) (le $port (int (default .port .endPort))) }}yes{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Fails if the network policy would cut the pods off from what the values name. Of a Secret it knows nothing. */ -}}
{{- define "claimsvc.checkEgress" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $further := dict -}}
{{- range .Values.extraEnv }}{{ $_ := set $further .name (default "" .value) }}{{ end -}}
{{- $further = merge (dict) $further .Values.settings -}}
{{- range $name, $port := dict "CLAIMSVC_JWT_JWKS" 443 "CLAIMSVC_TRACING_URL" 80 -}}
{{- $url := toString (default "" (get $further $name)) -}}
{{- $asked := dict "url" $url "port" (hasPrefix "https:" $url | ternary 443 $port) -}}
{{- range compact (splitList " " (contains "://" $url | ternary (include "claimsvc.portsOf" $asked) "")) -}}
{{- if not (include "claimsvc.isExtraEgress" (dict "port" . "rules" $policy.extraEgress)) -}}
{{- fail (printf "%s leads to port %s, which networkPolicy does not let the pods reach: add a rule to networkPolicy.extraEgress, such as [{ports: [{port: %s, protocol: TCP}]}]" $name . .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.connections -}}
{{- if not .existingSecret -}}
{{- $urls := list (dict "name" "connections.databaseUrl" "url" .databaseUrl "port" 5432) -}}
{{- range .redisUrls }}{{ $urls = append $urls (dict "name" "connections.redisUrls" "url" . "port" 6379) }}{{ end -}}
{{- range $each := $urls -}}
{{- range $port := compact (splitList " " (include "claimsvc.portsOf" $each)) -}}
{{- $known := false -}}
{{- range $policy.egressPorts }}{{ if eq (int .) (int $port) }}{{ $known = true }}{{ end }}{{ end -}}
{{- if not (or $known (include "claimsvc.isExtraEgress" (dict "port" $port "rules" $policy.extraEgress))) -}}
{{- fail (printf "a URL in %s leads to port %s, which networkPolicy does not let the pods reach: add %s to networkPolicy.egressPorts" $each.name $port $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
