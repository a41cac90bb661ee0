"""What a gateway tells at `/metrics`, read by the parsers of Prometheus's own client."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from .http_client import Caller

OPENMETRICS: Final = "application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class Scrape:
    content_type: str
    text: str
    metrics: tuple[Metric, ...]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that bear these labels."""
        found = [s for metric in self.metrics for s in metric.samples if s.name == name]
        return sum(sample.value for sample in found if labels.items() <= sample.labels.items())

    def values(self, name: str, label: str) -> set[str]:
        """What a label has stood for."""
        return {s.labels[label] for metric in self.metrics for s in metric.samples if s.name == name}

    @property
    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {(s.name, frozenset(s.labels.items())) for metric in self.metrics for s in metric.samples}


async def scrape(port: int, accept: str = "*/*") -> Scrape:
    async with Caller(port) as prometheus:
        await prometheus.send(f"GET /metrics HTTP/1.1\r\nhost: gateway\r\naccept: {accept}\r\n\r\n".encode())
        answer = await prometheus.receive()
    assert answer.status == 200
    text, content_type = answer.body.decode(), answer.headers["content-type"]
    families: Iterable[Metric] = (read_openmetrics if content_type.startswith(OPENMETRICS) else read_text)(text)
    return Scrape(content_type, text, tuple(families))
