"""The command line: `nexus-gateway …`.

For:      operators. Answers go to stdout, complaints to stderr; 2 is the exit status of a refused configuration.
Touches:  the process's environment, which it hands on.
"""

import os
import secrets
import sys

import click

from nexus_gateway import __version__
from nexus_gateway.app import masking_config
from nexus_gateway.audit_cli import audit
from nexus_gateway.config.effective import describe
from nexus_gateway.config.runtime import MaskingSpec
from nexus_gateway.config.settings import ConfigurationProblems, load
from nexus_gateway.core.explain import Explanation
from nexus_gateway.core.explain import explain as explain_route
from nexus_gateway.core.pii import Masker
from nexus_gateway.core.routing import compile_routes
from nexus_gateway.serve import serve

REFUSED = 2
NO_ROUTE = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nexus-gateway")
def main() -> None:
    """An OpenAI-compatible gateway for language model servers."""


@main.command()
@click.option("--strict", is_flag=True, help="Refuse what is otherwise a warning.")
def check(strict: bool) -> None:
    """Validate the configuration and print it, secrets hidden."""
    try:
        loaded = load(os.environ)
    except ConfigurationProblems as refusal:
        click.echo(str(refusal), err=True)
        sys.exit(REFUSED)
    for warning in loaded.warnings:
        click.echo(f"{'problem' if strict else 'warning'}: {warning}", err=True)
    if strict and loaded.warnings:
        sys.exit(REFUSED)
    click.echo(describe(loaded))


@main.command()
@click.option("--model", required=True, help="The name that a caller asks for.")
@click.option("--key-id", help="Explain for this caller, where the route is sticky.")
@click.option("--down", multiple=True, metavar="UPSTREAM", help="As if this one could not be asked. May be repeated.")
@click.option("--samples", default=1, type=click.IntRange(1, 1_000_000), help="Show shares over so many requests.")
def explain(model: str, key_id: str | None, down: tuple[str, ...], samples: int) -> None:
    """Print the plan of a request, or the shares over many, from the configuration alone."""
    try:
        runtime = load(os.environ).runtime
    except ConfigurationProblems as refusal:
        click.echo(str(refusal), err=True)
        sys.exit(REFUSED)
    names = [spec.name for spec in runtime.upstreams]
    if unknown := sorted(set(down) - set(names)):
        raise click.BadParameter(f"no upstream is called {unknown[0]}", param_hint="--down")
    route = compile_routes(names, runtime.policies, runtime.fallbacks, runtime.default_upstream).find(model)
    if route is None:
        click.echo(f"No route leads from {model!r} to an upstream.", err=True)
        sys.exit(NO_ROUTE)
    click.echo(describe_plans(explain_route(route, samples, sticky_key=key_id, down=down), route.name))


def describe_plans(explanation: Explanation, route: str) -> str:
    lines = [f"route {route}"]
    for plan, count in explanation.plans:
        order = " -> ".join(plan.upstreams) if plan.upstreams else "nobody: 503 circuit_open"
        lines.append(f"  {count:>8} x  {order}  (at most {plan.max_attempts} attempts)")
    lines += [f"  {share:8.2%}    {upstream}" for upstream, share in explanation.shares.items()]
    return "\n".join(lines)


main.add_command(audit)


@main.command()
def mask() -> None:
    """Read a text from stdin and show what would be masked in it, by which detector and why."""
    try:
        runtime = load(os.environ).runtime
    except ConfigurationProblems as refusal:
        click.echo(str(refusal), err=True)
        sys.exit(REFUSED)
    masker = Masker(masking_config(runtime.masking or MaskingSpec(), secrets.token_bytes(32)))
    text = sys.stdin.read()
    click.echo(masker.mask_text(text).text.rstrip("\n"))
    for finding in masker.explain(text):
        line = text.count("\n", 0, finding.start) + 1
        click.echo(f"line {line}: {finding.type} by {finding.detector}: {finding.why}", err=True)


main.add_command(serve)
