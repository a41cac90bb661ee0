"""`python -m bench`: every round measures every load on both paths, each time beginning with the other.

For:      `make bench`. Machines are noisy: compare figures of one run only, and medians rather than single windows.
Touches:  stdout, and the processes that it starts.
"""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from .load import Order, Sample
from .processes import Cores, Talker, start_gateway, start_module
from .report import Samples, report

WARMUP_S: Final = 0.4


@dataclass(frozen=True)
class Load:
    """What is asked, by how many at a time, and for which share of a window."""

    name: str
    stream: bool
    connections: int
    share: float = 1.0


@dataclass(frozen=True)
class Contender:
    """A path to measure: where to ask, and whose CPU time counts."""

    name: str
    port: int
    pid: int


def main() -> int:
    options = parse()
    loads = [
        Load("plain", stream=False, connections=options.connections),
        Load("stream", stream=True, connections=options.connections),
        Load("alone", stream=False, connections=1, share=0.5),
    ]
    cores = Cores.chosen()
    with ExitStack() as stack:
        upstream = start_module(stack, "upstream", cores.load)
        port = int(upstream.hear())
        load = start_module(stack, "load", cores.load)
        contenders = [
            Contender("direct", port, upstream.process.pid),
            Contender("gateway", *start_gateway(stack, port, cores.gateway)),
        ]
        samples: Samples = {(one.name, contender.name): [] for one in loads for contender in contenders}
        for number in range(options.rounds):
            for one in loads:
                for contender in contenders:
                    samples[one.name, contender.name].append(measure(load, one, contender, options.seconds))
            contenders.reverse()
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    if options.json:
        rows = [{"load": load, "path": path, "rounds": rounds} for (load, path), rounds in samples.items()]
        options.json.write_bytes(msgspec.json.encode(rows))
    print(report(samples, options.connections, has_own_core=cores.gateway is not None))
    wrong = sum(sample.wrong for rounds in samples.values() for sample in rounds)
    if wrong:
        print(f"{wrong} answers were wrong: not 200, not whole, or somebody else's", file=sys.stderr)
    return 1 if wrong else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="The gateway, against the same calls without it."
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one window")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    return parser.parse_args()


def measure(talker: Talker, load: Load, contender: Contender, seconds: float) -> Sample:
    order = Order(
        port=contender.port,
        pid=contender.pid,
        stream=load.stream,
        connections=load.connections,
        seconds=seconds * load.share,
        warmup_s=WARMUP_S,
    )
    return msgspec.json.decode(talker.ask(msgspec.json.encode(order).decode()), type=Sample)


if __name__ == "__main__":
    sys.exit(main())
