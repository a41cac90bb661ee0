"""The command line: `nexus-gateway …`.

For:      operators. Answers go to stdout, complaints to stderr; 2 is the exit status of a refused configuration.
Touches:  the process's environment, which it hands on.
"""

import os
import sys

import click

from nexus_gateway import __version__
from nexus_gateway.config.effective import describe
from nexus_gateway.config.settings import ConfigurationProblems, load
from nexus_gateway.serve import serve

REFUSED = 2


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


main.add_command(serve)
