"""Turns samples into a table: medians over the rounds, and differences between samples of one round.

For:      people, and `docs/performance.md`.
Touches:  nothing.
"""

import platform
from collections.abc import Sequence
from statistics import median
from typing import Final

from .load import Sample

Rounds = Sequence[Sample]
Samples = dict[tuple[str, str], list[Sample]]  # by load and path, one of each round

HEAD: Final = """\
| load | path | per second | CPU µs each | p50 ms | p99 ms | first byte ms |
|---|---|--:|--:|--:|--:|--:|"""


def report(samples: Samples, connections: int, *, has_own_core: bool) -> str:
    rows = [_row(load, path, rounds) for (load, path), rounds in samples.items()]
    cores = "the gateway alone on one core" if has_own_core else "all processes on the same cores"
    return "\n".join(
        [
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {cores}.",
            f"plain and stream: {connections} at a time. alone: one at a time. Streams are counted in events.",
            "",
            HEAD,
            *rows,
            "",
            f"A lone request takes {_added(samples['alone', 'direct'], samples['alone', 'gateway'])} longer.",
        ]
    )


def _row(load: str, path: str, rounds: Rounds) -> str:
    costs = [cost for cost in map(_cpu_us, rounds) if cost is not None]
    cells = [
        load,
        path,
        f"{median(sample.units / sample.seconds for sample in rounds):,.0f}",
        f"{median(costs):.0f}" if costs and path == "gateway" else "",
        f"{median(sample.p50_ms for sample in rounds):.2f}",
        f"{median(sample.p99_ms for sample in rounds):.2f}",
        f"{median(sample.first_byte_ms for sample in rounds):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _cpu_us(sample: Sample) -> float | None:
    """CPU time per answer or event."""
    return None if sample.cpu_s is None or not sample.units else sample.cpu_s / sample.units * 1e6


def _added(direct: Rounds, gateway: Rounds) -> str:
    added_ms = [through.p50_ms - without.p50_ms for without, through in zip(direct, gateway, strict=True)]
    return f"{median(added_ms):.2f} ms ({min(added_ms):.2f} to {max(added_ms):.2f})"
