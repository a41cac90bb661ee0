"""One connection to Redis that many callers share: what they ask in one turn of the loop travels as one pipeline.

For:      a round trip's cost divided by all who wait for it, and one place that knows whether the server answers.
Touches:  the network; the scripts beside this file. Redis' own words go no further: whoever waits is told "no answer".
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Final, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

GRACE_S: Final = 0.005  # the answer may lie in the socket when a busy loop comes to the timer: one more look

Reply = object

_encode: Final = cast(Callable[[tuple[bytes, ...]], bytes], hiredis.pack_command)  # its stub allows one argument only


class Script:
    """A script as Redis knows it: by the digest of its source. It returns a list of such types, or a number."""

    __slots__ = ("digest", "returns", "source")

    def __init__(self, source: str, returns: tuple[type, ...] | None) -> None:
        self.returns = returns
        self.source = source.encode()
        self.digest = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()

    @classmethod
    def load(cls, *names: str, returns: tuple[type, ...] | None = None) -> "Script":
        """The named files of this package, one after the other."""
        files = resources.files(__package__)
        source = "\n".join(files.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in names)
        return cls(source, returns)

    def check(self, reply: Reply) -> None:
        """Raise what the reply says, or what is wrong with it: whoever waits is handed the right shape or nothing."""
        if isinstance(reply, ResponseError):
            raise reply
        if self.returns is None:
            fits = isinstance(reply, int)
        else:
            fits = isinstance(reply, list) and tuple(map(type, reply)) == self.returns
        if not fits:
            raise InvalidResponse("a reply of another shape")


class Command:
    """A script to be run on two keys. `done` gets its reply, or None when there was no answer; called exactly once."""

    __slots__ = ("done", "keys", "payload", "script")

    def __init__(
        self, script: Script, keys: tuple[bytes, bytes], payload: bytes, done: Callable[[Reply], None]
    ) -> None:
        self.script = script
        self.keys = keys
        self.payload = payload
        self.done = done

    def pack(self) -> bytes:
        return _encode((b"EVALSHA", self.script.digest, b"2", *self.keys, self.payload))


class RedisLink:
    """Opened and used by one task, one pipeline at a time, so that commands take effect in the order of asking."""

    def __init__(self, url: str, scripts: Sequence[Script], *, timeout_s: float, connect_timeout_s: float) -> None:
        self._pool = ConnectionPool.from_url(
            url,
            socket_timeout=None,  # one bound for a whole pipeline instead of one for each reply
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
        self._scripts = scripts
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._connection: AbstractConnection | None = None

    async def open(self) -> None:
        """Connect anew and bring the scripts. Raises RedisError, OSError or TimeoutError."""
        await self.aclose()
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._connection = connection
        async with asyncio.timeout(self._connect_timeout_s):
            await connection.connect()  # type: ignore[no-untyped-call]
        await self._load_scripts(time.monotonic() + self._timeout_s)

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def exchange(self, commands: Sequence[Command], deadline_s: float) -> list[Reply]:
        """The reply to each command. Raises RedisError, OSError or TimeoutError: then the link is of no more use."""
        replies = await self._send([command.pack() for command in commands], deadline_s)
        missing = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:  # a restart or SCRIPT FLUSH; nothing of them was done
            await self._load_scripts(deadline_s)
            again = await self._send([commands[at].pack() for at in missing], deadline_s)
            for at, reply in zip(missing, again, strict=True):
                replies[at] = reply
        for command, reply in zip(commands, replies, strict=True):
            command.script.check(reply)
        return replies

    async def _load_scripts(self, deadline_s: float) -> None:
        packed = [_encode((b"SCRIPT", b"LOAD", script.source)) for script in self._scripts]
        for reply in await self._send(packed, deadline_s):
            if isinstance(reply, ResponseError):
                raise reply

    async def _send(self, packed: list[bytes], deadline_s: float) -> list[Reply]:
        connection = self._connection
        if connection is None:
            raise ConnectionError("the link is closed")
        replies: list[Reply] = []
        sent = looked_again = False
        while True:
            try:
                async with asyncio.timeout_at(deadline_s):
                    if not sent:
                        await connection.send_packed_command([b"".join(packed)], check_health=False)
                        sent = True
                    await self._receive(connection, replies, len(packed))
                return replies
            except TimeoutError:
                if looked_again or not sent:
                    raise
                looked_again = True
                deadline_s = time.monotonic() + GRACE_S

    async def _receive(self, connection: AbstractConnection, replies: list[Reply], wanted: int) -> None:
        while len(replies) < wanted:
            try:
                replies.append(await connection.read_response(timeout=math.inf, disconnect_on_error=False))
            except ResponseError as refusal:
                replies.append(refusal)
