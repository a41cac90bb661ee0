"""LiteLLM, imported and told to mind nothing but the translation of requests and answers.

For:      one place that silences it: no price map from the network, no `.env`, no callbacks, no logs, no retries.
Touches:  the process's environment and the library's own settings, when this is imported: seconds, so off the loop.

Its HTTP requests go out through `litellm_wire`: the clients that it would make, keep and share are replaced by two that
hold nothing, so that every upstream has its own connections.
"""

import logging
import os
from typing import Any, Final

QUIET: Final = {
    "LITELLM_MODE": "PRODUCTION",  # else it reads any .env from here up, into our environment
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_DONT_SHOW_FEEDBACK_BOX": "True",
    "HF_HUB_OFFLINE": "1",  # no tokenizer is fetched for a count that nobody asked for
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
os.environ.update(QUIET)

import httpx  # noqa: E402
import litellm  # noqa: E402
from litellm._internal_context import is_internal_call  # noqa: E402
from litellm.caching.llm_caching_handler import LLMClientCache  # noqa: E402
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler  # noqa: E402

from .litellm_wire import Below  # noqa: E402

# These log whole requests: who sees our logs does not see prompts.
LOGGERS: Final = ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router", "openai", "httpx", "httpcore", "botocore", "urllib3")
CALLBACKS: Final = (
    *("callbacks", "input_callback", "success_callback", "failure_callback", "service_callback"),
    *("_async_input_callback", "_async_success_callback", "_async_failure_callback", "audit_log_callbacks"),
)


class Clients(LLMClientCache):
    """Where the library looks for a client before it makes one: providers that it asks by itself always find ours."""

    def __init__(self, handler: Any) -> None:
        super().__init__()
        self._handler = handler

    def get_cache(self, key: str, **options: Any) -> Any:
        return self._handler if key.startswith("async_httpx_client") else super().get_cache(key, **options)


def _silence() -> None:
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in CALLBACKS:
        setattr(litellm, name, [])
    litellm.suppress_debug_info = True  # else it prints on errors
    litellm.disable_token_counter = True  # what an answer without usage cost, the gateway estimates itself
    litellm.drop_params = False  # what a provider cannot do is refused, not forgotten
    litellm.modify_params = False
    litellm.num_retries = None
    litellm.model_fallbacks = None
    litellm.cache = None
    litellm.user_url_validation = True  # what callers have it fetch is nothing inside our own network
    litellm.user_url_allowed_hosts = []
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = 1 << 62  # an answer may repeat itself


def _lay_below() -> None:
    handler = AsyncHTTPHandler(transport=Below(), follow_redirects=False)
    litellm.module_level_aclient = handler
    litellm.in_memory_llm_clients_cache = Clients(handler)
    litellm.aclient_session = httpx.AsyncClient(transport=Below(), follow_redirects=False, trust_env=False)


_silence()
_lay_below()

__all__ = ["is_internal_call", "litellm"]
