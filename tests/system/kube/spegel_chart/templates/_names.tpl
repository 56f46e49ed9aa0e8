{{- define "name" -}}{{ .Values.nameOverride | default "spegel" }}{{- end }}
{{- define "fullname" -}}
{{- $name := include "name" . -}}
{{ .Values.fullnameOverride | default (ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name)) }}
{{- end }}
{{- define "selector" -}}
app.kubernetes.io/name: {{ include "name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{ include "selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "image" -}}{{ .Values.image.repository }}:{{ .Chart.AppVersion }}{{- end }}
