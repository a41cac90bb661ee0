"""The connections to one upstream that are open: which are free, and how a new one is made.

For:      handing out a connection without waiting where one is free, and opening one where none is.
Touches:  the resolver (off the loop) and sockets.
"""

import asyncio
import socket
import ssl
from typing import Final, cast

from nexus_gateway.config.runtime import ProxySpec
from nexus_gateway.core.errors import UpstreamAuthError, UpstreamConnectError, UpstreamDnsError, UpstreamTimeout
from nexus_gateway.core.outbox import Outbox

from .http1 import CLOCK_SLACK_S, Connection
from .tunnel import ProxyRefused, connect_request, open_tunnel

IDLE_S: Final = 30.0
"""How long a free connection is kept. Servers that close sooner (uvicorn after 5 s) are noticed when they do; load
balancers and NATs, which forget a quiet connection after 60 s or more and tell nobody, should never get the chance."""

SHUN_S: Final = 30.0  # an address that failed is tried last for so long
PROXY_AUTHENTICATION_REQUIRED: Final = 407
TLS_SHUTDOWN_S: Final = 1.0  # only for a connection given up while it was made; all others are aborted


class ConnectionPool:
    """Keep-alive connections to one origin, the one used last first. Their number is the callers' concern.

    With a proxy they lead to that, and with TLS through it. Without TLS it reads the requests, which must say where to.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        connect_timeout_s: float,
        proxy: ProxySpec | None = None,
        answers: Outbox | None = None,
    ) -> None:
        self.name = name
        self._host, self._port = (host, port) if proxy is None else (proxy.host, proxy.port)
        self._server_name = host
        self._connect_request = b"" if proxy is None or tls is None else connect_request(host, port, proxy)
        self._whose = "host" if proxy is None else "proxy"
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._loop = asyncio.get_running_loop()
        self.requests = Outbox(self._loop.call_soon)
        self.answers = answers or Outbox(self._loop.call_soon)
        self._open: set[Connection] = set()
        self._free: dict[Connection, float] = {}  # free since when; the newest is last
        self._sweeper: asyncio.TimerHandle | None = None
        self._shunned_until_s: dict[str, float] = {}
        self._is_closed = False

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def free_connections(self) -> int:
        return len(self._free)

    def take(self) -> Connection | None:
        """A free connection, which is the caller's until it is welcomed back."""
        return self._free.popitem()[0] if self._free else None

    async def connect(self, deadline_s: float) -> Connection:
        """A fresh connection. Raises UpstreamDnsError, UpstreamConnectError, and UpstreamTimeout at `deadline_s`."""
        until_s = min(deadline_s, self._loop.time() + self._connect_timeout_s)
        addresses: list[str] | None = None
        try:
            async with asyncio.timeout_at(until_s + CLOCK_SLACK_S):
                addresses = await self._resolve()
                connection = await self._connect_to_any(addresses, until_s)
        except TimeoutError as exc:
            if until_s == deadline_s:
                raise UpstreamTimeout(f"Upstream '{self.name}' was not reached in time.", upstream=self.name) from exc
            raise self._unresolved() if addresses is None else self._unreachable() from exc
        if self._is_closed or connection.is_closed:
            connection.close()
            raise self._unreachable()
        self._open.add(connection)
        return connection

    def welcome(self, connection: Connection) -> None:
        if self._is_closed:
            connection.close()
            return
        self._free[connection] = self._loop.time()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(IDLE_S, self._sweep)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._free.pop(connection, None)

    def aclose(self) -> None:
        """Close every connection; whoever waits for an answer is told."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.close()

    async def _resolve(self) -> list[str]:
        try:
            found = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:  # UnicodeError: a label that IDNA cannot hold
            raise self._unresolved() from exc
        return list(dict.fromkeys(cast(str, address[0]) for *_, address in found))

    async def _connect_to_any(self, addresses: list[str], until_s: float) -> Connection:
        """One address after the other, those that failed lately last. A silent one gets its share of the time only."""
        now_s = self._loop.time()
        self._shunned_until_s = {a: s for a, s in self._shunned_until_s.items() if s > now_s}
        addresses.sort(key=self._shunned_until_s.__contains__)
        failure: Exception | None = None
        for left in range(len(addresses), 0, -1):
            address = addresses[-left]
            share_s = (until_s - self._loop.time()) / left if left > 1 else None
            try:
                async with asyncio.timeout(share_s):
                    return await self._connect_to(address)
            except (OSError, ValueError) as exc:  # TLS errors are both, and a TimeoutError is an OSError
                self._shunned_until_s[address] = self._loop.time() + SHUN_S
                failure = exc
        raise self._unreachable() from failure

    async def _connect_to(self, address: str) -> Connection:
        def make() -> Connection:
            return Connection(self, self._loop)

        if self._tls is None:
            _, connection = await self._loop.create_connection(make, address, self._port)
        elif self._connect_request:
            return await self._connect_through(address, self._tls, make())
        else:
            _, connection = await self._loop.create_connection(
                make,
                address,
                self._port,
                ssl=self._tls,
                server_hostname=self._server_name,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )
        return connection

    async def _connect_through(self, address: str, tls: ssl.SSLContext, connection: Connection) -> Connection:
        """TLS with the server itself, so that the proxy reads nothing."""
        try:
            tunnel = await open_tunnel(self._loop, address, self._port, self._connect_request)
        except ProxyRefused as exc:
            raise self._refused(exc.status) from exc
        connection.connection_made(tunnel)  # it may have to close before it is secure
        try:
            secure = await self._loop.start_tls(
                tunnel, connection, tls, server_hostname=self._server_name, ssl_shutdown_timeout=TLS_SHUTDOWN_S
            )
        except BaseException:
            tunnel.abort()
            raise
        if secure is None:  # it was lost as it became secure
            raise ConnectionResetError
        connection.connection_made(secure)
        return connection

    def _sweep(self) -> None:
        now_s = self._loop.time()
        expired = [connection for connection, since_s in self._free.items() if now_s - since_s >= IDLE_S]
        for connection in expired:
            connection.close()
        oldest_s = next(iter(self._free.values()), None)
        self._sweeper = None if oldest_s is None else self._loop.call_at(oldest_s + IDLE_S, self._sweep)

    def _unresolved(self) -> UpstreamDnsError:
        return UpstreamDnsError(f"The {self._whose} of upstream '{self.name}' was not found.", upstream=self.name)

    def _refused(self, status: int | None) -> UpstreamAuthError | UpstreamConnectError:
        if status == PROXY_AUTHENTICATION_REQUIRED:
            what = f"The proxy of upstream '{self.name}' refused the gateway's credential."
            return UpstreamAuthError(what, upstream=self.name)
        said = "something that is not HTTP" if status is None else f"HTTP {status}"
        return UpstreamConnectError(f"The proxy of upstream '{self.name}' answered {said}.", upstream=self.name)

    def _unreachable(self) -> UpstreamConnectError:
        return UpstreamConnectError(f"Upstream '{self.name}' could not be reached.", upstream=self.name)
