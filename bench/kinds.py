"""`python -m bench.kinds`: what the gateway spends on a gRPC worker, against the same answers over HTTP.

For:      `make bench-kinds`. Two gateways alike but for their upstream, measured in turns. Compare figures of one run.
Touches:  stdout, and the processes that it starts.
"""

import argparse
import platform
import sys
from contextlib import ExitStack
from statistics import median
from typing import Final

from .__main__ import Contender, Load, measure
from .load import Sample
from .processes import Cores, start_gateway, start_module

GOAL: Final = 4.0  # times the CPU that a chunk costs over HTTP
UPSTREAMS: Final = {"http": "upstream", "grpc": "worker"}  # by the module that serves it


def main() -> int:
    options = parse()
    loads = [Load(name, stream=name == "stream", connections=options.connections) for name in ("plain", "stream")]
    cores = Cores.chosen()
    with ExitStack() as stack:
        load = start_module(stack, "load", cores.load)
        contenders = []
        for kind, module in UPSTREAMS.items():
            port = int(start_module(stack, module, cores.load).hear())
            contenders.append(Contender(kind, *start_gateway(stack, port, cores.gateway, kind=kind)))
        costs: dict[tuple[str, str], list[float]] = {(one.name, kind): [] for one in loads for kind in UPSTREAMS}
        wrong = 0
        for number in range(options.rounds):
            for one in loads:
                for contender in contenders:
                    sample = measure(load, one, contender, options.seconds)
                    wrong += sample.wrong
                    costs[one.name, contender.name].append(cost_us(sample))
            contenders.reverse()
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(report(costs, options.connections))
    if wrong:
        print(f"{wrong} answers were wrong: not 200, not whole, or somebody else's", file=sys.stderr)
    return 1 if wrong else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kinds", description="gRPC upstreams against HTTP ones.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one window")
    parser.add_argument("--connections", type=int, default=32)
    return parser.parse_args()


def cost_us(sample: Sample) -> float:
    """CPU time of the gateway per answer or event. Raises SystemExit where nobody tells, or nothing came."""
    if sample.cpu_s is None or not sample.units:
        raise SystemExit("no CPU time can be told here: it is read from /proc")
    return sample.cpu_s / sample.units * 1e6


def report(costs: dict[tuple[str, str], list[float]], connections: int) -> str:
    """Medians over the rounds; ratios are of samples of one round."""
    lines = [
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {connections} at a time.",
        "",
        "| CPU µs | http | grpc | grpc against http |",
        "|---|--:|--:|--:|",
    ]
    ratios: list[float] = []
    for name, unit in (("plain", "per answer"), ("stream", "per chunk")):
        http, grpc = costs[name, "http"], costs[name, "grpc"]
        ratios = [through / without for without, through in zip(http, grpc, strict=True)]
        spread = f"{median(ratios):.2f} × ({min(ratios):.2f} .. {max(ratios):.2f})"
        lines.append(f"| {unit} | {median(http):.0f} | {median(grpc):.0f} | {spread} |")
    lines += ["", f"The goal per chunk, {GOAL:g} ×, is {'met' if median(ratios) <= GOAL else 'missed'}."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
