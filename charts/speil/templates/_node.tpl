{{/* Parts of the pods. */}}

{{/*
A text as it has to stand in `args` or `env` for the process to get it unharmed: the kubelet takes $(NAME) for a
variable and $$ for one $. What it leaves alone stays as it is.
*/}}
{{- define "speil.escaped" -}}
{{- $text := toString . }}{{ if kindIs "float64" . }}{{ $text = toString (int64 .) }}{{ end -}}
{{- regexReplaceAll "(^|[^$])\\$\\$([^$(]|$)" (replace "$" "$$" $text) "${1}$$${2}" -}}
{{- end }}

{{/* An argument of a container: list of the flag's name and its value, which may be any text. */}}
{{- define "speil.flag" -}}
- {{ printf "--%s=%s" (first .) (include "speil.escaped" (last .)) | quote }}
{{- end }}

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
  value: {{ printf "/etc/secrets/region/%s" .region.secret.key | quote }}
{{- end }}
{{- end }}

{{- define "speil.nodeIpEnv" -}}
- name: NODE_IP
  {{- with .root.Values.service.registry.nodeIp }}
  value: {{ include "speil.escaped" . | quote }}
  {{- else }}
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
  {{- end }}
{{- end }}

{{/* For `kubectl exec … -- speil doctor`, which looks at what `configuration` wrote and asks where containerd does. */}}
{{- define "speil.doctorEnv" -}}
{{- include "speil.nodeIpEnv" . }}
{{- $spegel := .root.Values.spegel }}
{{- $directory := include "speil.containerdDirectory" .root | default (dir $spegel.containerdRegistryConfigPath) }}
{{- $values := dict
  "REGISTRY_ADDR" (printf ":%v" .root.Values.service.registry.port)
  "METRICS_ADDR" (printf ":%v" .root.Values.service.metrics.port)
  "CONTAINERD_SOCK" $spegel.containerdSock
  "CONTAINERD_NAMESPACE" $spegel.containerdNamespace
  "CONTAINERD_REGISTRY_CONFIG_PATH" $spegel.containerdRegistryConfigPath
  "CONTAINERD_CONFIG" (printf "%s/config.toml" $directory) }}
{{- range $name, $value := $values }}
- name: {{ $name }}
  value: {{ include "speil.escaped" $value | quote }}
{{- end }}
{{- with include "speil.ownTargets" . | fromJsonArray }}
- name: MIRROR_TARGETS
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}

{{/*
The directory of containerd's configuration, where it can be mounted beside the one of hosts.toml: the usual layouts have
config.toml there. Another directory, such as /etc, would hide the container's own.
*/}}
{{- define "speil.containerdDirectory" -}}
{{- $directory := dir (trimSuffix "/" .Values.spegel.containerdRegistryConfigPath) -}}
{{- $isMounted := has $directory (list (dir .Values.spegel.containerdSock) .Values.spegel.containerdContentPath .Values.spegel.persistence.path) -}}
{{- if and (eq (base $directory) "containerd") (not $isMounted) }}{{ $directory }}{{ end -}}
{{- end }}

{{- define "speil.ownTargets" -}}
{{- $targets := list -}}
{{- range $port := list .root.Values.service.registry.hostPort .region.nodePort -}}
  {{- with $port }}{{ $targets = append $targets (printf "http://$(NODE_IP):%d" (int .)) }}{{ end -}}
{{- end -}}
{{- toJson (uniq $targets) -}}
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
{{- $registries := list -}}
{{- range $item := include "speil.renamed" (dict "values" .Values.spegel "names" (list "mirroredRegistries" "registries" "mirrorRegistries")) | fromJsonArray -}}
  {{- range $one := splitList "," $item }}{{ with trim $one }}{{ $registries = append $registries . }}{{ end }}{{ end -}}
{{- end -}}
{{- toJson (uniq $registries) -}}
{{- end }}

