{{/*
The region's secret. One that the chart made is never changed again by helm: it is a hook, made where the Secret does not
exist, and in no release's manifest. So an upgrade, a rollback or a new installation finds the same secret, and lines
that were added in the cluster stay.
*/}}

{{/* Where a region's secret is. */}}
{{- define "speil.secretName" -}}
{{- .region.secret.existingSecret | default (printf "%s-region" (include "speil.name" .)) }}
{{- end }}

{{/*
"true" where there is a cluster to look at: `helm template`, Argo CD and --dry-run=client have none. There, nobody can
tell whether a secret was made before, and a new one with each rendering would tear the region apart.
*/}}
{{- define "speil.isInCluster" -}}
{{- if .Values.namespaceCheck }}{{ if lookup "v1" "Namespace" "" "default" }}true{{ end }}
{{- else }}{{ if lookup "v1" "ServiceAccount" (include "speil.namespace" .) "default" }}true{{ end }}
{{- end }}
{{- end }}

{{/*
What the cluster has of it, for root and region, as JSON. It holds nothing of the secret.

  found   the Secret is there          keys    the keys in it that hold something
  make    it is to be made             keep    an older chart's, which helm would delete: it has to be in the manifest
  isAway  nobody knows whether it is there, because there is no cluster to look at
*/}}
{{- define "speil.secretState" -}}
{{- $secret := .region.secret -}}
{{- $state := dict "found" false "keys" list "make" false "keep" false "isAway" false -}}
{{- if and $secret.on (or $secret.generate (and $secret.existingSecret .root.Values.namespaceCheck)) -}}
  {{- $found := lookup "v1" "Secret" (include "speil.namespace" .root) (include "speil.secretName" .) -}}
  {{- if $found -}}
    {{- $keys := list -}}
    {{- range $key, $value := $found.data | default dict }}{{ if $value }}{{ $keys = append $keys $key }}{{ end }}{{ end -}}
    {{- $annotations := $found.metadata.annotations | default dict -}}
    {{- $ours := and (eq (get $annotations "meta.helm.sh/release-name") .root.Release.Name) (eq (get $annotations "meta.helm.sh/release-namespace") .root.Release.Namespace) -}}
    {{- $_ := set $state "found" true -}}
    {{- $_ := set $state "keys" (sortAlpha $keys) -}}
    {{- $_ := set $state "keep" (and $secret.generate $ours (ne (get $annotations "helm.sh/resource-policy") "keep")) -}}
  {{- else if include "speil.isInCluster" .root -}}
    {{- $_ := set $state "make" $secret.generate -}}
  {{- else -}}
    {{- $_ := set $state "isAway" true -}}
  {{- end -}}
{{- end -}}
{{- toJson $state -}}
{{- end }}

