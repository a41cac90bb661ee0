"""Makes dashboards/nexus-gateway.json: what a team asks of its gateway, on one page of five sections.

For:      changing a panel by changing a line; `make dashboard` writes the file, `--check` says whether it is fresh.
Touches:  that file.

In the expressions `$on` stands for the chosen instances and `$w` for the window of a rate.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("dashboards") / "nexus-gateway.json"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS: Final = 24  # of Grafana's grid
GREEN, YELLOW, RED = "green", "yellow", "red"

Panel = dict[str, Any]


def quantile(share: float, histogram: str, *by: str, only: str = "") -> str:
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{$on{only}}}[$w])))"


def lines(title: str, unit: str, asked: Mapping[str, str], says: str = "", *, width: int = 8) -> Panel:
    """Values over time. `asked`: the expression behind each legend."""
    return {
        "type": "timeseries",
        **_common(title, says, asked, width=width, height=8),
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def number(title: str, unit: str, expression: str, says: str = "", *, red_from: float | None = None) -> Panel:
    """The value now, with its past behind it."""
    steps: list[dict[str, Any]] = [{"color": GREEN, "value": None}]
    if red_from is not None:
        steps.append({"color": RED, "value": red_from})
    return {
        "type": "stat",
        **_common(title, says, {title: expression}, width=4, height=4),
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {
            "colorMode": "value",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    }


def states(title: str, asked: Mapping[str, str], named: Mapping[str, tuple[str, str]], says: str) -> Panel:
    """Coloured bars over time. `named`: the word and the colour of each value."""
    words = {value: {"text": word, "color": colour} for value, (word, colour) in named.items()}
    return {
        "type": "state-timeline",
        **_common(title, says, asked, width=12, height=8),
        "fieldConfig": {
            "defaults": {"mappings": [{"type": "value", "options": words}], "custom": {"fillOpacity": 70}},
            "overrides": [],
        },
        "options": {
            "mergeValues": True,
            "showValue": "never",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "single"},
        },
    }


def _common(title: str, says: str, asked: Mapping[str, str], *, width: int, height: int) -> Panel:
    targets = [
        {"refId": chr(ord("A") + at), "expr": _written(expression), "legendFormat": legend, "datasource": SOURCE}
        for at, (legend, expression) in enumerate(asked.items())
    ]
    return {
        "title": title,
        "description": says,
        "datasource": SOURCE,
        "targets": targets,
        "gridPos": {"w": width, "h": height},
    }


def _written(expression: str) -> str:
    return expression.replace("$on", 'instance=~"$instance"').replace("$w", "$__rate_interval")


# ---- the sections

REQUESTS: Final = "sum(rate(nexus_requests_total{$on}[$w]))"
FAILED: Final = 'sum(rate(nexus_requests_total{$on,status=~"5..|200",code!~"none|client_gone"}[$w]))'

OVERVIEW: Final = [
    number("Requests", "reqps", REQUESTS),
    number(
        "Failed on our side",
        "percentunit",
        f"({FAILED} or vector(0)) / {REQUESTS}",
        "5xx answers, and streams that broke after they had begun.",
        red_from=0.01,
    ),
    number("First event, p99", "s", quantile(0.99, "nexus_first_byte_seconds"), "Of streams."),
    number("Tokens", "short", "60 * sum(rate(nexus_tokens_total{$on}[$w]))", "Per minute, prompts and answers."),
    number("In flight", "short", "sum(nexus_in_flight_requests{$on})"),
    number(
        "Upstreams down",
        "short",
        "count(max by (upstream) (nexus_upstream_available{$on}) == 0) or vector(0)",
        "That no instance may ask just now.",
        red_from=1,
    ),
    lines(
        "Traffic",
        "reqps",
        {"{{status}}": "sum by (status) (rate(nexus_requests_total{$on}[$w]))"},
        "By status. 499: the caller left before the head of its answer.",
    ),
    lines(
        "What failed, and why",
        "reqps",
        {"{{code}}": 'sum by (code) (rate(nexus_requests_total{$on,code!="none"}[$w]))'},
        "The codes of docs/errors.md.",
    ),
    lines(
        "By operation",
        "reqps",
        {"{{operation}}": "sum by (operation) (rate(nexus_requests_total{$on}[$w]))"},
    ),
    lines(
        "First event of a stream",
        "s",
        {
            "p50": quantile(0.5, "nexus_first_byte_seconds"),
            "p95": quantile(0.95, "nexus_first_byte_seconds"),
            "p99": quantile(0.99, "nexus_first_byte_seconds"),
        },
    ),
    lines(
        "Whole answers",
        "s",
        {
            "{{kind}} p50": quantile(0.5, "nexus_request_duration_seconds", "kind"),
            "{{kind}} p99": quantile(0.99, "nexus_request_duration_seconds", "kind"),
        },
    ),
    lines(
        "Tokens by route",
        "short",
        {"{{route}} {{direction}}": "sum by (route, direction) (rate(nexus_tokens_total{$on}[$w]))"},
        "Per second.",
    ),
]

OPENED: Final = 'max by (upstream) (nexus_breaker_state{$on,state="open"})'
PROBING: Final = 'max by (upstream) (nexus_breaker_state{$on,state="half-open"})'

UPSTREAMS: Final = [
    states(
        "Breakers",
        {"{{upstream}}": f"clamp_max(2 * {OPENED} + {PROBING}, 2)"},
        {"0": ("closed", GREEN), "1": ("half-open", YELLOW), "2": ("open", RED)},
        "The worst state on any of the instances.",
    ),
    states(
        "May be asked",
        {"{{upstream}}": "min by (upstream) (nexus_upstream_available{$on})"},
        {"0": ("no", RED), "1": ("yes", GREEN)},
        "Not while the breaker is open, the upstream cools down, fails its checks, or an operator has taken it out.",
    ),
    lines(
        "Attempts",
        "reqps",
        {
            "{{upstream}} {{outcome}}": "sum by (upstream, outcome) (rate(nexus_upstream_attempts_total{$on}[$w]))",
        },
    ),
    lines(
        "Failed attempts",
        "percentunit",
        {
            "{{upstream}}": 'sum by (upstream) (rate(nexus_upstream_attempts_total{$on,outcome!~"ok|cancelled"}[$w]))'
            " / sum by (upstream) (rate(nexus_upstream_attempts_total{$on}[$w]))",
        },
    ),
    lines(
        "Under way",
        "short",
        {"{{upstream}}": "sum by (upstream) (nexus_upstream_in_flight{$on})"},
    ),
    lines(
        "Plain answers",
        "s",
        {
            "{{upstream}} p50": quantile(0.5, "nexus_upstream_attempt_seconds", "upstream", only=',kind="plain"'),
            "{{upstream}} p99": quantile(0.99, "nexus_upstream_attempt_seconds", "upstream", only=',kind="plain"'),
        },
    ),
    lines(
        "Time per output token",
        "s",
        {
            "{{upstream}} p50": quantile(0.5, "nexus_output_token_seconds", "upstream"),
            "{{upstream}} p99": quantile(0.99, "nexus_output_token_seconds", "upstream"),
        },
    ),
    lines(
        "Fallbacks",
        "reqps",
        {"{{route}} by {{upstream}}": "sum by (route, upstream) (rate(nexus_fallbacks_total{$on}[$w]))"},
        "Answers by another upstream than the chosen one.",
    ),
    lines(
        "Changes of breakers",
        "short",
        {"{{upstream}} to {{to}}": "sum by (upstream, to) (increase(nexus_breaker_transitions_total{$on}[$w]))"},
    ),
    lines(
        "Left alone, or not asked again",
        "short",
        {
            "{{upstream}} cooled down": "sum by (upstream) (increase(nexus_upstream_cooldowns_total{$on}[$w]))",
            "{{upstream}} out of retries": "sum by (upstream) (increase(nexus_retries_refused_total{$on}[$w]))",
        },
    ),
    lines(
        "Mirrored",
        "reqps",
        {
            "{{outcome}}": "sum by (outcome) (rate(nexus_shadow_requests_total{$on}[$w]))",
            "differs: {{differs}}": "sum by (differs) (rate(nexus_shadow_compared_total{$on}[$w]))",
        },
    ),
]

TENANTS: Final = [
    lines(
        "Requests",
        "reqps",
        {"{{caller}}": "sum by (caller) (rate(nexus_caller_requests_total{$on}[$w]))"},
        "By the name of the caller's policy, else by key; jwt: all tokens without a name.",
    ),
    lines(
        "Answered with an error",
        "reqps",
        {
            "{{caller}} {{status}}": "sum by (caller, status)"
            ' (rate(nexus_caller_requests_total{$on,status!="2xx"}[$w]))',
        },
    ),
    lines(
        "Refused by a limit",
        "reqps",
        {"{{caller}} {{limit}}": "sum by (caller, limit) (rate(nexus_caller_refusals_total{$on}[$w]))"},
    ),
    lines(
        "Tokens",
        "short",
        {
            "{{caller}} {{direction}}": "60 * sum by (caller, direction) (rate(nexus_caller_tokens_total{$on}[$w]))",
        },
        "Per minute.",
        width=12,
    ),
    lines(
        "Most tokens",
        "short",
        {"{{caller}}": "topk(10, sum by (caller) (increase(nexus_caller_tokens_total{$on}[$__range])))"},
        "In the time that is shown.",
        width=12,
    ),
]

PROTECTION: Final = [
    number("Redis", "short", "min(nexus_redis_up{$on})", "1: limits are shared; 0: an instance has lost it."),
    number("Share limits", "short", "max(nexus_redis_processes{$on})", "Processes, through Redis."),
    number("Audit failing", "short", "max(nexus_audit_failing{$on})", "1: records cannot be written.", red_from=1),
    number(
        "Audit records lost",
        "short",
        "sum(increase(nexus_audit_records_dropped_total{$on}[$__range]))",
        "In the time that is shown.",
        red_from=1,
    ),
    number(
        "Log lines lost",
        "short",
        "sum(increase(nexus_log_lines_dropped_total{$on}[$__range]))",
        "In the time that is shown.",
        red_from=1,
    ),
    number(
        "Masked",
        "percentunit",
        f"sum(rate(nexus_masked_requests_total{{$on}}[$w])) / {REQUESTS}",
        "Requests in which something was hidden.",
    ),
    lines(
        "Decisions of the limiter",
        "reqps",
        {
            "{{decision}}": "sum by (decision) (rate(nexus_limiter_decisions_total{$on}[$w]))",
            "without Redis: {{basis}}": "sum by (basis) (rate(nexus_limiter_degraded_total{$on}[$w]))",
        },
    ),
    lines(
        "Turned away before any upstream",
        "reqps",
        {
            "{{code}}": "sum by (code) (rate(nexus_rejections_total{$on}[$w]))",
            "no request: {{code}}": "sum by (code) (rate(nexus_connections_refused_total{$on}[$w]))",
        },
    ),
    lines(
        "Masked identifiers",
        "short",
        {"{{type}}": "sum by (type) (rate(nexus_masked_identifiers_total{$on}[$w]))"},
        "Per second.",
    ),
]

OF_GATEWAYS: Final = " and on (job, instance) nexus_build_info"

GATEWAY: Final = [
    lines(
        "Its own time",
        "s",
        {
            "{{kind}} p50": quantile(0.5, "nexus_overhead_seconds", "kind"),
            "{{kind}} p99": quantile(0.99, "nexus_overhead_seconds", "kind"),
        },
        "From the end of the body to the end of the answer, the upstream's time not counted.",
    ),
    lines(
        "Loop lag",
        "s",
        {"{{instance}} p99": quantile(0.99, "nexus_loop_lag_seconds", "instance")},
        "How late a turn of the event loop comes. Its clock ticks in milliseconds.",
    ),
    lines("In flight", "short", {"{{instance}}": "sum by (instance) (nexus_in_flight_requests{$on})"}),
    lines("Memory", "bytes", {"{{instance}}": "process_resident_memory_bytes{$on}" + OF_GATEWAYS}),
    lines(
        "Processor",
        "percentunit",
        {"{{instance}}": "rate(process_cpu_seconds_total{$on}[$w])" + OF_GATEWAYS},
        "Of one core.",
    ),
    lines("Open files", "short", {"{{instance}}": "process_open_fds{$on}" + OF_GATEWAYS}),
    lines("Versions", "short", {"{{version}}": "count by (version) (nexus_build_info{$on})"}),
    lines(
        "Spans",
        "short",
        {"{{outcome}}": "sum by (outcome) (rate(nexus_spans_total{$on}[$w]))"},
        "Per second; none without tracing.",
    ),
    lines(
        "Collections of garbage",
        "short",
        {
            "generation {{generation}}": "sum by (generation)"
            f" (rate(python_gc_collections_total{{$on}}[$w]){OF_GATEWAYS})",
        },
        "Per second.",
    ),
]

SECTIONS: Final = {
    "Overview": OVERVIEW,
    "Upstreams": UPSTREAMS,
    "Tenants": TENANTS,
    "Protection": PROTECTION,
    "Gateway": GATEWAY,
}


# ---- the page


def page() -> dict[str, Any]:
    return {
        "title": "Nexus Gateway",
        "uid": "nexus-gateway",
        "tags": ["nexus-gateway"],
        "schemaVersion": 38,  # of Grafana 10.1; later ones read it
        "editable": True,
        "graphTooltip": 1,  # one crosshair over all panels
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {"list": [_data_source(), _instances()]},
        "panels": _placed(),
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _instances() -> dict[str, Any]:
    query = "label_values(nexus_build_info, instance)"
    return {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instances"},
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _placed() -> list[Panel]:
    """All panels from left to right and from top to bottom, with a row above each section."""
    placed: list[Panel] = []
    y = 0
    for title, panels in SECTIONS.items():
        row = {"type": "row", "title": title, "collapsed": False, "panels": []}
        placed.append({**row, "id": len(placed) + 1, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        x, y, height = 0, y + 1, 0
        for panel in panels:
            size = panel["gridPos"]
            if x + size["w"] > COLUMNS:
                x, y, height = 0, y + height, 0
            placed.append({**panel, "id": len(placed) + 1, "gridPos": {"x": x, "y": y, **size}})
            x, height = x + size["w"], max(height, size["h"])
        y += height
    return placed


def main(arguments: list[str]) -> int:
    made = json.dumps(page(), indent=2) + "\n"
    if "--check" in arguments:
        if not FILE.exists() or FILE.read_text() != made:
            print(f"{FILE.name} is not what dashboard.py makes: run `make dashboard`", file=sys.stderr)
            return 1
        return 0
    FILE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
