"""`nexus-gateway serve`: the production way to run the gateway.

For:      operators and containers.
Touches:  the process: its environment, its garbage collector, its limits, its standard streams, its exit status.

| exit status | after |
|--:|---|
| 0 | one SIGTERM or SIGINT: drained |
| 1 | a second one: ended at once; or it could not start |
| 2 | a configuration with problems, all of them named |
"""

import contextlib
import gc
import ipaddress
import logging
import os
import resource
import socket
import sys
from typing import Final

import click

from nexus_gateway.app import build
from nexus_gateway.config.runtime import Runtime
from nexus_gateway.config.schema import LOG_LEVELS
from nexus_gateway.config.settings import ConfigurationProblems, Loaded, load
from nexus_gateway.edge.listener import bind
from nexus_gateway.edge.server import GatewayServer

REFUSED: Final = 2
FAILED: Final = 1
GC_THRESHOLD: Final = 50_000  # allocations between young collections: requests leave little behind that is cyclic
CURL: Final = """curl {url}/v1/chat/completions -H "X-API-Key: dev-key" -H "Content-Type: application/json" \\
    -d '{{"model":"{model}","messages":[{{"role":"user","content":"hello"}}]}}'"""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address or name to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="Instead of GATEWAY_LOG_LEVEL.")
def serve(host: str, port: int, log_level: str | None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit with status 0. A second signal ends it at once."""
    loaded = _load({**os.environ, **({"GATEWAY_LOG_LEVEL": log_level} if log_level else {})})
    ops = loaded.runtime.ops_listen
    with contextlib.ExitStack() as undo:
        sockets = [undo.enter_context(opened) for opened in _bind(host, port, "--host or --port")]
        ops_sockets = [] if ops is None else _bind(*ops, "GATEWAY_OPS_LISTEN")
        undo.pop_all()
    port = sockets[0].getsockname()[1]
    raise_descriptor_limit()

    def when_ready() -> None:
        click.echo(introduce(loaded, host, port, ops_sockets[0].getsockname()[1] if ops_sockets else 0), err=True)
        spare_the_collector()

    server = GatewayServer(
        build(loaded.runtime, owns_process=True), sockets, loaded.runtime.timeouts, when_ready, ops_sockets
    )
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.setLevel(logging.WARNING)
    uvicorn_log.addFilter(lambda record: not server.force_exit)  # an application cut short would leave its stack
    server.run()
    sys.exit(0 if server.started and not server.force_exit else FAILED)


def introduce(loaded: Loaded, host: str, port: int, ops_port: int = 0) -> str:
    """What is served, where, and how to try it."""
    runtime = loaded.runtime
    url = f"http://{_address(host, port)}"
    lines = [
        f"Nexus Gateway serves {url}/v1",
        f"  models: {_models(runtime)}",
        f"  keys:   {'dev-key (the default: for trying out only)' if runtime.accepts_dev_key else 'as configured'}",
    ]
    if runtime.ops_listen is not None:
        lines.insert(1, f"  ops:    http://{_address(runtime.ops_listen[0], ops_port)} (/metrics, /admin, /docs)")
    if runtime.accepts_dev_key:
        lines += ["", CURL.format(url=url, model=runtime.upstreams[0].name), ""]
        if not _is_loopback(host):
            lines.append("warning: everybody who reaches this address may use dev-key; set GATEWAY_API_KEYS.")
    return "\n".join(lines)


def spare_the_collector() -> None:
    """What start-up made stays: no collection needs to look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)


def raise_descriptor_limit() -> None:
    """Every connection is a descriptor; the usual soft limit of 1024 is meant for programs that call select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS: "unlimited", and yet not allowed
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _load(environ: dict[str, str]) -> Loaded:
    try:
        loaded = load(environ)
    except ConfigurationProblems as refusal:
        click.echo(str(refusal), err=True)
        sys.exit(REFUSED)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    return loaded


def _bind(host: str, port: int, chosen_by: str) -> list[socket.socket]:
    """Ends the process when nobody can listen there."""
    try:
        return bind(host, port)
    except OSError as exc:
        why = os.strerror(exc.errno) if exc.errno is not None and exc.errno > 0 else exc.strerror
        click.echo(f"Cannot listen on {_address(host, port)}: {why}. Choose another {chosen_by}.", err=True)
        sys.exit(FAILED)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _models(runtime: Runtime) -> str:
    names = ", ".join(spec.name for spec in runtime.upstreams)
    return f"{names}; any other name goes to {runtime.default_upstream}" if runtime.default_upstream else names


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
