{{/*
Names and labels. All objects are named after the release alone: two releases of one namespace can't meet on a name.
What stands in a namespace that several releases may share, or in none, carries the release's namespace too.
Templates that concern a region take a dict: root (the chart's scope), region (see _regions.tpl).
*/}}
{{- define "speil.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if and .Values.nameOverride (not (contains .Values.nameOverride .Release.Name)) }}{{ .Release.Name }}-{{ .Values.nameOverride }}
{{- else }}{{ .Release.Name }}
{{- end }}
{{- end }}

{{/* The name of a region's objects, with room for the longest ending of a Service (-bootstrap) in 63 characters. */}}
{{- define "speil.name" -}}
{{- $name := printf "%s%s" (include "speil.fullname" .root) .region.suffix -}}
{{- if gt (len $name) 52 }}{{ printf "%s-%s" (trunc 43 $name | trimSuffix "-") (sha256sum $name | trunc 8) }}{{ else }}{{ $name }}{{ end }}
{{- end }}

{{/* RBAC names may carry colons, so that no two releases, namespaces and regions can be put together to the same one. */}}
{{- define "speil.rbacName" -}}
speil:{{ include "speil.namespace" .root }}:{{ include "speil.fullname" .root }}{{ with .region.suffix }}:{{ trimPrefix "-" . }}{{ end }}
{{- end }}

{{- define "speil.namespace" -}}
{{ .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{- define "speil.serviceAccountName" -}}
{{- if .root.Values.serviceAccount.name }}{{ .root.Values.serviceAccount.name }}{{ .region.suffix }}{{ else }}{{ include "speil.name" . }}{{ end }}
{{- end }}

{{- define "speil.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* What a DaemonSet and its Services select by; must never change for a release. */}}
{{- define "speil.selectorLabels" -}}
app.kubernetes.io/name: speil
app.kubernetes.io/instance: "{{ .root.Release.Name }}"
{{- if .region.suffix }}
speil.dev/region: "{{ .region.name }}"
{{- end }}
{{- end }}

{{- define "speil.commonLabels" -}}
app.kubernetes.io/name: speil
app.kubernetes.io/instance: "{{ .Release.Name }}"
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A pod's labels: not the chart's version, which must restart nobody. */}}
{{- define "speil.podLabels" -}}
{{ include "speil.selectorLabels" . }}
{{- if and .region.name (not .region.suffix) }}
speil.dev/region: "{{ .region.name }}"
{{- end }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "speil.labels" -}}
{{ include "speil.commonLabels" .root }}
{{- with .region.name }}
speil.dev/region: "{{ . }}"
{{- end }}
{{- end }}

{{/* Metadata of a region's object in the nodes' namespace: dict root, region, ending, component, annotations, app. */}}
{{- define "speil.metadata" -}}
{{- $labels := include "speil.labels" . | fromYaml -}}
{{- with .app }}{{ $_ := set $labels "app.kubernetes.io/name" . }}{{ end -}}
name: "{{ include "speil.name" . }}{{ .ending }}"
namespace: "{{ include "speil.namespace" .root }}"
labels:
  {{- toYaml $labels | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Series name their node: in `instance`, as the dashboard reads it, and in `node`, as the kubelet's series have it. */}}
{{- define "speil.nodeNames" -}}
- sourceLabels: [__meta_kubernetes_pod_node_name]
  targetLabel: node
- sourceLabels: [__meta_kubernetes_pod_node_name]
  targetLabel: instance
{{- end }}
