{{/*
The regions of this release as a JSON list, each with everything decided: what `regions` says, else what stands at the
top, else what follows from the names. Without `regions` it is one, whose objects have no region in their names.

  name      "" without a region            suffix     -<region> in `regions`, else ""
  told      the node is told its region (elsewhere it reads it from the names, as the chart does here)
  lease     name and namespace             keepTo     the region whose nodes it is kept to, "" where that is not asked
  isStrict  with keepTo: nodes without the label are left out too
  secret    existingSecret, value, key, generate (decided; asked: as it is written); on: there is one
*/}}
{{- define "speil.regions" -}}
{{- $items := .Values.regions | default (list (dict "name" .Values.region)) -}}
{{- $inherited := list "zone" "bootstrapKind" "createNamespace" "regionNetworks" "dnsBootstrapDomain" "httpBootstrapPeer" "staticBootstrapPeers" "tolerations" -}}
{{- $shared := not (empty .Values.speil.dhtProtocolPrefix) -}}{{/* a mesh with Spegel, which knows no secret */}}
{{- $regions := list -}}
{{- range $item := $items -}}
  {{- $region := dict "name" ($item.name | default "") "suffix" "" "told" (not (empty $item.name)) -}}
  {{- if $.Values.regions }}{{ $_ := set $region "suffix" (printf "-%s" $item.name) }}{{ end -}}
  {{- range $key := $inherited -}}
    {{- $_ := set $region $key (ternary (get $item $key) (get $.Values $key) (hasKey $item $key)) -}}
  {{- end -}}
  {{- $isKubernetes := eq $region.bootstrapKind "kubernetes" -}}

  {{- /* the Lease: what is written, else the region's own names, else the usual ones */ -}}
  {{- $source := ternary $item $.Values (not (empty $.Values.regions)) -}}
  {{- $written := dict "name" ($source.leaderElectionName | default "") "namespace" ($source.leaderElectionNamespace | default "") -}}
  {{- $own := dict "name" "spegel-leader-election" "namespace" (ternary $.Release.Namespace "spegel" $isKubernetes) -}}
  {{- if $region.name -}}
    {{- $own = dict "name" (printf "spegel-leader-election-%s" $region.name) "namespace" (printf "spegel-%s" $region.name) -}}
  {{- end -}}
  {{- $lease := dict "name" ($written.name | default $own.name) "namespace" ($written.namespace | default $own.namespace) -}}
  {{- if gt (len $lease.namespace) 63 -}}
    {{- fail (printf "region %s is too long for its namespace %s: use at most 56 characters, or set leaderElectionNamespace" $region.name $lease.namespace) -}}
  {{- end -}}
  {{- $reading := include "speil.reading" $lease | fromJson -}}
  {{- if and (not $region.name) $reading.contradiction -}}
    {{- fail (printf "leaderElectionName %s reads as region %s, leaderElectionNamespace %s as region %s: correct one of them, or say which it is with `region: %s` or `region: %s`" $lease.name $reading.byName $lease.namespace $reading.byNamespace $reading.byName $reading.byNamespace) -}}
  {{- end -}}
  {{- $_ := set $region "name" ($region.name | default $reading.agreed) -}}
  {{- $_ := set $region "lease" $lease -}}
  {{- $_ := set $region "written" $written -}}
  {{- $_ := set $region "namesRead" $reading.agreed -}}

  {{- /* its nodes */ -}}
  {{- $selector := dict -}}
  {{- range $key, $value := $.Values.nodeSelector }}{{ $_ := set $selector $key $value }}{{ end -}}
  {{- if $.Values.regions -}}
    {{- range $key, $value := ($item.nodeSelector | default (dict "topology.kubernetes.io/region" $region.name)) }}{{ $_ := set $selector $key $value }}{{ end -}}
  {{- end -}}
  {{- $_ := set $region "nodeSelector" $selector -}}
  {{- $keep := and $.Values.keepToRegion (not (hasKey $selector "topology.kubernetes.io/region")) -}}
  {{- $_ := set $region "keepTo" (ternary $region.name "" $keep) -}}
  {{- $isStrict := eq (toString $.Values.keepToRegion) "strict" -}}
  {{- if and $region.keepTo (not $isStrict) -}}
    {{- $others := without (include "speil.nodeRegions" $ | fromJson).regions $region.name -}}
    {{- $isStrict = not (empty $others) -}}
  {{- end -}}
  {{- $_ := set $region "isStrict" $isStrict -}}

  {{- /* its node port */ -}}
  {{- $port := $.Values.service.registry.nodePort -}}
  {{- if hasKey $item "nodePort" }}{{ $port = $item.nodePort }}{{ end -}}
  {{- if eq (toString $port) "auto" }}{{ $port = ternary 0 30021 (not (empty $region.name)) }}{{ end -}}
  {{- /* a node answers at a port once, and the host port leads to the node itself: Spegel's chart later than 0.7.4 */ -}}
  {{- $isTaken := and (int $port) (eq (int $port) (int $.Values.service.registry.hostPort)) -}}
  {{- $_ := set $region "nodePortTaken" $isTaken -}}
  {{- $_ := set $region "nodePort" (ternary 0 (int $port) (not (empty $isTaken))) -}}

  {{- /* its secret */ -}}
  {{- $secret := dict -}}
  {{- range $key, $value := $.Values.regionSecret }}{{ $_ := set $secret $key $value }}{{ end -}}
  {{- range $key, $value := ($item.regionSecret | default dict) }}{{ $_ := set $secret $key $value }}{{ end -}}
  {{- $generate := $secret.generate -}}
  {{- $_ := set $secret "asked" $generate -}}
  {{- if eq (toString $generate) "auto" }}{{ $generate = and (not (empty $region.name)) (not $shared) }}{{ end -}}
  {{- $_ := set $secret "generate" (and $generate (empty $secret.value) (empty $secret.existingSecret)) -}}
  {{- $_ := set $secret "on" (or $secret.generate (not (empty $secret.value)) (not (empty $secret.existingSecret))) -}}
  {{- $_ := set $region "secret" $secret -}}

  {{- /* its fence */ -}}
  {{- $fence := $.Values.networkPolicy.enabled -}}
  {{- if eq (toString $fence) "auto" }}{{ $fence = and (not (empty $region.name)) (not $shared) (has $region.bootstrapKind (list "kubernetes" "dns")) }}{{ end -}}
  {{- $_ := set $region "networkPolicy" $fence -}}

  {{- /* whether it asks the API server, for which it needs a token */ -}}
  {{- $fromNode := include "speil.topologyFromNode" $ | eq "true" -}}
  {{- $_ := set $region "isKubernetes" $isKubernetes -}}
  {{- $_ := set $region "needsToken" (and (or $isKubernetes $fromNode) (empty $.Values.spegel.kubeconfigPath)) -}}
  {{- $regions = append $regions $region -}}
{{- end -}}
{{- toJson $regions -}}
{{- end }}

