"""Write the Grafana dashboards: `python observability/grafana/generate.py`."""

# Queries are read more easily in one line.
# ruff: noqa: E501

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

#: Grafana's grid has 24 columns.
COLUMNS, HEIGHT, STAT_HEIGHT = 24, 8, 4


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: the queries by their legends, and the unit of the values. `limit` is where the colour becomes red."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    text: str = ""
    kind: str = "timeseries"
    limit: float | None = None


def stat(title: str, query: str, unit: str = "short", limit: float | None = None, text: str = "") -> Panel:
    """Return a panel with one number."""
    return Panel(title, {"": query}, unit, text, "stat", limit)


def quantiles(title: str, metric: str, by: str = "", text: str = "") -> Panel:
    """Return a panel with the median and the 95th percentile of a histogram of seconds."""
    labels, legend = (f"le, {by}", f" {{{{{by}}}}}") if by else ("le", "")
    queries = {
        f"p{share}{legend}": f"histogram_quantile(0.{share}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"
        for share in (50, 95)
    }
    return Panel(title, queries, "s", text)


def rate(title: str, metric: str, by: str, unit: str = "ops") -> Panel:
    """Return a panel with the rate of a counter by a label."""
    return Panel(title, {f"{{{{{by}}}}}": f"sum by ({by}) (rate({metric}[$__rate_interval]))"}, unit)


def gauge(title: str, metric: str, by: str, unit: str = "short", limit: float | None = None, text: str = "") -> Panel:
    """Return a panel with what every web process reads from rows."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return Panel(title, {legend: f"max by ({by}) ({metric})"}, unit, text, limit=limit)


def total(title: str, metric: str, by: str, unit: str = "short", limit: float | None = None) -> Panel:
    """Return a panel with a gauge of each process, summed."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return Panel(title, {legend: f"sum by ({by}) ({metric})"}, unit, limit=limit)


PROMISES = (
    stat("Lost turns", "max(sangha_promise_lost_turns)", limit=1),
    stat("Repeated events", "max(sangha_promise_repeated_events)", limit=1),
    stat("Double charges", "max(sangha_promise_double_charges)", limit=1),
    stat("Unbalanced postings", "max(sangha_promise_unbalanced_postings)", limit=1),
)

FIRST_TOKEN = quantiles("Time to first token", "sangha_time_to_first_token_seconds", "model")
GENERATION = rate("Generated tokens per second", "sangha_generation_tokens_total", "model", "short")
TURNS = rate("Turns ended", "sangha_turn_duration_seconds_count", "state")
OLDEST = gauge("Oldest due job", "sangha_oldest_job_seconds", "queue", "s", 60)
SLOTS = total("Slots of engines", "sangha_engine_slots", "model, state")
QUEUE_WAIT = quantiles("Wait in the queue", "sangha_job_queue_wait_seconds", "queue")
STREAMS = Panel("Open streams", {"open": "sum(sangha_open_streams)", "slow": "sum(sangha_slow_streams)"})

