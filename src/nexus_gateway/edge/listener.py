"""Listening sockets that nothing but their owner closes.

For:      the server. Out of descriptors, uvloop's own listener accepts callers only to drop them, and spins once its
          reserve is gone; closed, it drops who waits in the queue. This one leaves callers in the queue and comes
          back to them.
Touches:  listening sockets, and the loop.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

BACKLOG: Final = 2048
ACCEPTED_AT_ONCE: Final = 64  # then the connections already open get their turn
RETRY_S: Final = 0.1

log = logging.getLogger(__name__)


def bind(host: str, port: int) -> list[socket.socket]:
    """A listening socket for every address of `host`. Raises OSError if there is none, or another process has it."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:  # "127.0.0..1"
        raise OSError(errno.EINVAL, "not the name of a host") from exc
    listening: list[socket.socket] = []
    missing: OSError | None = None
    with ExitStack() as undo:
        for family, _, _, _, address in addresses:
            try:
                listening.append(undo.enter_context(socket.create_server(address, family=family, backlog=BACKLOG)))
            except OSError as exc:
                if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = exc  # a name may stand for an address that this machine has not got
        if missing is not None and not listening:
            raise missing
        undo.pop_all()
    return listening


class Listener:
    """One listening socket. Connections go to the protocols that `make_protocol` makes."""

    def __init__(self, listening: socket.socket, make_protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self._socket = listening
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._listen()

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    async def aclose(self) -> None:
        """Take whoever waits in the queue, then close."""
        self._accept(BACKLOG)
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._opening:
            await asyncio.wait(self._opening)

    def _listen(self) -> None:
        self._loop.add_reader(self._socket, self._accept, ACCEPTED_AT_ONCE)

    def _accept(self, most: int) -> None:
        for _ in range(most):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionAbortedError:
                continue
            except OSError as exc:
                self._rest(exc)
                return
            task = self._loop.create_task(self._open(connection), name="open connection")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        self._retry = None

    def _rest(self, failure: OSError) -> None:
        """Out of descriptors, as a rule: the socket stays readable, so that looking at it at once would only spin."""
        if self._retry is None:
            log.warning("accept_failed", extra={"error": str(failure)})
        self._loop.remove_reader(self._socket)
        self._retry = self._loop.call_later(RETRY_S, self._listen)

    async def _open(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError as exc:  # gone before we looked
            log.debug("connection_lost_early", extra={"error": str(exc)})
            connection.close()
