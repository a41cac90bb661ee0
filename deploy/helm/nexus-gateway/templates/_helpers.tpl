{{- define "nexus-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "nexus-gateway.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "nexus-gateway.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "nexus-gateway.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "nexus-gateway.selector" -}}
app.kubernetes.io/name: {{ include "nexus-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nexus-gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "nexus-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "nexus-gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "nexus-gateway.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "nexus-gateway.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Without keys and tokens the gateway would accept dev-key, which everybody knows. */}}
{{- define "nexus-gateway.requireCredentials" -}}
{{- $auth := .Values.auth }}
{{- $known := list "dev-key" (printf "sha256:%s" (sha256sum "dev-key")) }}
{{- range $auth.apiKeys }}
{{- if has (trim (lower .)) $known }}
{{- fail "auth.apiKeys: everybody knows dev-key. Make a key of your own." }}
{{- end }}
{{- if contains "," . }}
{{- fail "auth.apiKeys: a key has no comma in it. Give one item for each key." }}
{{- end }}
{{- end }}
{{- $existing := $auth.existingSecret }}
{{- if and (or $existing.apiKeysKey $existing.jwtSecretKey) (not $existing.name) }}
{{- fail "auth.existingSecret: its name is missing." }}
{{- end }}
{{- if and $existing.name (not (or $existing.apiKeysKey $existing.jwtSecretKey)) }}
{{- fail "auth.existingSecret: say which of its keys holds what, by apiKeysKey or jwtSecretKey." }}
{{- end }}
{{- if and $auth.apiKeys $existing.apiKeysKey }}
{{- fail "auth: give either apiKeys or existingSecret.apiKeysKey." }}
{{- end }}
{{- if and $auth.jwt.jwksUrl (not (and $auth.jwt.issuer $auth.jwt.audience)) }}
{{- fail "auth.jwt: published keys need an issuer and an audience." }}
{{- end }}
{{- $secret := hasKey .Values.secrets.values "GATEWAY_JWT_SECRET" }}
{{- if not (or $auth.apiKeys $existing.name $auth.jwt.jwksUrl $auth.jwt.publicKey $secret) }}
{{- fail "auth: say who may call, by apiKeys, existingSecret, jwt.jwksUrl or jwt.publicKey." }}
{{- end }}
{{- end }}

{{/* The configuration file lies in a ConfigMap, which many may read; and what the chart sets would win over it. */}}
{{- define "nexus-gateway.checkConfig" -}}
{{- range list "api_keys" "api_key_policies" "redis_url" "jwt_secret" "jwt_public_key" "pii_hash_salt" "audit_signing_key" "metrics_key" "admin_key" }}
{{- if hasKey $.Values.config . }}
{{- fail (printf "config.%s: not in a ConfigMap. Use auth, or secrets with GATEWAY_%s." . (upper .)) }}
{{- end }}
{{- end }}
{{- range list "ops_listen" "drain_delay_seconds" "drain_seconds" "jwt_jwks_url" "jwt_issuer" "jwt_audience" "jwt_algorithms" }}
{{- if hasKey $.Values.config . }}
{{- fail (printf "config.%s: the chart has a value of its own for it (opsPort, drain, auth.jwt)." .) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the chart's own Secret holds: variable and value. */}}
{{- define "nexus-gateway.secretValues" -}}
{{- $values := dict }}
{{- range $name, $value := .Values.secrets.values }}
{{- $_ := set $values $name $value }}
{{- end }}
{{- with .Values.auth.apiKeys }}
{{- $_ := set $values "GATEWAY_API_KEYS" (join "," .) }}
{{- end }}
{{- toYaml $values }}
{{- end }}

{{- define "nexus-gateway.hasSecret" -}}
{{- if or .Values.secrets.values .Values.auth.apiKeys }}true{{ end }}
{{- end }}

{{- define "nexus-gateway.hasConfig" -}}
{{- if .Values.config }}true{{ end }}
{{- end }}
