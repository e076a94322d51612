{{/* The chart's name. */}}
{{- define "sangha.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What the names of all objects begin with. 40 characters leave room for `-worker-inference-NAME`. */}}
{{- define "sangha.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* The chart's name and version, as a label. */}}
{{- define "sangha.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Labels of all objects. */}}
{{- define "sangha.labels" -}}
helm.sh/chart: {{ include "sangha.chart" . }}
{{ include "sangha.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sangha
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that select the pods of this release. */}}
{{- define "sangha.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sangha.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The ServiceAccount of all pods except workers, of workers, and of the migration hook, which runs before these exist. */}}
{{- define "sangha.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "sangha.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "sangha.workerServiceAccountName" -}}
{{- include "sangha.serviceAccountName" . }}{{ if .Values.serviceAccount.create }}-worker{{ end }}
{{- end }}

{{- define "sangha.migrateServiceAccountName" -}}
{{- include "sangha.serviceAccountName" . }}{{ if .Values.serviceAccount.create }}-migrate{{ end }}
{{- end }}

{{/* The image: (list context gpu). */}}
{{- define "sangha.image" -}}
{{- $root := index . 0 }}
{{- $image := $root.Values.image }}
{{- $tag := $image.tag | default $root.Chart.AppVersion }}
{{- if index . 1 }}
{{- $image.repository }}:{{ $image.gpuTag | default (printf "%s-gpu" $tag) }}
{{- else if $image.digest }}
{{- $image.repository }}@{{ $image.digest }}
{{- else }}
{{- $image.repository }}:{{ $tag }}
{{- end }}
{{- end }}

{{/* The names of the Secrets that pods read, in the order in which a later one overrides. */}}
{{- define "sangha.dependenciesSecret" -}}
{{- include "sangha.fullname" . }}-dependencies
{{- end }}

{{- define "sangha.secretName" -}}
{{- default (include "sangha.fullname" .) .Values.existingSecret }}
{{- end }}

{{- define "sangha.hasSecret" -}}
{{- if or .Values.existingSecret .Values.secrets }}true{{ end }}
{{- end }}

{{- define "sangha.hasDependencies" -}}
{{- if or .Values.postgresql.enabled .Values.valkey.enabled .Values.rabbitmq.enabled }}true{{ end }}
{{- end }}

{{/* Where the pod reads a variable from, for KEDA: the name of the Secret: (list context enabled). */}}
{{- define "sangha.secretOf" -}}
{{- $root := index . 0 }}
{{- if index . 1 }}{{ include "sangha.dependenciesSecret" $root }}{{ else }}{{ include "sangha.secretName" $root }}{{ end }}
{{- end }}

{{/* The name of the default model: that of `defaultModel`, or of the only one. */}}
{{- define "sangha.defaultModel" -}}
{{- if .Values.defaultModel }}
{{- .Values.defaultModel }}
{{- else if eq (len .Values.models) 1 }}
{{- range $key, $model := .Values.models }}{{ $model.name | default $key }}{{ end }}
{{- end }}
{{- end }}

{{/* The queue of a model, as models/serving/queues.py names it: (list context name). */}}
{{- define "sangha.modelQueue" -}}
{{- $name := index . 1 }}
{{- if eq $name (include "sangha.defaultModel" (index . 0)) -}}
inference
{{- else }}
{{- $safe := regexReplaceAll "[^A-Za-z0-9._-]" $name "-" }}
{{- printf "inference.%s" (eq $safe $name | ternary $name (printf "%s-%s" $safe (sha256sum $name | trunc 8))) }}
{{- end }}
{{- end }}

{{/* The variables of the ConfigMap, sorted. Those of `settings` override; further host names are added. */}}
{{- define "sangha.settings" -}}
{{- $fullname := include "sangha.fullname" . }}
{{- $service := printf "%s-web.%s" $fullname .Release.Namespace }}
{{- $all := dict
    "SANGHA_DATA_DIR" "/data"
    "SANGHA_HOST" "0.0.0.0"
    "SANGHA_PORT" "8000"
    "SANGHA_METRICS_ADDRESS" "0.0.0.0:9000"
    "SANGHA_LOG_FORMAT" "json"
    "SANGHA_ALLOWED_HOSTS" (printf "%s,%s.svc,%s.svc.cluster.local" $service $service $service) }}
{{- with .Values.publicUrl }}{{ $_ := set $all "SANGHA_PUBLIC_URL" . }}{{ end }}
{{- with include "sangha.defaultModel" . }}{{ $_ := set $all "SANGHA_DEFAULT_MODEL" . }}{{ end }}
{{- if .Values.objectStore.persistence.enabled }}{{ $_ := set $all "SANGHA_OBJECT_STORE" "/objects" }}{{ end }}
{{- range $name, $value := .Values.settings }}{{ $_ := set $all $name (toString $value) }}{{ end }}
{{- with .Values.settings.SANGHA_ALLOWED_HOSTS }}
{{- $_ := set $all "SANGHA_ALLOWED_HOSTS" (printf "%s,%s,%s.svc,%s.svc.cluster.local" . $service $service $service) }}
{{- end }}
{{- range $name, $value := $all }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* The variables of in-chart dependencies. */}}
{{- define "sangha.dependencyVariables" -}}
{{- $fullname := include "sangha.fullname" . }}
{{- if .Values.postgresql.enabled }}
SANGHA_DATABASE_URL: {{ printf "postgresql://sangha:%s@%s-postgresql:5432/sangha" .Values.postgresql.password $fullname | quote }}
POSTGRES_PASSWORD: {{ .Values.postgresql.password | quote }}
{{- end }}
{{- if .Values.valkey.enabled }}
SANGHA_REDIS_URL: {{ printf "redis://:%s@%s-valkey:6379/0" .Values.valkey.password $fullname | quote }}
VALKEY_PASSWORD: {{ .Values.valkey.password | quote }}
{{- end }}
{{- if .Values.rabbitmq.enabled }}
SANGHA_BROKER_URL: {{ printf "amqp://sangha:%s@%s-rabbitmq:5672/" .Values.rabbitmq.password $fullname | quote }}
RABBITMQ_DEFAULT_PASS: {{ .Values.rabbitmq.password | quote }}
{{- end }}
{{- end }}
