{{/* What concerns those who come from Spegel's chart. */}}

{{/* Spegel's image has other commands and flags: its pods would never start. */}}
{{- define "speil.checkImage" -}}
{{- if regexMatch "(^|/)(spegel-org|xenitab)/spegel/?([:@].*)?$" .Values.image.repository -}}
  {{- fail (printf "image.repository is %s, which is Spegel's image, and this chart runs speil's: take image.repository, image.tag and image.digest out of the values that you bring from Spegel, build an image that has `speil` as its entrypoint (docs/migrating-from-spegel.md) and name it in image.repository" .Values.image.repository) -}}
{{- end -}}
{{- $part := "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*" -}}
{{- $host := "([A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)*|\\[[0-9A-Fa-f:]+\\])(:[0-9]+)?" -}}
{{- if not (regexMatch (printf "^(%s/)?%s(/%s)*$" $host $part $part) .Values.image.repository) -}}
  {{- fail (printf "image.repository is %s, which is no image's name: it takes no https://, no capital letters, no tag and no digest, which stand in image.tag and image.digest" .Values.image.repository) -}}
{{- end -}}
{{- end }}

{{/*
An upgrade of a release that another chart made: the selector of a DaemonSet can't change, and Spegel's objects would
be taken away while its pods still hold the ports. Seen in the cluster by the release's DaemonSets, which are all this
chart's unless it is part of another one; without a cluster by values that lack all of this chart's own.
*/}}
{{- define "speil.checkUpgrade" -}}
{{- if .Release.IsUpgrade -}}
  {{- $foreign := ternary "its values (--reuse-values) lack all of this chart's own" "" (not (empty .Values.isOfAnotherChart)) -}}
  {{- if .Values.namespaceCheck -}}
    {{- range $namespace := list (include "speil.namespace" .) .Release.Namespace | uniq -}}
      {{- range $one := dig "items" list (lookup "apps/v1" "DaemonSet" $namespace "" | default dict) -}}
        {{- $annotations := $one.metadata.annotations | default dict -}}
        {{- $isOfRelease := and (eq (get $annotations "meta.helm.sh/release-name") $.Release.Name) (eq (get $annotations "meta.helm.sh/release-namespace") $.Release.Namespace) -}}
        {{- $selected := dig "spec" "selector" "matchLabels" dict $one -}}
        {{- $chart := get ($one.metadata.labels | default dict) "helm.sh/chart" -}}
        {{- $isOurs := has (get $selected "app.kubernetes.io/name") (list "speil" "speil-cleanup") -}}
        {{- $isSpegels := or (eq (get $selected "app.kubernetes.io/component") "spegel") (hasPrefix "spegel-" $chart) -}}
        {{- if and $isOfRelease (not $isOurs) (or $.Chart.IsRoot $isSpegels) -}}
          {{- $foreign = printf "DaemonSet %s/%s is of chart %s" $namespace $one.metadata.name ($chart | default "(no label helm.sh/chart)") -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if and $foreign .Chart.IsRoot -}}
    {{- fail (printf "release %s in namespace %s was not made by the chart speil: %s. An upgrade can't turn one chart's release into another's. Remove it and install speil: keep the values with `helm get values %s -n %s -o yaml > values.yaml`, take out `image`, run `helm uninstall %s -n %s --no-hooks` (without its hooks, which reset hosts.toml on all nodes), then `helm install speil <this chart> -n %s -f values.yaml`. docs/migrating-from-spegel.md goes through it step by step. Nothing was changed." .Release.Name .Release.Namespace $foreign .Release.Name .Release.Namespace .Release.Name .Release.Namespace .Release.Namespace) -}}
  {{- else if $foreign -}}
    {{- fail (printf "release %s in namespace %s has Spegel's DaemonSet, where speil is to take its place: %s. The two can't change places in one upgrade, because they take the same ports of the nodes. Upgrade the release without Spegel first, then with speil; see docs/migrating-from-spegel.md. Nothing was changed." .Release.Name .Release.Namespace $foreign) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* Values that are accepted and do nothing as the others stand: a JSON list of lines for NOTES. */}}
{{- define "speil.ignored" -}}
{{- $ignored := list -}}
{{- $spegel := .Values.spegel }}{{ $registry := .Values.service.registry -}}
{{- with $spegel.imageFilter }}{{ $ignored = append $ignored "spegel.imageFilter: what is to be left alone stands in spegel.registryFilters" }}{{ end -}}
{{- if hasKey $spegel "containerdMirrorRemove" }}{{ $ignored = append $ignored "spegel.containerdMirrorRemove: hosts.toml is restored when the release is uninstalled" }}{{ end -}}
{{- $nodePort := false }}{{ $taken := 0 }}{{ $dns := false -}}
{{- range $region := include "speil.regions" . | fromJsonArray -}}
  {{- if $region.nodePort }}{{ $nodePort = true }}{{ end -}}
  {{- if $region.nodePortTaken }}{{ $taken = int $registry.hostPort }}{{ end -}}
  {{- if eq $region.bootstrapKind "dns" }}{{ $dns = true }}{{ end -}}
{{- end -}}
{{- if $taken }}{{ $ignored = append $ignored (printf "service.registry.nodePort: %d is service.registry.hostPort too, which leads containerd to its own node" $taken) }}{{ end -}}
{{- if not $nodePort -}}
  {{- range $name := list "annotations" "topologyAwareHintsEnabled" "usePreferSameNodeTrafficDistribution" "internalTrafficLocal" -}}
    {{- if get $registry $name }}{{ $ignored = append $ignored (printf "service.registry.%s: there is no node port" $name) }}{{ end -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.service.bootstrap.annotations (not $dns) }}{{ $ignored = append $ignored "service.bootstrap.annotations: its Service is for bootstrapKind dns" }}{{ end -}}
{{- if .Values.service.cleanup.annotations }}{{ $ignored = append $ignored "service.cleanup.annotations: nobody needs a Service to wait for the cleanup" }}{{ end -}}
{{- if not $spegel.containerdMirrorAdd -}}
  {{- range $name := list "prependExisting" "appendMirrors" "additionalMirrorTargets" "additionalMirrorRegistries" "extraMirrorRegistries" -}}
    {{- if get $spegel $name }}{{ $ignored = append $ignored (printf "spegel.%s: hosts.toml is not written (spegel.containerdMirrorAdd)" $name) }}{{ end -}}
  {{- end -}}
{{- end -}}
{{- if hasKey $spegel "appendMirrors" }}{{ if $spegel.prependExisting }}{{ $ignored = append $ignored "spegel.prependExisting: spegel.appendMirrors, its old name, counts" }}{{ end }}{{ end -}}
{{- if and .Values.grafanaDashboard.sidecarLabelValue (not .Values.grafanaDashboard.sidecarLabel) }}{{ $ignored = append $ignored "grafanaDashboard.sidecarLabelValue: there is no sidecarLabel" }}{{ end -}}
{{- if and .Values.image.tag .Values.image.digest }}{{ $ignored = append $ignored "image.tag: image.digest counts" }}{{ end -}}
{{- toJson $ignored -}}
{{- end }}
