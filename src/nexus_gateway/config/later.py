"""The one list of what is known already but does not work yet.

For:      refusing it with a clear word instead of as a typing error. When a capability arrives, its rows go.
"""

from typing import Final

SCHEMES: Final = ("litellm",)  # of GATEWAY_UPSTREAMS
