{{/* What can't work is refused here, before anything is created; values.schema.json has refused what is misspelt. */}}
{{- define "speil.checks" -}}
{{- include "speil.checkUpgrade" . -}}
{{- include "speil.checkImage" . -}}
{{- include "speil.checkLabels" (dict "value" "commonLabels" "labels" .Values.commonLabels) -}}
{{- $regions := include "speil.regions" . | fromJsonArray -}}
{{- if and .Values.regions (or .Values.region .Values.leaderElectionName .Values.leaderElectionNamespace) -}}
  {{- fail "`regions` names each region's Lease itself: leave region, leaderElectionName and leaderElectionNamespace at the top empty" -}}
{{- end -}}
{{- $names := dict }}{{ $leases := dict }}{{ $ports := dict -}}
{{- range $region := $regions -}}
  {{- $told := $region.name | default "(none)" -}}
  {{- $lease := printf "%s/%s" $region.lease.namespace $region.lease.name -}}
  {{- if hasKey $names $told }}{{ fail (printf "region %s is named twice in `regions`" $told) }}{{ end -}}
  {{- $_ := set $names $told true -}}
  {{- if $region.told }}{{ include "speil.checkNames" $region }}{{ end -}}
  {{- if $region.isKubernetes -}}
    {{- if hasKey $leases $lease }}{{ fail (printf "regions %s and %s have the same Lease %s: they would be one cluster of peers; give each its own leaderElectionName and leaderElectionNamespace" (get $leases $lease) $told $lease) }}{{ end -}}
    {{- $_ := set $leases $lease $told -}}
  {{- end -}}
  {{- if $region.nodePort -}}
    {{- $port := toString $region.nodePort -}}
    {{- if hasKey $ports $port }}{{ fail (printf "regions %s and %s have the same node port %s, which exists once in a cluster: give each its own in `regions` (nodePort), or none" (get $ports $port) $told $port) }}{{ end -}}
    {{- $_ := set $ports $port $told -}}
  {{- end -}}
  {{- if and $.Values.spegel.containerdMirrorAdd (not $.Values.service.registry.hostPort) (not $region.nodePort) -}}
    {{- fail "containerd needs a way to its node: set service.registry.hostPort or a nodePort, or spegel.containerdMirrorAdd: false" -}}
  {{- end -}}
  {{- if and (eq $region.bootstrapKind "static") (not $region.staticBootstrapPeers) -}}
    {{- fail "bootstrapKind static needs staticBootstrapPeers, such as /ip4/10.0.0.7/tcp/5001" -}}
  {{- end -}}
  {{- if and (eq $region.bootstrapKind "http") (not $region.httpBootstrapPeer) (not $.Values.httpBootstrapAddr) -}}
    {{- fail "bootstrapKind http needs httpBootstrapPeer, such as http://10.0.0.7:5002/id" -}}
  {{- end -}}
  {{- if $region.isKubernetes }}{{ include "speil.checkCluster" (dict "root" $ "region" $region "lease" $lease) }}{{ end -}}
  {{- include "speil.checkSecret" (dict "root" $ "region" $region) -}}
  {{- include "speil.checkExtraEnv" (dict "root" $ "region" $region) -}}
  {{- include "speil.checkLeftover" (dict "root" $ "region" $region) -}}
{{- end -}}
{{- end }}

{{/* The cleanup of an earlier uninstall that still waits for a node would take away what this release writes there. */}}
{{- define "speil.checkLeftover" -}}
{{- if and .root.Values.namespaceCheck .root.Values.spegel.containerdMirrorAdd -}}
  {{- $namespace := include "speil.namespace" .root }}{{ $name := printf "%s-cleanup" (include "speil.name" .) -}}
  {{- if lookup "apps/v1" "DaemonSet" $namespace $name -}}
    {{- fail (printf "DaemonSet %s/%s of an earlier uninstall is still there: it cleans up nodes that were away, and would take away hosts.toml of this release too. Run `kubectl -n %s delete daemonset %s` first. Nothing was created." $namespace $name $namespace $name) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* A region beside names of a Lease that both deny it: its nodes would refuse to start. */}}
{{- define "speil.checkNames" -}}
{{- $byName := include "speil.tells" (dict "text" .lease.name "base" "spegel-leader-election" "region" .name) -}}
{{- $byNamespace := include "speil.tells" (dict "text" .lease.namespace "base" "spegel" "region" .name) -}}
{{- $reading := include "speil.reading" .lease | fromJson -}}
{{- $other := $reading.byName | default $reading.byNamespace -}}
{{- if and $other (not (or $byName $byNamespace)) -}}
  {{- fail (printf "region is %s, and leaderElectionName %s and leaderElectionNamespace %s read as region %s: set `region: %s`, or leave the two names out, and they follow from the region" .name .lease.name .lease.namespace $other $other) -}}
{{- end -}}
{{- end }}

{{- define "speil.tells" -}}
{{- if include "speil.isOn" . }}{{ if eq .text (printf "%s-%s" .base .region) }}true{{ end }}{{ else if hasSuffix (printf "-%s" .region) .text }}true{{ end -}}
{{- end }}

{{/* Against the cluster, where there is one: `helm template` and `helm lint` have none. */}}
{{- define "speil.checkCluster" -}}
{{- if and .root.Values.namespaceCheck (lookup "v1" "Namespace" "" "default") -}}
  {{- $namespace := .region.lease.namespace -}}
  {{- if not (lookup "v1" "Namespace" "" $namespace) -}}
    {{- if not (or .region.createNamespace (eq $namespace .root.Release.Namespace)) -}}
      {{- fail (printf "leaderElectionNamespace %s does not exist in this cluster: run `kubectl create namespace %s`, or set createNamespace: true. Nothing was created." $namespace $namespace) -}}
    {{- end -}}
  {{- else -}}
    {{- $found := lookup "coordination.k8s.io/v1" "Lease" $namespace .region.lease.name | default dict -}}
    {{- $of := dig "metadata" "annotations" "speil.dev/region" "" $found -}}
    {{- if and $of .region.name (ne $of .region.name) -}}
      {{- fail (printf "the Lease %s belongs to region %s, and this is region %s: correct leaderElectionName and leaderElectionNamespace. If the region was renamed, run `kubectl delete lease -n %s %s` first. Nothing was created." .lease $of .region.name $namespace .region.lease.name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}
