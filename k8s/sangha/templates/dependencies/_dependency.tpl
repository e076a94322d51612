{{- /*
A StatefulSet of one pod with a volume, its Service and its NetworkPolicy, for trials: (dict context name values port
container), of which `container` is YAML of the container's own fields.
*/ -}}
{{- define "sangha.dependency" -}}
{{- $root := .context }}
{{- $fullname := printf "%s-%s" (include "sangha.fullname" $root) .name }}
{{- $component := list $root .name "" }}
apiVersion: v1
kind: Service
metadata:
  name: {{ $fullname }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "sangha.labels" $root | trim | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  clusterIP: None
  selector:
    {{- include "sangha.componentLabels" $component | trim | nindent 4 }}
  ports:
    - {name: server, port: {{ .port }}, targetPort: server}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $fullname }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "sangha.labels" $root | trim | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  replicas: 1
  serviceName: {{ $fullname }}
  selector:
    matchLabels:
      {{- include "sangha.componentLabels" $component | trim | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "sangha.labels" $root | trim | nindent 8 }}
        app.kubernetes.io/component: {{ .name }}
      annotations:
        checksum/secrets: {{ include "sangha.dependencyVariables" $root | sha256sum }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ .values.runAsUser }}
        runAsGroup: {{ .values.runAsUser }}
        fsGroup: {{ .values.runAsUser }}
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {type: RuntimeDefault}
      terminationGracePeriodSeconds: 60
      containers:
        - name: {{ .name }}
          image: {{ .values.image | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          securityContext:
            {{- toYaml $root.Values.securityContext | nindent 12 }}
          ports:
            - {name: server, containerPort: {{ .port }}}
          startupProbe:
            tcpSocket: {port: server}
            periodSeconds: 2
            failureThreshold: 60
          readinessProbe:
            tcpSocket: {port: server}
            periodSeconds: 5
          livenessProbe:
            tcpSocket: {port: server}
            periodSeconds: 10
            failureThreshold: 6
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          {{- .container | nindent 10 }}
          volumeMounts:
            - {name: data, mountPath: {{ .dataPath }}}
            - {name: tmp, mountPath: /tmp}
            {{- with .runPath }}
            - {name: run, mountPath: {{ . }}}
            {{- end }}
            {{- with .configPath }}
            - {name: config, mountPath: {{ . }}, readOnly: true}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 1Gi}
        {{- if .runPath }}
        - name: run
          emptyDir: {medium: Memory, sizeLimit: 16Mi}
        {{- end }}
        {{- if .configPath }}
        - name: config
          configMap: {name: {{ $fullname }}}
        {{- end }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .values.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ .values.storage }}
{{- if $root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $fullname }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "sangha.labels" $root | trim | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "sangha.componentLabels" $component | trim | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports:
        - {protocol: TCP, port: server}
      from:
        - podSelector:
            matchLabels:
              {{- include "sangha.selectorLabels" $root | trim | nindent 14 }}
        {{- if $root.Values.autoscaling.enabled }}
        {{- toYaml $root.Values.networkPolicy.kedaFrom | nindent 8 }}
        {{- end }}
  egress:
    - ports:
        - {protocol: UDP, port: 53}
        - {protocol: TCP, port: 53}
{{- end }}
{{- end }}
