{{/* All workers by name, with their defaults: those of `workers`, and one for each of `models`. */}}
{{- define "sangha.workers" -}}
{{- $root := . }}
{{- $all := dict }}
{{- range $name, $own := .Values.workers }}
{{- if $own }}
{{- $worker := mustMergeOverwrite (deepCopy $root.Values.workerDefaults) (deepCopy $own) }}
{{- if $worker.enabled }}
{{- $_ := set $worker "pools" ($worker.pools | default (list $name)) }}
{{- $_ := set $all $name $worker }}
{{- end }}
{{- end }}
{{- end }}
{{- range $key, $own := .Values.models }}
{{- $defaults := mustMergeOverwrite (deepCopy $root.Values.workerDefaults) (deepCopy $root.Values.modelDefaults) }}
{{- $worker := mustMergeOverwrite $defaults (deepCopy ($own | default dict)) }}
{{- $_ := set $worker "pools" (list "inference") }}
{{- $_ := set $worker "name" ($worker.name | default $key) }}
{{- $_ := set $worker "isModel" true }}
{{- $_ := set $all (printf "inference-%s" $key) $worker }}
{{- end }}
{{- toYaml $all }}
{{- end }}

{{/* The command line of a worker: (list context worker). */}}
{{- define "sangha.workerArgs" -}}
{{- $worker := index . 1 }}
- worker
{{- range $worker.pools }}
- {{ . }}
{{- end }}
{{- if $worker.isModel }}
{{- with $worker.file }}
- --model
- {{ printf "%s=%s" $worker.name . | quote }}
{{- end }}
- --slots
- {{ $worker.slots | int | quote }}
{{- with $worker.context }}
- --context
- {{ . | int | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether a worker reads model files: (list context worker). Those of recall and memory may have an embedder there. */}}
{{- define "sangha.usesModelFiles" -}}
{{- $root := index . 0 }}
{{- $worker := index . 1 }}
{{- $embeds := or (has "recall" $worker.pools) (has "memory" $worker.pools) (has "inference" $worker.pools) }}
{{- if and (include "sangha.modelVolume" $root) (or $worker.isModel (and $root.Values.settings.SANGHA_EMBEDDING_MODEL $embeds)) }}true{{ end }}
{{- end }}

{{/* The model files: an init container that copies them from an image, or a claim. */}}
{{- define "sangha.modelVolume" -}}
{{- if .Values.modelFiles.existingClaim }}
- name: models
  persistentVolumeClaim:
    claimName: {{ .Values.modelFiles.existingClaim }}
    readOnly: true
{{- else if .Values.modelFiles.image }}
- name: models
  emptyDir:
    sizeLimit: {{ .Values.modelFiles.sizeLimit }}
{{- end }}
{{- end }}

{{/* The rights of a worker at the API of Kubernetes: a token of an hour for its own pod's annotation. */}}
{{- define "sangha.usesPodDeletionCost" -}}
{{- if and .Values.autoscaling.enabled .Values.podDeletionCost.enabled }}true{{ end }}
{{- end }}

{{- define "sangha.apiTokenVolume" -}}
- name: api-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items:
            - {key: ca.crt, path: ca.crt}
{{- end }}

{{/* The statement that KEDA runs: (list context promises), of which the promises are rows of SQL. */}}
{{- define "sangha.neededThreads" -}}
{{- $root := index . 0 }}
{{- $sql := $root.Files.Get "files/needed-threads.sql" }}
{{- range $line := splitList "\n" $sql }}
{{- if and $line (not (hasPrefix "--" $line)) }}
{{ $line | replace "PROMISES" (index $ 1) | replace "ASSUMED" (toString $root.Values.autoscaling.assumedSeconds) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What a worker is scaled by: a list of `{queues, threads, promises}`: (list context worker). */}}
{{- define "sangha.demands" -}}
{{- $root := index . 0 }}
{{- $worker := index . 1 }}
{{- $scaling := $worker.autoscaling }}
{{- $wait := $scaling.targetWaitSeconds }}
{{- $batchWait := $scaling.batchTargetWaitSeconds }}
{{- $tables := $root.Files.Get "files/pools.yaml" | fromYaml }}
{{- range $pool := $worker.pools }}
{{- if eq $pool "upstream" }}
- queues: []
  threads: {{ $scaling.threads | default 16 }}
  promises: "SELECT DISTINCT model_queue || twin, CASE twin WHEN '' THEN {{ $wait }} ELSE {{ $batchWait }} END FROM served_models CROSS JOIN (VALUES (''), ('_batch')) AS twins (twin) WHERE model_endpoint <> ''"
{{- else if eq $pool "inference" }}
{{- $queue := include "sangha.modelQueue" (list $root ($worker.name | default (include "sangha.defaultModel" $root))) }}
- queues: [{{ $queue | quote }}, {{ printf "%s_batch" $queue | quote }}]
  threads: {{ $worker.slots | default 4 }}
  promises: "VALUES ('{{ $queue }}', {{ $wait }}), ('{{ $queue }}_batch', {{ $batchWait }})"
{{- else }}
{{- range $queue, $threads := index $tables $pool }}
- queues: [{{ $queue | quote }}]
  threads: {{ $threads }}
  promises: "VALUES ('{{ $queue }}', {{ hasSuffix "_batch" $queue | ternary $batchWait $wait }})"
{{- end }}
{{- end }}
{{- end }}
{{- end }}
