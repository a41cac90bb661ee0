"""A server whose clock the test sets: the scripts as they are, but for the one call that reads the time."""

from typing import Final

import redis

from nexus_gateway.stores.redis_commands import Scripts
from nexus_gateway.stores.redis_link import Script

_READS_TIME: Final = b"redis.call('TIME')"


class ServerClock:
    """In milliseconds, as two elements of a list: seconds and microseconds, as TIME tells them."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self.key = f"{prefix}:clock"

    def set(self, now_ms: int) -> None:
        seconds, ms = divmod(now_ms, 1000)
        pipeline = self._client.pipeline()
        pipeline.delete(self.key)
        pipeline.rpush(self.key, seconds, ms * 1000)
        pipeline.execute()


def clocked(clock: ServerClock) -> Scripts:
    reads_list = f"redis.call('LRANGE', '{clock.key}', 0, 1)".encode()

    def replaced(script: Script) -> Script:
        assert script.source.count(_READS_TIME) == 1
        return Script(script.source.replace(_READS_TIME, reads_list).decode(), script.returns)

    scripts = Scripts.load()
    return Scripts(*map(replaced, scripts.all()))