{{- define "speil.checkSecret" -}}
{{- $secret := .region.secret -}}
{{- if and $secret.value $secret.existingSecret -}}
  {{- fail "regionSecret has both value and existingSecret: give one" -}}
{{- end -}}
{{- if $secret.value -}}
  {{- $lines := list -}}
  {{- range $line := splitList "\n" $secret.value }}{{ with trim $line }}{{ $lines = append $lines . }}{{ end }}{{ end -}}
  {{- if or (gt (len $lines) 8) (not $lines) }}{{ fail (printf "regionSecret.value has %d lines: 1 to 8, the one that signs first" (len $lines)) }}{{ end -}}
  {{- if ne (len $lines) (len (uniq $lines)) }}{{ fail "regionSecret.value has the same line twice" }}{{ end -}}
  {{- range $index, $line := $lines -}}
    {{- if or (lt (len $line) 16) (gt (len $line) 1024) -}}
      {{- fail (printf "line %d of regionSecret.value has %d characters; use 16 to 1024, such as `openssl rand -hex 32` prints" (add1 $index) (len $line)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and $secret.on (not .region.name) (eq (include "speil.topologyFromNode" .root) "true") -}}
  {{- fail "regionSecret needs the region's name in a cluster whose pods don't carry their node's labels: set `region`, or the names of the Lease" -}}
{{- end -}}
{{- $state := include "speil.secretState" . | fromJson -}}
{{- if and $secret.generate $state.found (not (has $secret.key $state.keys)) -}}
  {{- fail (printf "the Secret %s/%s is there and has nothing under the key %s, so no pod would start (it has: %s): set regionSecret.key, or fill it with `%s`. Nothing was changed." (include "speil.namespace" .root) (include "speil.secretName" .) $secret.key (join ", " $state.keys | default "nothing") (include "speil.fillSecret" .)) -}}
{{- end -}}
{{- end }}

{{/* How to make a region's Secret, and how to fill one, by hand. */}}
{{- define "speil.makeSecret" -}}
kubectl -n {{ include "speil.namespace" .root }} create secret generic {{ include "speil.secretName" . }} --from-literal={{ .region.secret.key }}="$(openssl rand -hex 32)"
{{- end }}
{{- define "speil.fillSecret" -}}
kubectl -n {{ include "speil.namespace" .root }} patch secret {{ include "speil.secretName" . }} -p "{\"stringData\":{\"{{ .region.secret.key }}\":\"$(openssl rand -hex 32)\"}}"
{{- end }}

{{/* The Secret that the pods of a DaemonSet have now, "" for none. */}}
{{- define "speil.secretOf" -}}
{{- range $volume := dig "spec" "template" "spec" "volumes" list . | default list -}}
  {{- if eq $volume.name "region-secret" }}{{ dig "secret" "secretName" "" $volume }}{{ end -}}
{{- end -}}
{{- end }}

{{/* What the operator should know of a region's secret: a JSON list of lines for NOTES. */}}
{{- define "speil.secretNotes" -}}
{{- $notes := list -}}
{{- $region := .region }}{{ $secret := .region.secret -}}
{{- $namespace := include "speil.namespace" .root -}}
{{- $name := include "speil.secretName" . -}}
{{- $state := include "speil.secretState" . | fromJson -}}
{{- if and $region.name (not $secret.on) -}}
  {{- $why := "regionSecret.generate is false. With \"auto\", or without it, the chart makes one" -}}
  {{- if and .root.Values.speil.dhtProtocolPrefix (eq (toString $secret.asked) "auto") -}}
    {{- $why = printf "speil.dhtProtocolPrefix is %s, for a mesh with Spegel, which knows no secret. Take it out when no Spegel is left, or set regionSecret.generate: true" .root.Values.speil.dhtProtocolPrefix -}}
  {{- end -}}
  {{- $notes = append $notes (printf "WARNING: region %s has no secret: whoever reaches its ports may join it, read its images and answer its tags. %s." $region.name $why) -}}
{{- end -}}
{{- if and $state.isAway $secret.generate -}}
  {{- $notes = append $notes (printf "NOTE: this was rendered without a look at the cluster, so no Secret is made: the pods of region %s wait for the Secret %s/%s. `helm install` and `helm upgrade` make it; where something else applies these objects, make it once: %s" $region.name $namespace $name (include "speil.makeSecret" .)) -}}
{{- else if and $secret.existingSecret .root.Values.namespaceCheck (not $state.isAway) (not (has $secret.key $state.keys)) -}}
  {{- $fix := ternary (include "speil.fillSecret" .) (include "speil.makeSecret" .) $state.found -}}
  {{- $notes = append $notes (printf "WARNING: the Secret %s/%s %s: the pods wait for it. To make one: %s" $namespace $name (ternary (printf "has nothing under the key %s" $secret.key) "does not exist" $state.found) $fix) -}}
{{- end -}}
{{- if .root.Values.namespaceCheck -}}
  {{- $wanted := ternary $name "" $secret.on -}}
  {{- range $one := dig "items" list (lookup "apps/v1" "DaemonSet" $namespace "" | default dict) -}}
    {{- $labels := $one.metadata.labels | default dict -}}
    {{- $has := include "speil.secretOf" $one -}}
    {{- $isNode := eq (get $labels "app.kubernetes.io/component") "node" -}}
    {{- if eq $has $wanted -}}
    {{- else if and (eq $one.metadata.name (include "speil.name" $)) $.root.Release.IsUpgrade -}}
      {{- $notes = append $notes (printf "NOTE: the pods of %s have %s until they are replaced, and then %s. Meanwhile old and new pods don't share blobs%s, and what they need of each other comes from upstream; no pull fails. See docs/regions.md." $one.metadata.name (ternary (printf "the Secret %s" $has) "no secret" (not (empty $has))) (ternary (printf "the Secret %s" $wanted) "none" (not (empty $wanted))) (ternary " (unless each of the Secrets holds the first line of the other)" "" (and (not (empty $has)) (not (empty $wanted))))) -}}
    {{- else if and $isNode $region.name (eq (get $labels "speil.dev/region") $region.name) (ne $one.metadata.name (include "speil.name" $)) -}}
      {{- $notes = append $notes (printf "WARNING: DaemonSet %s is of region %s too, and has %s: its nodes and these keep each other out. Give both one Secret with regionSecret.existingSecret." $one.metadata.name $region.name (ternary (printf "the Secret %s" $has) "no secret" (not (empty $has)))) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- toJson $notes -}}
{{- end }}
