"""How attempts end, besides the `outcome` of each kind of UpstreamError."""

from typing import Final

OK: Final = "ok"
CANCELLED: Final = "cancelled"  # the caller left, or the gateway is going away
