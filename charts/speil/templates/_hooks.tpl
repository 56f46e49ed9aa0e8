{{/* Parts of the hooks. A hook's objects are in no release's manifest: helm makes and removes each by its annotations. */}}

{{/*
What a hook's Job may do: dict root, region, ending, event, daemonset (its name), isRemover, lease (or nothing). Made
before the Job, and removed with it, whether it succeeds or not.
*/}}
{{- define "speil.hookAccount" -}}
{{- $policy := "before-hook-creation,hook-succeeded,hook-failed" -}}
{{- $annotations := dict "helm.sh/hook" .event "helm.sh/hook-weight" "-5" "helm.sh/hook-delete-policy" $policy -}}
{{- $scope := dict "root" .root "region" .region "ending" .ending "annotations" $annotations -}}
{{- $name := printf "%s%s" (include "speil.name" .) .ending -}}
{{- $namespace := include "speil.namespace" .root -}}
{{- $roles := list (dict "namespace" $namespace "name" $name "annotations" $annotations "rules" (list
  (dict "apiGroups" (list "apps") "resources" (list "daemonsets") "resourceNames" (list .daemonset) "verbs" (ternary (list "get" "delete") (list "get") .isRemover))
  (dict "apiGroups" (list "") "resources" (list "pods") "verbs" (list "list")))) -}}
{{- with .lease -}}
  {{- $rule := dict "apiGroups" (list "coordination.k8s.io") "resources" (list "leases") "resourceNames" (list .name) "verbs" (list "get" "delete") -}}
  {{- /* after the DaemonSet: where the namespace has gone, the nodes are cleaned all the same */ -}}
  {{- $late := merge (dict "helm.sh/hook-weight" "3") $annotations -}}
  {{- $roles = append $roles (dict "namespace" .namespace "name" (printf "%s%s" (include "speil.rbacName" $) $.ending) "annotations" $late "rules" (list $rule)) -}}
{{- end }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "speil.metadata" $scope | nindent 2 }}
automountServiceAccountToken: false
{{- range $roles }}
{{- $metadata := dict "name" .name "namespace" .namespace "labels" (include "speil.labels" $scope | fromYaml) "annotations" .annotations }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- toYaml $metadata | nindent 2 }}
rules:
  {{- toYaml .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- toYaml $metadata | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: "{{ .name }}"
subjects:
  - kind: ServiceAccount
    name: "{{ $name }}"
    namespace: "{{ $namespace }}"
{{- end }}
{{- end }}

{{/*
A Job: dict root, region, ending, component, event, weight, what (the end of its name), seconds, args. It prefers the
region's nodes, which have the image, and leaves a node that goes down at once: there it would wait for ever. Nobody on
such a node says that the pod has ended. So the Job has no podFailurePolicy, with which it would wait for that, and makes
another pod as soon as the old one is deleted. What a pod waits for counts from the DaemonSet's creation (--since-creation):
a second pod does not start anew, and one that follows a failure says the same at once.
*/}}
{{- define "speil.hookJob" -}}
{{- $policy := "before-hook-creation,hook-succeeded" -}}
{{- $annotations := dict "helm.sh/hook" .event "helm.sh/hook-weight" .weight "helm.sh/hook-delete-policy" $policy -}}
{{- $scope := dict "root" .root "region" .region "ending" (printf "%s-%s" .ending .what) "component" (printf "%s-%s" .component .what) "app" (printf "speil-%s" .component) "annotations" $annotations -}}
{{- $terms := include "speil.regionTerms" . | fromJsonArray -}}
---
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "speil.metadata" $scope | nindent 2 }}
spec:
  activeDeadlineSeconds: {{ add (int .seconds) 60 }}
  # one for a node that goes down
  backoffLimit: 1
  template:
    metadata:
      labels:
        app.kubernetes.io/name: speil-{{ .component }}
        app.kubernetes.io/instance: "{{ .root.Release.Name }}"
        app.kubernetes.io/component: {{ .component }}-{{ .what }}
    spec:
      serviceAccountName: "{{ include "speil.name" . }}{{ .ending }}"
      automountServiceAccountToken: true
      enableServiceLinks: false
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.podSecurityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      nodeSelector:
        kubernetes.io/os: linux
      {{- with $terms }}
      affinity:
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            {{- range . }}
            - weight: 100
              preference:
                {{- toYaml . | nindent 16 }}
            {{- end }}
      {{- end }}
      tolerations:
        {{- range $key := list "not-ready" "unreachable" }}
        - key: node.kubernetes.io/{{ $key }}
          operator: Exists
          effect: NoExecute
          tolerationSeconds: 0
        {{- end }}
        {{- /* a control plane alone, or nodes that all have a taint */}}
        - key: node-role.kubernetes.io/control-plane
          operator: Exists
        {{- range .region.tolerations | default list }}
        {{- if and .key (ne .effect "NoExecute") (not (hasPrefix "node.kubernetes.io/" .key)) }}
        - {{ toJson . }}
        {{- end }}
        {{- end }}
      containers:
        - name: {{ .what }}
          {{- include "speil.container" .root | nindent 10 }}
          {{- include "speil.resources" .root.Values.hookResources | nindent 10 }}
          terminationMessagePolicy: FallbackToLogsOnError
          args:
            {{- range .args }}
            - {{ . | quote }}
            {{- end }}
            {{- include "speil.logArgs" .root | nindent 12 }}
{{- end }}

{{/* The region's nodes as terms of a preference: JSON list. */}}
{{- define "speil.regionTerms" -}}
{{- $expressions := list -}}
{{- range $key, $value := .region.nodeSelector -}}
  {{- $expressions = append $expressions (dict "key" $key "operator" "In" "values" (list (toString $value))) -}}
{{- end -}}
{{- with .region.keepTo -}}
  {{- $expressions = append $expressions (dict "key" "topology.kubernetes.io/region" "operator" "In" "values" (list .)) -}}
{{- end -}}
{{- if $expressions }}{{ list (dict "matchExpressions" $expressions) | toJson }}{{ else }}[]{{ end -}}
{{- end }}
