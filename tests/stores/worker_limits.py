"""Who calls in the tests with several processes: one caller for each kind of limit, and one who has them all."""

from typing import Final

from nexus_gateway.core.model import Principal

CALLERS: Final = (
    Principal("requests", 300),
    Principal("tokens", None, 20_000),
    Principal("slots", None, None, 7),
    Principal("all", 400, 30_000, 9),
)
