"""`nexus-gateway audit …`: what auditors do with the file.

For:      verifying a chain, reading records, and the public key that goes with the signing key.
Touches:  the files named on the command line. Answers go to stdout, progress and complaints to stderr.
"""

import math
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from nexus_gateway.config.settings import ConfigurationProblems, load
from nexus_gateway.core.audit import read_link
from nexus_gateway.core.audit_verify import Anchor, Outcome, Verification, read_anchor
from nexus_gateway.observe.audit_keys import checker, public_pem

NOT_PROVED: Final = 1
UNUSABLE: Final = 2
TOLD_BYTES: Final = 16 << 20  # progress is told each time that so much was read

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def audit() -> None:
    """Verify and read the audit log."""


@audit.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--anchor", "anchors", multiple=True, type=_FILE, help="A checkpoint kept elsewhere, or a log with some.")
@click.option("--public-key", type=_FILE, help="PEM: checkpoints must be signed by its owner.")
def verify(files: tuple[Path, ...], anchors: tuple[Path, ...], public_key: Path | None) -> None:
    """Check the chain of FILES, rotated ones included, in any order.

    Exit status 0: unbroken. 1: the first record that is altered, removed or out of order is named. 2: no such files.
    """
    check = None
    if public_key is not None:
        try:
            check = checker(public_key.read_bytes())
        except ValueError:
            raise click.BadParameter("not an Ed25519 public key in PEM", param_hint="--public-key") from None
    verification = Verification(read_anchors(anchors), check)
    read_files(in_order(files), verification)
    outcome = verification.finish()
    click.echo(describe(outcome))
    if outcome.first_seq is None and outcome.finding is None:
        sys.exit(UNUSABLE)
    sys.exit(0 if outcome.finding is None else NOT_PROVED)


def read_anchors(paths: tuple[Path, ...]) -> list[Anchor]:
    found: list[Anchor] = []
    for path in paths:
        with path.open("rb") as file:
            present = [anchor for line in file if (anchor := read_anchor(line)) is not None]
        if not present:
            raise click.BadParameter(f"{path} holds no checkpoint that is whole", param_hint="--anchor")
        found += present
    return found


def in_order(files: tuple[Path, ...]) -> list[Path]:
    """By the number of each file's first record that can be read; files without any come last."""
    return sorted(dict.fromkeys(files), key=_first_seq)


def _first_seq(path: Path) -> float:
    with path.open("rb") as file:
        links = (read_link(line.rstrip(b"\n")) for line in islice(file, 100))
        return next((link.seq for link in links if link is not None), math.inf)


def read_files(files: list[Path], verification: Verification) -> None:
    total = sum(path.stat().st_size for path in files)
    done = told = 0
    for path in files:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                done += len(line)
                if done - told >= TOLD_BYTES:
                    told = done
                    click.echo(f"{done / total:4.0%} of {total / 1e6:.0f} MB", err=True)
                if line.endswith(b"\n"):
                    verification.feed(line[:-1], f"{path}:{number}")
                elif path == files[-1]:
                    verification.feed_tail(line, f"{path}:{number}")
                else:
                    verification.feed(line, f"{path}:{number}")  # only the last file may end in the middle
                if verification.is_over:
                    return


def describe(outcome: Outcome) -> str:
    lines = []
    if outcome.finding is not None:
        lines.append(f"BROKEN at {outcome.finding.place}: {outcome.finding.says} ({outcome.finding.kind})")
        if outcome.last_seq is not None:
            lines.append(f"Unbroken before that: records {outcome.first_seq} to {outcome.last_seq}.")
    elif outcome.first_seq is None:
        lines.append("There is no audit record in these files.")
    else:
        lines.append(f"Unbroken: records {outcome.first_seq} to {outcome.last_seq} of chain {outcome.chain}.")
    if outcome.tail is not None:
        lines.append(f"Incomplete tail at {outcome.tail}, which are no record.")
    if outcome.finding is None and outcome.first_seq is not None:
        lines += [f"Not proved: {doubt}." for doubt in outcome.unproved]
    return "\n".join(lines)


@audit.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--key", help="Only requests of this key id.")
@click.option("--model", help="Only requests for this model.")
@click.option("--status", type=int, help="Only requests that ended with this status.")
@click.option("--since", type=click.DateTime(), help="Only requests from this moment on, in UTC.")
@click.option("--until", type=click.DateTime(), help="Only requests before this moment, in UTC.")
def show(
    files: tuple[Path, ...], key: str | None, model: str | None, status: int | None,
    since: datetime | None, until: datetime | None,
) -> None:  # fmt: skip
    """Print the records of requests that fit, as they stand in FILES, or in a log with audit lines."""
    wanted = {"key_id": key, "model": model, "status": status}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    begin = "" if since is None else since.isoformat()
    end = "~" if until is None else until.isoformat()  # "~" sorts after every digit
    for line, record in _records(in_order(files)):
        fits = all(record.get(name) == value for name, value in wanted.items())
        if fits and begin <= str(record.get("timestamp", "")).removesuffix("Z") < end:
            click.echo(line)


def _records(files: list[Path]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for path in files:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if b'"event":"audit"' not in line:
                    continue
                try:
                    yield line.rstrip(b"\n"), decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    click.echo(f"{path}:{number} cannot be read", err=True)


@audit.command("public-key")
def public_key() -> None:
    """Print the public key of GATEWAY_AUDIT_SIGNING_KEY, for whoever verifies."""
    try:
        spec = load(os.environ).runtime.audit
    except ConfigurationProblems as refusal:
        click.echo(str(refusal), err=True)
        sys.exit(UNUSABLE)
    if spec is None or spec.signing_seed is None:
        click.echo("GATEWAY_AUDIT_SIGNING_KEY is not set.", err=True)
        sys.exit(UNUSABLE)
    click.echo(public_pem(spec.signing_seed), nl=False)
