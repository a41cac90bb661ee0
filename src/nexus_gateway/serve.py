"""`nexus-gateway serve`: the production way to run the gateway.

For:      operators and containers.
Touches:  the process: its environment, its garbage collector, its standard streams, its exit status.
"""

import gc
import ipaddress
import logging
import os
import sys
from typing import Final

import click

from nexus_gateway.app import build
from nexus_gateway.config.runtime import Runtime
from nexus_gateway.config.settings import ConfigurationProblems, Loaded, load
from nexus_gateway.edge.server import GatewayServer

REFUSED: Final = 2
FORCED: Final = 1
GC_THRESHOLD: Final = 50_000  # allocations between young collections: requests leave little behind that is cyclic
CURL: Final = """curl {url}/v1/chat/completions -H "X-API-Key: dev-key" -H "Content-Type: application/json" \\
    -d '{{"model":"{model}","messages":[{{"role":"user","content":"hello"}}]}}'"""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Instead of GATEWAY_LOG_LEVEL."
)
def serve(host: str, port: int, log_level: str | None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit with status 0."""
    environ = {**os.environ, **({"GATEWAY_LOG_LEVEL": log_level} if log_level else {})}
    try:
        loaded = load(environ)
    except ConfigurationProblems as refusal:
        click.echo(str(refusal), err=True)
        sys.exit(REFUSED)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(introduce(loaded, host, port), err=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = GatewayServer(
        build(loaded.runtime), host=host, port=port, timeouts=loaded.runtime.timeouts, log_config=None
    )
    gc.collect()
    gc.freeze()  # what start-up made stays: no collection needs to look at it again
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    server.run()
    sys.exit(FORCED if server.force_exit else 0)


def introduce(loaded: Loaded, host: str, port: int) -> str:
    """What is served, where, and how to try it."""
    runtime = loaded.runtime
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    lines = [
        f"Nexus Gateway serves {url}/v1",
        f"  models: {_models(runtime)}",
        f"  keys:   {'dev-key (the default: for trying out only)' if runtime.accepts_dev_key else 'as configured'}",
    ]
    if runtime.accepts_dev_key:
        lines += ["", CURL.format(url=url, model=runtime.upstreams[0].name), ""]
        if not _is_loopback(host):
            lines.append("warning: everybody who reaches this address may use dev-key; set GATEWAY_API_KEYS.")
    return "\n".join(lines)


def _models(runtime: Runtime) -> str:
    names = ", ".join(spec.name for spec in runtime.upstreams)
    return f"{names}; any other name goes to {runtime.default_upstream}" if runtime.default_upstream else names


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
