#!/usr/bin/env bash
# An agent's turns against a gateway: plain, streamed, tool call, wrong key, unknown model.
# Uses $NEXUS_URL with $NEXUS_API_KEY (default http://localhost:8000 and dev-key) if one answers there, else starts one.
# Prints each step; ends with a non-zero status at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

url=${NEXUS_URL:-http://localhost:8000}
key=${NEXUS_API_KEY:-dev-key}
model=${NEXUS_MODEL:-mock}
folder=$(mktemp -d)
gateway_pid=""

finish() {
    if [ -n "$gateway_pid" ]; then
        kill -TERM "$gateway_pid" 2>/dev/null || true
        wait "$gateway_pid" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT

start_gateway() {
    local command=nexus-gateway port
    [ -x .venv/bin/nexus-gateway ] && command=.venv/bin/nexus-gateway
    if ! command -v "$command" >/dev/null; then
        echo "No gateway answers at $url and none is installed here: run 'make run' first." >&2
        exit 1
    fi
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=http://127.0.0.1:$port
    "$command" serve --port "$port" >"$folder/gateway.log" 2>&1 &
    gateway_pid=$!
    for _ in $(seq 100); do
        curl -sf -o /dev/null "$url/readyz" && return 0
        kill -0 "$gateway_pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "The gateway did not start:" >&2
    cat "$folder/gateway.log" >&2
    exit 1
}

# ask KEY BODY: leaves the status in $status, the answer in $folder/answer
ask() {
    status=$(curl -sSN -o "$folder/answer" -w '%{http_code}' --max-time 60 "$url/v1/chat/completions" \
        -H "X-API-Key: $1" -H "Content-Type: application/json" -d "$2") || true
}

# expect STEP STATUS TEXT...: the status is this, and each text stands in the answer
expect() {
    local step=$1 wanted=$2 text
    shift 2
    if [ "$status" != "$wanted" ]; then
        echo "FAILED $step: expected status $wanted, got $status:" >&2
        head -c 2000 "$folder/answer" >&2
        exit 1
    fi
    for text in "$@"; do
        if ! grep -qF -- "$text" "$folder/answer"; then
            echo "FAILED $step: '$text' is not in the answer:" >&2
            head -c 2000 "$folder/answer" >&2
            exit 1
        fi
    done
    echo "ok     $step ($status)"
}

if curl -sf -o /dev/null --max-time 2 "$url/healthz"; then
    echo "using the gateway at $url"
else
    start_gateway
    echo "started a gateway at $url"
fi

user='{"role":"user","content":"What is the weather in Seoul?"}'
tool='{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}'
call='{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Seoul\"}"}}]}'
result='{"role":"tool","tool_call_id":"call_1","content":"{\"celsius\":21}"}'

ask "$key" "{\"model\":\"$model\",\"messages\":[$user]}"
expect "plain answer" 200 '"chat.completion"' '"finish_reason":"stop"' '"usage"'

ask "$key" "{\"model\":\"$model\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"messages\":[$user]}"
expect "streamed answer" 200 'chat.completion.chunk' '"finish_reason":"stop"' '"usage"' 'data: [DONE]'

ask "$key" "{\"model\":\"$model\",\"tools\":[$tool],\"messages\":[$user]}"
expect "tool call" 200 '"tool_calls"' 'get_weather' '"finish_reason":"tool_calls"'

ask "$key" "{\"model\":\"$model\",\"tools\":[$tool],\"messages\":[$user,$call,$result]}"
expect "answer to the tool's result" 200 '"finish_reason":"stop"'

ask "not-$key" "{\"model\":\"$model\",\"messages\":[$user]}"
expect "wrong key" 401 '"invalid_api_key"'

ask "$key" "{\"model\":\"no-such-model\",\"messages\":[$user]}"
expect "unknown model" 404 '"model_not_found"'

echo "all steps passed"
