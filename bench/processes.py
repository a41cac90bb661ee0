"""Starting the three processes, and stopping them whatever happens.

For:      `bench.__main__`.
Touches:  processes, their cores, one probe of the gateway.
"""

import http.client
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .load import KEY

START_S: Final = 20.0  # for a gateway on a busy machine
POLL_S: Final = 0.05


@dataclass(frozen=True)
class Cores:
    """Which core each side keeps to; None where the system does not let us choose, or there is only one."""

    load: int | None
    gateway: int | None

    @classmethod
    def chosen(cls) -> "Cores":
        cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        return cls(cores[0], cores[-1]) if len(cores) > 1 else cls(None, None)


@dataclass(frozen=True)
class Talker:
    """A process that is spoken to in lines."""

    process: subprocess.Popen[str]

    def ask(self, line: str) -> str:
        """Raises SystemExit when the process ended instead of answering."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args!r} ended with status {self.process.wait()}")
        return line


def start_module(stack: ExitStack, name: str, core: int | None) -> Talker:
    """Run a module of this folder until `stack` closes."""
    command = [sys.executable, "-m", f"bench.{name}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(_stop, process)
    _keep_to(process.pid, core)
    return Talker(process)


def start_gateway(stack: ExitStack, upstream_port: int, core: int | None, *, kind: str = "http") -> tuple[int, int]:
    """Port and process id of a gateway with the default features on, in front of the mock model server."""
    port = _free_port()
    others = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    own = {
        "GATEWAY_UPSTREAMS": f"bench={kind}://127.0.0.1:{upstream_port}",
        "GATEWAY_API_KEYS": KEY,
        "GATEWAY_RATE_LIMIT_PER_MINUTE": "100000000",  # counted, and never reached
    }
    command = [str(Path(sys.executable).parent / "nexus-gateway"), "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=others | own)
    stack.callback(_stop, process)
    _keep_to(process.pid, core)
    give_up_s = time.monotonic() + START_S
    while not _is_ready(port):
        if process.poll() is not None or time.monotonic() > give_up_s:
            process.kill()
            raise SystemExit(f"the gateway did not start:\n{process.communicate()[1]}")
        time.sleep(POLL_S)
    return port, process.pid


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


def _keep_to(pid: int, core: int | None) -> None:
    if core is not None and sys.platform == "linux":
        os.sched_setaffinity(pid, {core})


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
