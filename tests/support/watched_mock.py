"""A mock upstream that can be waited for."""

import asyncio

from nexus_gateway.config.runtime import MockSpec, UpstreamSpec
from nexus_gateway.upstreams.mock import MockUpstream


class WatchedMock(MockUpstream):
    """Says when the number of requests under way has changed."""

    def __init__(self, behaviour: MockSpec, *, name: str = "mock") -> None:
        self._active = 0
        self._changed = asyncio.Event()
        super().__init__(UpstreamSpec(name, "mock", "local", 0, "/v1", mock=behaviour))

    @property
    def active(self) -> int:
        return self._active

    @active.setter
    def active(self, count: int) -> None:
        self._active = count
        self._changed.set()

    async def reach(self, count: int, *, within_s: float = 2.0) -> None:
        """Return once so many requests are under way. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while self._active != count:
                self._changed.clear()
                await self._changed.wait()
