{{/* What all pods of the image have in their spec: (list context). */}}
{{- define "sangha.podSpec" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
# Kubernetes would set SANGHA_PORT and others for a Service of that name, which are settings.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Where pods may run: (list context component worker values). */}}
{{- define "sangha.placement" -}}
{{- $root := index . 0 }}
{{- $values := index . 3 }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "sangha.componentLabels" $ | trim | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}

{{/* Labels that select the pods of a component: (list context component worker). */}}
{{- define "sangha.componentLabels" -}}
{{ include "sangha.selectorLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- with index . 2 }}
sangha-worker: {{ . }}
{{- end }}
{{- end }}

{{/* What all containers of the image have: (list context gpu). */}}
{{- define "sangha.container" -}}
{{- $root := index . 0 }}
image: {{ include "sangha.image" . | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml $root.Values.securityContext | nindent 2 }}
{{- end }}

{{/* The Secrets of all containers. */}}
{{- define "sangha.secretRefs" -}}
{{- if include "sangha.hasDependencies" . }}
- secretRef:
    name: {{ include "sangha.dependenciesSecret" . }}
{{- end }}
{{- if include "sangha.hasSecret" . }}
- secretRef:
    name: {{ include "sangha.secretName" . }}
{{- end }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sangha.envFrom" -}}
- configMapRef:
    name: {{ include "sangha.fullname" . }}
{{ include "sangha.secretRefs" . }}
{{- end }}

{{- define "sangha.volumeMounts" -}}
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- if .Values.objectStore.persistence.enabled }}
- name: objects
  mountPath: /objects
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sangha.volumes" -}}
- name: data
  emptyDir:
    sizeLimit: {{ .Values.scratchSize }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.scratchSize }}
{{- if .Values.objectStore.persistence.enabled }}
- name: objects
  persistentVolumeClaim:
    claimName: {{ .Values.objectStore.persistence.existingClaim | default (printf "%s-objects" (include "sangha.fullname" .)) }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Probes over HTTP: (list port startupSeconds scheme). The engine of a worker is loaded before it is ready. */}}
{{- define "sangha.probes" -}}
{{- $port := index . 0 }}
startupProbe:
  httpGet: {path: /healthz, port: {{ $port }}, scheme: {{ index . 2 }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ div (index . 1) 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: {{ $port }}, scheme: {{ index . 2 }}}
  periodSeconds: 5
  # The checks of a web process, of Postgres, Redis and the broker, have 2 seconds.
  timeoutSeconds: 4
  failureThreshold: 2
livenessProbe:
  # Looks at the process only: an outage of Postgres restarts nothing.
  httpGet: {path: /healthz, port: {{ $port }}, scheme: {{ index . 2 }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* Annotations that restart pods when their settings change. */}}
{{- define "sangha.checksums" -}}
checksum/settings: {{ include "sangha.settings" . | sha256sum }}
checksum/secrets: {{ printf "%s%s" (toJson .Values.secrets) (include "sangha.dependencyVariables" .) | sha256sum }}
{{- end }}
