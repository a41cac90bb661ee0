"""What spans and their attributes are called.

For:      one place to change when the conventions do: those about generative AI are still in development.
Touches:  nothing. Semantic conventions 1.44, and of the GenAI ones those that both its packages and
          open-telemetry/semantic-conventions-genai have in November 2026.
"""

from typing import Final

from nexus_gateway.core.model import Operation

# ---- stable
ERROR_TYPE: Final = "error.type"
METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
STATUS: Final = "http.response.status_code"
SCHEME: Final = "url.scheme"
PATH: Final = "url.path"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

# ---- in development
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_MODEL: Final = "gen_ai.request.model"
GEN_AI_STREAM: Final = "gen_ai.request.stream"
GEN_AI_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"  # seconds
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

OPERATIONS: Final = {
    Operation.CHAT: "chat",
    Operation.COMPLETIONS: "text_completion",
    Operation.EMBEDDINGS: "embeddings",
}
PROVIDER: Final = "openai"  # whose API upstreams speak, which is what the convention asks for; not who runs them

# ---- our own
REQUEST_ID: Final = "nexus.request_id"
KEY_ID: Final = "nexus.key_id"
ROUTE: Final = "nexus.route"
UPSTREAM: Final = "nexus.upstream"
ATTEMPTS: Final = "nexus.attempts"
ATTEMPT: Final = "nexus.attempt"  # 1 for the first
SHADOW: Final = "nexus.shadow"
FIRST_BYTE: Final = "nexus.time_to_first_byte"  # seconds
EVENTS: Final = "nexus.events"
INPUT_TOKENS: Final = "nexus.input_tokens"  # not gen_ai.usage.*: whoever adds those up counts each token once
OUTPUT_TOKENS: Final = "nexus.output_tokens"
ESTIMATED: Final = "nexus.tokens_estimated"
CLIENT_GONE: Final = "client_gone"  # as an `error.type`