{{/*
The region that the two names of a Lease tell, as `speil` itself reads them: on the usual names whatever follows them,
else the longest common end that begins with '-' and is a name for a region.
*/}}
{{- define "speil.reading" -}}
{{- $byName := include "speil.rest" (dict "text" .name "base" "spegel-leader-election") -}}
{{- $byNamespace := include "speil.rest" (dict "text" .namespace "base" "spegel") -}}
{{- $usual := and (include "speil.isOn" (dict "text" .name "base" "spegel-leader-election")) (include "speil.isOn" (dict "text" .namespace "base" "spegel")) -}}
{{- $agreed := "" -}}
{{- if eq $byName $byNamespace }}{{ $agreed = $byName }}{{ end -}}
{{- if not $usual -}}
  {{- $common := "" -}}
  {{- $parts := splitList "-" .name -}}
  {{- range $index, $_ := $parts -}}
    {{- if and $index (not $common) -}}
      {{- $rest := join "-" (slice $parts $index) -}}
      {{- if and (hasSuffix (printf "-%s" $rest) $.namespace) (include "speil.isLabel" $rest) }}{{ $common = $rest }}{{ end -}}
    {{- end -}}
  {{- end -}}
  {{- if $common }}{{ $byName = $common }}{{ $byNamespace = $common }}{{ $agreed = $common }}{{ end -}}
{{- end -}}
{{- $contradiction := and (not (empty $byName)) (not (empty $byNamespace)) (ne $byName $byNamespace) -}}
{{- dict "byName" $byName "byNamespace" $byNamespace "agreed" $agreed "contradiction" $contradiction | toJson -}}
{{- end }}

{{- define "speil.isOn" -}}
{{- if or (eq .text .base) (hasPrefix (printf "%s-" .base) .text) }}true{{ end -}}
{{- end }}

{{- define "speil.isLabel" -}}
{{- if regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" . }}true{{ end -}}
{{- end }}

{{- define "speil.rest" -}}
{{- $prefix := printf "%s-" .base -}}
{{- if hasPrefix $prefix .text }}{{ $rest := trimPrefix $prefix .text }}{{ if include "speil.isLabel" $rest }}{{ $rest }}{{ end }}{{ end -}}
{{- end }}

{{- define "speil.topologyFromNode" -}}
{{- $asked := .Values.topologyFromNode -}}
{{- if eq (toString $asked) "auto" }}{{ semverCompare "<1.35.0-0" .Capabilities.KubeVersion.Version }}{{ else }}{{ $asked }}{{ end -}}
{{- end }}

{{/*
What the nodes' label topology.kubernetes.io/region says, as JSON: regions (each once), unlabelled (names of nodes). Both
are empty without a cluster to look at. Kept in the values, because a list of all nodes is long.
*/}}
{{- define "speil.nodeRegions" -}}
{{- if not (hasKey .Values "nodeRegions") -}}
  {{- $regions := list }}{{ $unlabelled := list -}}
  {{- if .Values.namespaceCheck -}}
    {{- range $node := dig "items" list (lookup "v1" "Node" "" "" | default dict) -}}
      {{- $label := get ($node.metadata.labels | default dict) "topology.kubernetes.io/region" -}}
      {{- if $label }}{{ $regions = append $regions $label }}{{ else }}{{ $unlabelled = append $unlabelled $node.metadata.name }}{{ end -}}
    {{- end -}}
  {{- end -}}
  {{- $_ := set .Values "nodeRegions" (dict "regions" (uniq $regions) "unlabelled" $unlabelled) -}}
{{- end -}}
{{- toJson .Values.nodeRegions -}}
{{- end }}
