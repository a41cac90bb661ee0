"""The metrics, the page that explains them, and how late the loop is."""

import re
from pathlib import Path

import pytest
from prometheus_client import Metric

from nexus_gateway.core.health import Fleet
from nexus_gateway.observe import families
from nexus_gateway.observe.lag import EVERY_S, LoopLag
from nexus_gateway.observe.metrics import Metrics
from tests.support.stepped_loop import SteppedLoop

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.+) \| (.+) \|")


class WholeAudit:
    refuses = failing = False
    dropped = 0


def everything() -> Metrics:
    """With all that a configuration may switch on."""
    metrics = Metrics(lambda: 0)
    metrics.upstreams = tuple(Fleet(["a"], 5, 30.0, lambda: 0.5))
    metrics.audit = WholeAudit()
    metrics.processes = lambda: 1
    return metrics


def name_of(metric: Metric) -> str:
    return metric.name + ("_total" if metric.type == "counter" else "")


def test_the_page_and_the_registry_name_the_same_metrics_with_the_same_words() -> None:
    registered = {name_of(each): (each.type, each.documentation) for each in everything().registry.collect()}
    rows = [row.groups() for row in map(ROW.fullmatch, PAGE.read_text().splitlines()) if row is not None]
    assert {name: (kind, meaning) for name, kind, _, meaning in rows} == registered
    assert len(rows) == len(registered), "a metric stands twice"


def test_the_page_and_the_registry_name_the_same_labels() -> None:
    rows = [row.groups() for row in map(ROW.fullmatch, PAGE.read_text().splitlines()) if row is not None]
    written = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, _, labels, _ in rows}
    declared = {family.name: family.labels for family in families.ALL}
    for metric in everything().registry.collect():
        name = name_of(metric)
        if name not in declared:  # the client's own
            declared[name] = tuple(metric.samples[0].labels)
        for sample in metric.samples:
            assert set(sample.labels) - {"le"} == set(declared[name])
    assert written == declared


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": SteppedLoop})])
async def test_a_turn_that_comes_late_is_counted_by_how_late_it_comes() -> None:
    loop = SteppedLoop.current()
    lag = LoopLag(loop.time)
    lag.start()
    loop.advance(EVERY_S)
    assert lag.tally.total == pytest.approx(0, abs=5)  # real time goes by as well
    loop.advance(EVERY_S + 30)  # something held the loop up for half a minute
    assert sum(lag.tally.counts) == 2
    assert lag.tally.total == pytest.approx(30, abs=10)
    lag.stop()
    assert loop.armed_timers == 0