{{/* A list of `spegel` under today's name or one of its old ones: dict values, names. */}}
{{- define "speil.renamed" -}}
{{- $found := list }}{{ $named := "" -}}
{{- range $name := .names -}}
  {{- with get $.values $name -}}
    {{- if $named }}{{ fail (printf "spegel.%s is the old name of spegel.%s: give one of them" $name (first $.names)) }}{{ end -}}
    {{- $named = $name }}{{ $found = . -}}
  {{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{- define "speil.uploadLimit" -}}
{{- $limit := .Values.speil.uploadLimit -}}
{{- if and .Values.spegel.blobSpeed (ne (toString $limit) "0") }}{{ fail "spegel.blobSpeed is the old name of speil.uploadLimit: give one of them" }}{{ end -}}
{{- .Values.spegel.blobSpeed | default $limit -}}
{{- end }}

{{/* Where containerd finds its node, then the operator's. $(NODE_IP) is the node's address in these too, as in Spegel's. */}}
{{- define "speil.mirrorTargets" -}}
{{- $more := include "speil.renamed" (dict "values" .root.Values.spegel "names" (list "additionalMirrorTargets" "additionalMirrorRegistries" "extraMirrorRegistries")) | fromJsonArray -}}
{{- $targets := include "speil.ownTargets" . | fromJsonArray -}}
{{- range $one := $more -}}
  {{- with trim $one }}{{ $targets = append $targets (include "speil.escaped" . | replace "$$(NODE_IP)" "$(NODE_IP)") }}{{ end -}}
{{- end -}}
{{- toJson (uniq $targets) -}}
{{- end }}

{{- define "speil.registryFilters" -}}
{{- $filters := without (.Values.spegel.registryFilters | default list) "" -}}
{{- if eq (toString .Values.spegel.resolveLatestTag) "false" }}{{ $filters = append $filters ":latest$" }}{{ end -}}
{{- toJson $filters -}}
{{- end }}

{{- define "speil.prependExisting" -}}
{{- ternary .Values.spegel.appendMirrors .Values.spegel.prependExisting (hasKey .Values.spegel "appendMirrors") -}}
{{- end }}

{{/*
The operator's affinity, and in each of its required terms that the node is not another region's. Terms are
alternatives: each is taken with the label being the region, and, unless the region is strict, with the label missing.
A node without the label must have the pods of one release at most: of two, one would stay Pending for the host port,
and a Pending pod uses up maxUnavailable, so no rollout would go on.
*/}}
{{- define "speil.affinity" -}}
{{- $affinity := deepCopy .root.Values.affinity -}}
{{- if .region.keepTo -}}
  {{- $label := "topology.kubernetes.io/region" -}}
  {{- $ours := list (dict "key" $label "operator" "In" "values" (list .region.keepTo)) -}}
  {{- if not .region.isStrict }}{{ $ours = append $ours (dict "key" $label "operator" "DoesNotExist") }}{{ end -}}
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
priorityClassName: {{ . | quote }}
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

{{- define "speil.resources" -}}
{{- with . -}}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "speil.logArgs" -}}
{{ include "speil.flag" (list "log-level" .Values.spegel.logLevel) }}
{{ include "speil.flag" (list "log-format" .Values.speil.logFormat) }}
{{- end }}

{{/* The operator's labels of the pods, which must not be those by which Services, policies and `speil region` find them. */}}
{{- define "speil.extraPodLabels" -}}
{{- range $name := keys (.Values.podLabels | default dict) -}}
  {{- if hasPrefix "app.kubernetes.io/" $name }}{{ fail (printf "podLabels: %s is the chart's own; the chart finds its pods by it" $name) }}{{ end -}}
{{- end -}}
{{- include "speil.checkLabels" (dict "value" "podLabels" "labels" .Values.podLabels) -}}
{{- with .Values.podLabels }}{{ toYaml . }}{{ end -}}
{{- end }}

{{/* Labels by which pods are found, and those from which a node reads its region: dict value (its name), labels. */}}
{{- define "speil.checkLabels" -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "speil.dev/region" -}}
{{- range $name := keys (.labels | default dict) -}}
  {{- if has $name $own }}{{ fail (printf "%s: %s is the chart's own; the chart finds its pods by it" $.value $name) }}{{ end -}}
  {{- if hasPrefix "topology.kubernetes.io/" $name }}{{ fail (printf "%s: a pod's %s is its node's; where speil is to take another region or zone, set `region` or `zone`" $.value $name) }}{{ end -}}
{{- end -}}
{{- end }}

{{/* A variable twice: one of the two counts in one container of the pod only, and helm 4 refuses it. */}}
{{- define "speil.checkExtraEnv" -}}
{{- $own := list "NODE_NAME" "TOPOLOGY_FROM_NODE" "TOPOLOGY_REGION" "TOPOLOGY_ZONE" "REGION" "ZONE" "LEADER_ELECTION_NAME" "LEADER_ELECTION_NAMESPACE" "REGION_SECRET_FILE" -}}
{{- range $one := include "speil.doctorEnv" . | fromYamlArray }}{{ $own = append $own $one.name }}{{ end -}}
{{- $names := dict -}}
{{- range $one := .root.Values.extraEnv -}}
  {{- if has $one.name $own }}{{ fail (printf "extraEnv: %s is set by the chart; use the chart's value for it" $one.name) }}{{ end -}}
  {{- if hasKey $names $one.name }}{{ fail (printf "extraEnv: %s is named twice" $one.name) }}{{ end -}}
  {{- $_ := set $names $one.name true -}}
{{- end -}}
{{- end }}
