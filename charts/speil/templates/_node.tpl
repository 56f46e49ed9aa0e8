{{/* Parts of the pods. */}}

{{/* Who and where the node is: the same for `configuration`, which signs its token, and for `registry`. */}}
{{- define "speil.identityEnv" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- if eq (include "speil.topologyFromNode" .root) "true" }}
- name: TOPOLOGY_FROM_NODE
  value: "true"
{{- else }}
- name: TOPOLOGY_REGION
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['topology.kubernetes.io/region']
- name: TOPOLOGY_ZONE
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['topology.kubernetes.io/zone']
{{- end }}
{{- if .region.told }}
- name: REGION
  value: {{ .region.name | quote }}
{{- end }}
{{- with .region.zone }}
- name: ZONE
  value: {{ . | quote }}
{{- end }}
{{- $lease := ternary .region.lease .region.written .region.isKubernetes }}
{{- with $lease.name }}
- name: LEADER_ELECTION_NAME
  value: {{ . | quote }}
{{- end }}
{{- with $lease.namespace }}
- name: LEADER_ELECTION_NAMESPACE
  value: {{ . | quote }}
{{- end }}
{{- if .region.secret.on }}
- name: REGION_SECRET_FILE
  value: /etc/secrets/region/{{ .region.secret.key }}
{{- end }}
{{- end }}

{{- define "speil.nodeIpEnv" -}}
- name: NODE_IP
  {{- with .root.Values.service.registry.nodeIp }}
  value: {{ . | quote }}
  {{- else }}
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
  {{- end }}
{{- end }}

{{- define "speil.secretMounts" -}}
{{- if .region.secret.on -}}
- name: region-secret
  mountPath: /etc/secrets/region
  readOnly: true
{{ end }}
{{- if .root.Values.basicAuthSecretName -}}
- name: basic-auth
  mountPath: /etc/secrets/basic-auth
  readOnly: true
{{- end }}
{{- end }}

{{/* Spegel's values of both generations: the old name counts where it is given. */}}
{{- define "speil.mirroredRegistries" -}}
{{- $given := .Values.spegel -}}
{{- if and $given.registries $given.mirroredRegistries }}{{ fail "spegel.registries is the old name of spegel.mirroredRegistries: give one of them" }}{{ end -}}
{{- toJson ($given.registries | default $given.mirroredRegistries | default list) -}}
{{- end }}

{{- define "speil.mirrorTargets" -}}
{{- $given := .root.Values.spegel -}}
{{- if and $given.additionalMirrorRegistries $given.additionalMirrorTargets }}{{ fail "spegel.additionalMirrorRegistries is the old name of spegel.additionalMirrorTargets: give one of them" }}{{ end -}}
{{- $targets := list -}}
{{- with .root.Values.service.registry.hostPort }}{{ $targets = append $targets (printf "http://$(NODE_IP):%d" (int .)) }}{{ end -}}
{{- with .region.nodePort }}{{ $targets = append $targets (printf "http://$(NODE_IP):%d" (int .)) }}{{ end -}}
{{- toJson (concat $targets ($given.additionalMirrorRegistries | default $given.additionalMirrorTargets | default list)) -}}
{{- end }}

{{- define "speil.registryFilters" -}}
{{- $filters := .Values.spegel.registryFilters | default list -}}
{{- if eq (toString .Values.spegel.resolveLatestTag) "false" }}{{ $filters = append $filters ":latest$" }}{{ end -}}
{{- toJson $filters -}}
{{- end }}

{{- define "speil.prependExisting" -}}
{{- ternary .Values.spegel.appendMirrors .Values.spegel.prependExisting (hasKey .Values.spegel "appendMirrors") -}}
{{- end }}

{{/*
The operator's affinity, and in each of its required terms that the node is not another region's: terms are
alternatives, so each is taken twice, with the label being the region and with the label missing.
*/}}
{{- define "speil.affinity" -}}
{{- $affinity := deepCopy .root.Values.affinity -}}
{{- if .region.keepTo -}}
  {{- $label := "topology.kubernetes.io/region" -}}
  {{- $ours := list (dict "key" $label "operator" "In" "values" (list .region.keepTo)) (dict "key" $label "operator" "DoesNotExist") -}}
  {{- $node := $affinity.nodeAffinity | default dict -}}
  {{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict -}}
  {{- $terms := list -}}
  {{- range $term := ($required.nodeSelectorTerms | default (list dict)) -}}
    {{- range $one := $ours -}}
      {{- $copy := deepCopy $term -}}
      {{- $_ := set $copy "matchExpressions" (append ($copy.matchExpressions | default list) $one) -}}
      {{- $terms = append $terms $copy -}}
    {{- end -}}
  {{- end -}}
  {{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms) -}}
  {{- $_ := set $affinity "nodeAffinity" $node -}}
{{- end -}}
{{- with $affinity }}{{ toYaml . }}{{ end -}}
{{- end }}

{{/* On which nodes the pods of a region run: the node's, and the ones that clean up after it. */}}
{{- define "speil.placement" -}}
{{- with .root.Values.priorityClassName -}}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .region.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "speil.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- with .region.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "speil.container" -}}
image: {{ include "speil.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "speil.logArgs" -}}
- --log-level={{ .Values.spegel.logLevel }}
- --log-format={{ .Values.speil.logFormat }}
{{- end }}
