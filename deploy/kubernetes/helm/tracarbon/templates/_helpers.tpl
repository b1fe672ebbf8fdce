{{- define "tracarbon.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tracarbon.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "tracarbon.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tracarbon.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tracarbon.serviceAccountName" -}}
{{- default (.Values.serviceAccount.create | ternary (include "tracarbon.fullname" .) "default") .Values.serviceAccount.name }}
{{- end }}

{{- define "tracarbon.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tracarbon.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tracarbon.labels" -}}
{{ include "tracarbon.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "tracarbon.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Lines of a TOML table. A text, a number or a list of them looks the same in JSON; a map becomes an inline table. */}}
{{- define "tracarbon.tomlLines" -}}
{{- range $key, $value := . }}
{{- if kindIs "map" $value }}
{{- $pairs := list }}
{{- range $inner, $of := $value }}
{{- $pairs = append $pairs (printf "%s = %s" (toJson $inner) (toJson $of)) }}
{{- end }}
{{ toJson $key }} = { {{ join ", " $pairs }} }
{{- else }}
{{ toJson $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tracarbon.kubernetesOptions" -}}
optional = true
usage = {{ toJson .usage }}
idle = {{ toJson .idle }}
{{- with .namespaces }}
namespaces = {{ toJson . }}
{{- end }}
{{- with .podLabels }}
pod_labels = {{ toJson . }}
{{- end }}
{{- end }}

{{- define "tracarbon.pipeline" -}}
{{- if .Values.pipeline }}
{{- .Values.pipeline }}
{{- else -}}
interval = {{ toJson .Values.interval }}
{{- with .Values.tags }}

[tags]
{{- include "tracarbon.tomlLines" . }}
{{- end }}
{{- with .Values.location }}

[location]
{{- include "tracarbon.tomlLines" . }}
{{- end }}

[sensors.rapl]
optional = true
[sensors.estimate]
{{- if .Values.gpu.enabled }}
[sensors.gpu]
plugin = "nvidia"
optional = true
{{- end }}

[generators.energy]
[generators.carbon]

[generators.energy_kubernetes]
{{ include "tracarbon.kubernetesOptions" .Values.kubernetes }}

[generators.carbon_kubernetes]
{{ include "tracarbon.kubernetesOptions" .Values.kubernetes }}

[exporters.prometheus]
{{- end }}
{{- end }}

{{/* All that is seen of the host: name of the volume, and path. */}}
{{- define "tracarbon.hostPaths" -}}
sys-class: /sys/class
sys-devices: /sys/devices
cgroup: /sys/fs/cgroup
proc-stat: /proc/stat
proc-meminfo: /proc/meminfo
proc-cpuinfo: /proc/cpuinfo
{{- if .Values.gpu.enabled }}
pod-resources: /var/lib/kubelet/pod-resources
{{- end }}
{{- end }}
