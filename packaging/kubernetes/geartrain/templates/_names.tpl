{{- define "geartrain.name" -}}
{{- if contains "geartrain" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-geartrain" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "geartrain.labels" -}}
app.kubernetes.io/name: geartrain
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
