#!/usr/bin/env python3
"""An agent's turns through a gateway to a gRPC worker: plain, streamed, tools, a call given up, a worker that dies.

`python3 gateway/scripts/grpc_agent_smoke.py` starts the example worker and a gateway in front of it. With $NEXUS_URL
set it uses the gateway there, with $NEXUS_API_KEY and $NEXUS_MODEL (a `grpc://` upstream of its), and leaves out the
turns for which it would have to hold the worker. Prints each step; non-zero at the first that fails.

For:      operators. Runs itself again with the project's virtual environment when there is one.
Touches:  the network, and the processes that it starts.
"""

import http.client
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Final
from urllib.parse import urlsplit

ROOT: Final = Path(__file__).resolve().parents[2]
OWN_PYTHON: Final = ROOT / ".venv/bin/python"
WORKER: Final = ROOT / "examples/grpc_worker/worker.py"
PATIENCE_S: Final = 60.0  # a busy machine takes its time to start two processes
CANCELLED_WITHIN_S: Final = 2.0
KEY: Final = "dev-key"

sys.path.insert(0, str(ROOT))
from gateway.scripts.agent_client_smoke import Agent, Gateway, Unexpected, expect  # noqa: E402


class Process:
    """A child whose lines of output can be waited for."""

    def __init__(self, command: Sequence[str], environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def line(self, beginning: str, within_s: float) -> str:
        """The rest of the next line that begins so."""
        until_s, seen = time.monotonic() + within_s, ""
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left_s)
            except Empty:
                break
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()
            if not line:
                break
            seen += line
        raise Unexpected(f"expected a line that begins with '{beginning}'\n     got {seen or 'nothing'}")

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self.is_running():
            self._process.terminate()
            self._process.wait()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put("")  # nothing more will be said


@contextmanager
def child(command: Sequence[str], environ: dict[str, str] | None = None) -> Iterator[Process]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    process = Process(command, {**inherited, **(environ or {})})
    try:
        yield process
    finally:
        process.stop()


def start_gateway(stack: ExitStack, worker_port: str) -> Gateway:
    """In front of the worker: `worker` has nobody to stand in for it, `guarded` has the mock model."""
    environ = {
        "GATEWAY_UPSTREAMS": f"worker=grpc://127.0.0.1:{worker_port};guarded=grpc://127.0.0.1:{worker_port}"
        ";mock=mock://local",
        "GATEWAY_FALLBACKS": "guarded=mock",
        "GATEWAY_API_KEYS": KEY,
        "GATEWAY_RATE_LIMIT_PER_MINUTE": "unlimited",
    }
    command = [str(Path(sys.executable).with_name("nexus-gateway")), "serve", "--port", "0"]
    process = stack.enter_context(child(command, environ))
    return Gateway(process.line("Nexus Gateway serves ", PATIENCE_S).removesuffix("/v1"))


def cancelled(gateway: Gateway, worker: Process) -> str:
    """Leave in the middle of a stream: the worker must see it."""
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=PATIENCE_S)
    body = {"model": "worker", "stream": True, "messages": [{"role": "user", "content": "word " * 5000}]}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "X-Request-Id": "smoke-cancel"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    expect(response.status == 200, "status 200", response.status)
    expect(response.readline().startswith(b"data:"), "a first event", "something else")
    response.close()
    connection.close()
    return f"the worker saw it: {worker.line('cancelled ', CANCELLED_WITHIN_S)}"


def killed(gateway: Gateway, worker: Process) -> str:
    worker.kill()
    asked = {"messages": [{"role": "user", "content": "Are you there?"}]}
    document = gateway.chat(KEY, {"model": "guarded", **asked}).document(200)
    expect(bool(document["choices"]), "an answer of the fallback", document)
    answer = gateway.chat(KEY, {"model": "worker", **asked})
    expect(answer.status in (502, 503), "status 502 or 503", f"{answer.status}: {answer.text}")
    code = answer.document(answer.status)["error"]["code"]
    return f"the fallback answered; without one {answer.status} {code}"


def play(steps: Iterator[tuple[str, Callable[[], str]]]) -> None:
    for name, turn in steps:
        try:
            print(f"ok     {name}: {turn()}", flush=True)
        except Unexpected as exc:
            raise Unexpected(f"{name}: {exc}") from exc
        except (LookupError, TypeError, ValueError, AttributeError, OSError) as exc:  # an answer of quite another shape
            raise Unexpected(f"{name}: expected an answer as the API gives it\n     got {exc!r}") from exc


def run(url: str | None) -> None:
    if url is not None:
        gateway = Gateway(url)
        expect(gateway.is_up(), f"a gateway at {url}", "none")
        print(f"using the gateway at {url}")
        play(Agent(gateway, os.environ.get("NEXUS_API_KEY", KEY), os.environ.get("NEXUS_MODEL", "worker")).turns())
        return
    with ExitStack() as stack:
        command = [sys.executable, str(WORKER), "--port", "0", "--chunk-delay-ms", "2"]
        worker = stack.enter_context(child(command))
        port = worker.line("listening on ", PATIENCE_S)
        print(f"started a worker on port {port}, and a gateway")
        gateway = start_gateway(stack, port)
        play(Agent(gateway, KEY, "worker").turns())
        play(iter([("call given up", lambda: cancelled(gateway, worker))]))
        play(iter([("worker killed", lambda: killed(gateway, worker))]))


def main() -> int:
    missing = [name for name in ("nexus_gateway", "grpc") if importlib.util.find_spec(name) is None]
    if missing and OWN_PYTHON.exists() and Path(sys.prefix) != OWN_PYTHON.parents[1]:
        os.execv(OWN_PYTHON, [str(OWN_PYTHON), *sys.argv])
    if missing:
        print(f"{', '.join(missing)} cannot be imported: run `make run` or `pip install -e .` first", file=sys.stderr)
        return 1
    try:
        run(os.environ.get("NEXUS_URL"))
    except Unexpected as exc:
        print(f"FAILED {exc}", file=sys.stderr)
        return 1
    print("all steps passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
