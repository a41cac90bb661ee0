#!/usr/bin/env bash
# An agent's turns against a gateway: plain, streamed, a tool call, a wrong key, an unknown model.
#
# Uses the gateway at $NEXUS_URL with $NEXUS_API_KEY (default http://localhost:8000 and dev-key) if one answers there,
# else starts one on a free port and stops it at the end. NEXUS_MODEL names the model (default mock). Prints each step and
# ends with a non-zero status at the first that fails. Needs python3 alone: it speaks only HTTP.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
url=${NEXUS_URL:-http://localhost:8000}
key=${NEXUS_API_KEY:-dev-key}
log=""
gateway_pid=""

finish() {
    if [ -n "$gateway_pid" ]; then
        kill -TERM "$gateway_pid" 2>/dev/null || true
        wait "$gateway_pid" 2>/dev/null || true
    fi
    [ -z "$log" ] || rm -f "$log"
}
trap finish EXIT

turns() { python3 "$here/agent_client_smoke.py" "$@"; }

start_gateway() {
    local command="$here/../../.venv/bin/nexus-gateway"
    [ -x "$command" ] || command=nexus-gateway
    if ! command -v "$command" >/dev/null; then
        echo "no gateway answers at $url, and none is installed to start: run 'make run' or 'pip install -e .' first" >&2
        exit 1
    fi
    url=http://127.0.0.1:$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    log=$(mktemp)
    "$command" serve --port "${url##*:}" >"$log" 2>&1 &
    gateway_pid=$!
    for _ in $(seq 150); do
        turns --is-up "$url" && return 0
        kill -0 "$gateway_pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "the gateway did not start:" >&2
    cat "$log" >&2
    exit 1
}

if turns --is-up "$url"; then
    echo "using the gateway at $url"
else
    echo "no gateway answers at $url: starting one"
    start_gateway
fi
turns "$url" "$key" "${NEXUS_MODEL:-mock}"
