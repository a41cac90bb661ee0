"""The dashboard and the alerts without a Prometheus: well made, and about metrics that exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import promql_parser
import pytest
import yaml

from nexus_gateway.observe import families
from tests.support.dashboard import ROOT, Asked, asked, dashboard, panels

GRAFANA = ROOT / "deploy/grafana"
VARIABLES = {"instance": ".*", "__rate_interval": "1m", "__range": "30m"}
ASKED = asked(VARIABLES)
OTHERS = {  # what the Python client tells of every process, and the labels that it adds
    "process_resident_memory_bytes": (),
    "process_cpu_seconds_total": (),
    "process_open_fds": (),
    "python_gc_collections_total": ("generation",),
}
SCRAPED = {"job", "instance", "le"}  # labels that Prometheus adds, and those of buckets
LABELS = {family.name: set(family.labels) | SCRAPED for family in families.ALL}
LABELS |= {name: set(labels) | SCRAPED for name, labels in OTHERS.items()}


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """All that is selected below this expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        inner = getattr(node, name, None)
        if inner is not None:
            yield from selectors(inner)
    for argument in getattr(node, "args", ()):
        yield from selectors(argument)


def labels_of(metric: str) -> set[str]:
    """Raises KeyError for a metric that the gateway has not got."""
    return SCRAPED if metric in RECORDED else LABELS[re.sub("_(bucket|count|sum)$", "", metric)]


def check(expression: str) -> None:
    """It parses, and asks for metrics and labels that the gateway has."""
    known: set[str] = set()
    for selector in selectors(promql_parser.parse(expression)):
        labels = labels_of(str(selector.name))
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels
        known |= labels
    grouped = {label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(", ")}
    assert known
    assert grouped <= known


@pytest.mark.parametrize("each", ASKED, ids=lambda each: f"{each.section}: {each.panel}: {each.legend}")
def test_every_expression_of_the_dashboard_is_about_metrics_that_exist(each: Asked) -> None:
    check(each.expression)
    assert "$" not in each.expression
    shown = set(re.findall(r"{{(\w+)}}", each.legend))
    assert all(re.search(rf"\b{label}\b", each.expression) or label in SCRAPED for label in shown)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_rule_is_about_metrics_that_exist(rule: dict[str, Any]) -> None:
    check(rule["expr"])


def test_the_questions_on_the_page_of_metrics_are_about_metrics_that_exist() -> None:
    (block,) = re.findall(r"```promql\n(.*?)```", (ROOT / "docs/metrics.md").read_text(), re.DOTALL)
    questions = [line for line in block.splitlines() if line and not line.startswith("#")]
    assert len(questions) == 5
    for question in questions:
        check(question)


def test_the_file_is_what_its_maker_makes() -> None:
    checked = subprocess.run([sys.executable, GRAFANA / "dashboard.py", "--check"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_sections_are_five() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Upstreams", "Tenants", "Protection", "Gateway"]
    assert {section for section, _ in panels()} == set(rows)


def test_panels_do_not_lie_on_each_other_and_have_numbers_of_their_own() -> None:
    placed = dashboard()["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    for panel in placed:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in placed), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_every_metric_but_those_without_a_question_is_on_the_dashboard_or_alarms() -> None:
    said = " ".join(each.expression for each in ASKED) + " ".join(rule["expr"] for rule in rules())
    unasked = {family.name for family in families.ALL if family.name not in said}
    assert unasked == {"nexus_upstream_isolated"}, "the panel of availability says it too"


def test_grafana_is_provisioned_with_the_data_source_and_the_folder() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert [(source["type"], source["isDefault"], source["url"]) for source in sources] == [
        ("prometheus", True, "http://prometheus:9090")
    ]
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/nexus-gateway.yml").read_text())["providers"]
    assert [provider["options"]["path"] for provider in providers] == ["/var/lib/grafana/dashboards"]
    page = dashboard()
    assert (page["title"], page["uid"]) == ("Nexus Gateway", "nexus-gateway")
    assert all(panel["datasource"]["uid"] == "${datasource}" for _, panel in panels())


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_every_alert_has_an_entry_in_the_runbook(alert: dict[str, Any]) -> None:
    page, anchor = alert["annotations"]["runbook"].split("#")
    headings = re.findall(r"^#+ (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert alert["alert"] in headings
    assert anchor == alert["alert"].lower()
    assert alert["labels"]["severity"] in ("page", "ticket")
