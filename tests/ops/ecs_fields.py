"""Fields of the Elastic Common Schema 8.11 that log lines have, with their types (elastic/ecs, fields.csv)."""

import re
from typing import Any

#: Fields and their types. `labels.*` are keywords.
FIELDS = {
    "@timestamp": "date",
    "log.level": "keyword",
    "log.logger": "keyword",
    "message": "text",
    "ecs.version": "keyword",
    "service.name": "keyword",
    "service.version": "keyword",
    "process.name": "keyword",
    "process.pid": "long",
    "process.thread.name": "keyword",
    "event.dataset": "keyword",
    "event.duration": "long",
    "trace.id": "keyword",
    "span.id": "keyword",
    "error.type": "keyword",
    "error.message": "text",
    "error.stack_trace": "wildcard",
    "http.request.method": "keyword",
    "http.response.status_code": "long",
    "url.path": "wildcard",
}

#: What the specification of ECS loggers requires, in this order at the beginning of a line (elastic/ecs-logging).
FIRST = ["@timestamp", "log.level", "message", "ecs.version"]

DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def check_line(fields: dict[str, Any]) -> None:
    """Check the names, the types and the order of the fields of one line."""
    assert list(fields)[: len(FIRST)] == FIRST
    for name, value in fields.items():
        kind = "keyword" if name.startswith("labels.") else FIELDS[name]
        assert isinstance(value, int if kind == "long" else str), (name, value)
        assert kind != "date" or DATE.fullmatch(value), (name, value)
