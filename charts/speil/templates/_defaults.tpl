{{/*
Values that are missing get the chart's defaults. With `--reuse-values` helm leaves out the defaults of the new chart:
a release of Spegel brings Spegel's values only, and a release of an older speil lacks what is new. Each template file
includes this first.

A key that the operator took away with null is missing too. null stands for "none" where the kubelet or Kubernetes has a
default of its own, and at ports and paths that may be missing: these stay away. Elsewhere null is the chart's default.
*/}}
{{- define "speil.defaults" -}}
{{- $defaults := .Files.Get "files/defaults.json" | fromJson -}}
{{- $own := list "speil" "regionSecret" "cleanup" "namespaceCheck" "keepToRegion" "topologyFromNode" "createNamespace" "regions" -}}
{{- $missing := 0 -}}
{{- range $key := $own }}{{ if not (hasKey $.Values $key) }}{{ $missing = add1 $missing }}{{ end }}{{ end -}}
{{- /* most, and not all: some may have been given with the upgrade */ -}}
{{- if gt (mul 2 $missing) (len $own) -}}
  {{- $_ := set .Values "isOfAnotherChart" true -}}
  {{- include "speil.fill" (dict "values" .Values "defaults" $defaults) -}}
{{- else -}}
  {{- $_ := set $defaults.service "registry" (omit $defaults.service.registry "hostPort" "nodePort") -}}
  {{- $_ := set $defaults "spegel" (omit $defaults.spegel "containerdContentPath") -}}
  {{- $none := list "resources" "initResources" "hookResources" "securityContext" "tolerations" "nodeSelector" "priorityClassName" "namespaceCheck" -}}
  {{- range $key, $default := $defaults -}}
    {{- if not (has $key $none) }}{{ include "speil.fill" (dict "values" $.Values "defaults" (dict $key $default)) }}{{ end -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* dict values, defaults: sets in `values` what only `defaults` has, at any depth. */}}
{{- define "speil.fill" -}}
{{- range $key, $default := .defaults -}}
  {{- if not (hasKey $.values $key) -}}
    {{- $_ := set $.values $key $default -}}
  {{- else if and (kindIs "map" $default) (kindIs "map" (get $.values $key)) -}}
    {{- include "speil.fill" (dict "values" (get $.values $key) "defaults" $default) -}}
  {{- end -}}
{{- end -}}
{{- end }}