DASHBOARDS: Mapping[str, tuple[str, Sequence[Panel]]] = {
    "overview": (
        "Overview",
        (
            stat("Broken promises", 'max({__name__=~"sangha_promise_.+"})', limit=1, text="Must be 0."),
            stat("Schedulers", "sum(sangha_scheduler_leader)"),
            stat("Live workers", 'sum(max by (pool) (sangha_workers{state="live"}))'),
            stat("Relay lag", "max(sangha_relay_lag_seconds)", "s", 10),
            Panel("Requests", {"{{status}}": "sum by (status) (rate(sangha_http_requests_total[$__rate_interval]))"}, "reqps"),
            TURNS,
            FIRST_TOKEN,
            GENERATION,
            OLDEST,
            SLOTS,
            STREAMS,
            Panel("Jobs", {"{{state}}": "sum by (state) (max by (queue, kind, state) (sangha_jobs))"}),
        ),
    ),
    "queues-and-workers": (
        "Queues and workers",
        (
            stat("Relay lag", "max(sangha_relay_lag_seconds)", "s", 10),
            stat("Scheduled jobs", "max(sangha_scheduled_jobs)"),
            stat("Dead jobs", 'sum(max by (queue, kind) (sangha_jobs{state="dead"})) or vector(0)', limit=1),
            stat("Silent workers", 'sum(max by (pool) (sangha_workers{state="silent"})) or vector(0)', limit=1),
            OLDEST,
            QUEUE_WAIT,
            gauge("Jobs", "sangha_jobs", "queue, state"),
            rate("Jobs ended", "sangha_jobs_ended_total", "kind"),
            rate("Attempts by outcome", "sangha_job_attempt_duration_seconds_count", "outcome"),
            quantiles("Duration of attempts", "sangha_job_attempt_duration_seconds", "kind"),
            gauge("Workers", "sangha_workers", "pool, state"),
            gauge("Age of the oldest heartbeat", "sangha_worker_lease_age_seconds", "pool", "s", 20),
            Panel(
                "Time since the scheduler's tasks ran",
                {"{{task}}": "time() - max by (task) (sangha_scheduler_last_run_timestamp_seconds)"},
                "s",
            ),
            Panel("Published messages", {"published": "sum(rate(sangha_relay_published_total[$__rate_interval]))"}, "ops"),
            total("Connections to Postgres", "sangha_database_pool_connections", "pool, state"),
            total("Threads that wait for a connection", "sangha_database_pool_waiting", "pool", limit=1),
        ),
    ),
    "inference": (
        "Inference",
        (
            FIRST_TOKEN,
            quantiles("Time per output token", "sangha_time_per_output_token_seconds", "model"),
            GENERATION,
            rate("Prompt tokens per second", "sangha_prompt_tokens_total", "model", "short"),
            quantiles("Duration of turns", "sangha_turn_duration_seconds", "model"),
            TURNS,
            SLOTS,
            gauge("Turns, queued and running", "sangha_model_turns", "model, state"),
            gauge("Predicted wait", "sangha_model_predicted_wait_seconds", "model", "s"),
            rate("Tool calls", "sangha_tool_call_duration_seconds_count", "outcome"),
            quantiles("Duration of tool calls", "sangha_tool_call_duration_seconds", "kind"),
            gauge("Circuit breakers", "sangha_endpoint_breaker", "endpoint, state"),
            Panel(
                "Failures of endpoints",
                {"{{endpoint}} {{kind}}": "max by (endpoint, kind) (rate(sangha_endpoint_failures_total[$__rate_interval]))"},
                "ops",
            ),
            gauge("Endpoints that asked for no requests", "sangha_endpoint_saturated_seconds", "endpoint", "s"),
            Panel(
                "Moves of turns",
                {"{{endpoint}} {{reason}}": "max by (endpoint, reason) (rate(sangha_turn_moves_total[$__rate_interval]))"},
                "ops",
            ),
        ),
    ),
    "streams": (
        "Streams and requests",
        (
            STREAMS,
            quantiles("From the journal to the client", "sangha_stream_delivery_seconds"),
            quantiles("Time to the first byte", "sangha_http_request_duration_seconds", "route"),
            rate("Requests by route", "sangha_http_requests_total", "route", "reqps"),
            Panel(
                "Responses with 5xx",
                {"{{route}} {{status}}": 'sum by (route, status) (rate(sangha_http_requests_total{status=~"5.."}[$__rate_interval]))'},
                "reqps",
            ),
            Panel("Event loop, longest busy", {"{{instance}}": "max by (instance) (sangha_event_loop_longest_busy_seconds)"}, "s"),
            total("Journals in workers", "sangha_journal_memory_bytes", "instance", "bytes"),
            Panel(
                "Memory of Redis",
                {"used": "max(sangha_redis_memory_bytes)", "limit": "max(sangha_redis_memory_limit_bytes)"},
                "bytes",
            ),
        ),
    ),
    "memory": (
        "Memory",
        (
            quantiles("Duration of recall", "sangha_recall_duration_seconds"),
            Panel("Recalls", {"recalls": "sum(rate(sangha_recall_duration_seconds_count[$__rate_interval]))"}, "ops"),
            quantiles("Duration of embedding", "sangha_embedding_duration_seconds"),
            Panel("Calls of the embedder", {"calls": "sum(rate(sangha_embedding_duration_seconds_count[$__rate_interval]))"}, "ops"),
            Panel(
                "Oldest due job",
                {"{{queue}}": 'max by (queue) (sangha_oldest_job_seconds{queue=~"recall|memory.*|inference_batch"})'},
                "s",
            ),
            Panel(
                "Jobs of memories ended",
                {"{{kind}} {{state}}": 'sum by (kind, state) (rate(sangha_jobs_ended_total{kind=~"memory.*|meditation.*"}[$__rate_interval]))'},
                "ops",
            ),
        ),
    ),
    "money": (
        "Money",
        (
            PROMISES[2],
            PROMISES[3],
            stat("Failing webhook endpoints", 'max(sangha_webhook_endpoints{state="failing"}) or vector(0)'),
            stat("Spill cost today", "sum(max by (endpoint, state) (sangha_spill_cost)) or vector(0)", text="Spent and reserved."),
            rate("Charges", "sangha_charge_duration_seconds_count", "outcome"),
            quantiles("Duration of charges", "sangha_charge_duration_seconds", "gateway"),
            gauge("Used spill budget", "sangha_spill_budget_used_ratio", "endpoint, limit", "percentunit", 0.8),
            gauge("Spilled turns today", "sangha_spill_turns", "endpoint"),
            rate("Deliveries of webhooks", "sangha_delivery_duration_seconds_count", "outcome"),
            Panel(
                "Billing jobs ended",
                {"{{kind}} {{state}}": 'sum by (kind, state) (rate(sangha_jobs_ended_total{kind=~"payment.*|invoice.*|subscription.*|refund.*"}[$__rate_interval]))'},
                "ops",
            ),
        ),
    ),
    "promises": (
        "Promises",
        (
            *PROMISES,
            stat("Time since the last check", "time() - max(sangha_promises_checked_timestamp_seconds)", "s", 900),
            stat("Requests with 5xx", "sangha:http_server_errors:ratio_rate5m", "percentunit", 0.05),
            stat("Failed turns", "sangha:failed_turns:ratio_rate5m", "percentunit", 0.05),
            stat("Firing alerts", 'count(ALERTS{alertname=~"Sangha.+",alertstate="firing"}) or vector(0)', limit=1),
            Panel("Broken promises", {"{{__name__}}": '{__name__=~"sangha_promise_.+"}'}, limit=1),
            Panel("First token, 95th percentile", {"{{model}}": "model:sangha_time_to_first_token_seconds:p95_5m"}, "s", limit=10),
            Panel("Wait in the queue, 95th percentile", {"{{queue}}": "queue:sangha_job_queue_wait_seconds:p95_5m"}, "s"),
            Panel("Restarts of processes", {"{{process}}": "sum by (process) (increase(sangha_process_restarts_total[$__rate_interval]))"}),
        ),
    ),
}  # fmt: skip


