{{/* Conditions across values, which a JSON schema cannot explain: each stops the installation with one sentence. */}}
{{- define "sangha.checks" -}}
{{- $values := .Values }}
{{- if not $values.existingSecret }}
{{- if not (or $values.postgresql.enabled $values.secrets.SANGHA_DATABASE_URL) }}
{{- fail "No database: put SANGHA_DATABASE_URL into the Secret that existingSecret names, or set postgresql.enabled=true for a trial." }}
{{- end }}
{{- if not (or $values.valkey.enabled $values.secrets.SANGHA_REDIS_URL) }}
{{- fail "No Redis or Valkey: put SANGHA_REDIS_URL into the Secret that existingSecret names, or set valkey.enabled=true for a trial." }}
{{- end }}
{{- if not $values.secrets.SANGHA_SECRET_KEY }}
{{- fail "No secret key: put SANGHA_SECRET_KEY, the same for all pods, into the Secret that existingSecret names, or into secrets." }}
{{- end }}
{{- end }}
{{- if not (or $values.objectStore.persistence.enabled $values.settings.SANGHA_OBJECT_STORE) }}
{{- if not (or $values.existingSecret $values.secrets.SANGHA_OBJECT_STORE) }}
{{- fail "No object store: set settings.SANGHA_OBJECT_STORE=s3://BUCKET/PREFIX, or objectStore.persistence.enabled=true for a volume that all pods share." }}
{{- end }}
{{- end }}
{{- if and (gt (len $values.models) 1) (not $values.defaultModel) }}
{{- fail "Several models and no default: set defaultModel to the name of one of them." }}
{{- end }}
{{- range $key, $model := $values.models }}
{{- if and (not $model.file) (gt (len $values.models) 1) }}
{{- fail (printf "models.%s has no file: set models.%s.file to the path of its GGUF file. Only a single model may be the image's own." $key $key) }}
{{- end }}
{{- end }}
{{- range $name, $value := $values.settings }}
{{- if hasKey $values.secrets $name }}
{{- fail (printf "%s is in settings and in secrets: choose one." $name) }}
{{- end }}
{{- end }}
{{- if and $values.ingress.enabled $values.httpRoute.enabled }}
{{- fail "ingress.enabled and httpRoute.enabled: choose one." }}
{{- end }}
{{- if and $values.autoscaling.enabled $values.autoscaling.rabbitmq.enabled (not $values.rabbitmq.enabled) (not $values.existingSecret) (not $values.secrets.SANGHA_BROKER_URL) }}
{{- fail "autoscaling.rabbitmq.enabled needs SANGHA_BROKER_URL: set it to an amqp:// or amqps:// URL, or autoscaling.rabbitmq.enabled=false where Redis is the broker." }}
{{- end }}
{{- range $name, $worker := fromYaml (include "sangha.workers" .) }}
{{- $scaling := $worker.autoscaling }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- fail (printf "Worker %s: autoscaling.minReplicas is %v and maxReplicas is %v." $name $scaling.minReplicas $scaling.maxReplicas) }}
{{- end }}
{{- if and (has "inference" $worker.pools) (has "upstream" $worker.pools) }}
{{- fail (printf "Worker %s: a process serves inference or upstream, not both." $name) }}
{{- end }}
{{- end }}
{{- end }}