def dashboard(name: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """Return the JSON model of a dashboard, of Grafana's schema 39."""
    return {
        "uid": f"sangha-{name}",
        "title": f"Sangha / {title}",
        "tags": ["sangha"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "Sangha", "tags": ["sangha"], "asDropdown": True, "keepTime": True}],
        "templating": {"list": [datasource_variable()]},
        "panels": place(panels),
    }


def datasource_variable() -> dict[str, Any]:
    """Return the variable that chooses the Prometheus."""
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}


def place(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Return the panels from left to right and from top to bottom: four numbers, or two graphs in a row."""
    placed, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        width, height = (COLUMNS // 4, STAT_HEIGHT) if panel.kind == "stat" else (COLUMNS // 2, HEIGHT)
        if x + width > COLUMNS or (x and row != height):
            x, y = 0, y + row
        placed.append(panel_json(number, panel) | {"gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, row = x + width, height
    return placed


def panel_json(number: int, panel: Panel) -> dict[str, Any]:
    """Return the JSON model of a panel without its place."""
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": field_defaults(panel), "overrides": []},
        "options": options(panel),
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": query, "legendFormat": legend, "range": True}
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }  # fmt: skip


def field_defaults(panel: Panel) -> dict[str, Any]:
    """Return unit and thresholds of a panel."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    custom = {"fillOpacity": 10, "showPoints": "never", "thresholdsStyle": {"mode": "off"}}
    if panel.kind == "timeseries" and panel.limit is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
    defaults = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    return defaults | ({"custom": custom} if panel.kind == "timeseries" else {})


def options(panel: Panel) -> dict[str, Any]:
    """Return the options of a panel's type."""
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    return {
        f"{name}.json": json.dumps(dashboard(name, title, panels), indent=2) + "\n"
        for name, (title, panels) in DASHBOARDS.items()
    }


def main() -> None:
    """Write all dashboards."""
    for name, text in files().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
