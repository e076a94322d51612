"""Log lines of a turn have the trace of its request, in the web process and in the worker."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.harness.waiting import wait_until
from tests.ops.ecs_fields import check_line
from tests.ops.installation import Up
from tests.otlp_receiver import OtlpReceiver, otlp_receiver

pytestmark = pytest.mark.timeout(180)

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


def lines_of_trace(up: Up, process: str) -> list[dict[str, Any]]:
    """Return the lines of a process's log that name the trace."""
    text = (up.home / "logs" / f"{process}.log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if TRACE_ID in line]
    for line in lines:
        check_line(line)
        assert line["trace.id"] == TRACE_ID
    return lines


def test_lines_of_a_turn_name_the_trace_of_its_caller(tmp_path: Path, receiver: OtlpReceiver) -> None:
    # Given an installation with traces and logs in JSON
    settings = {"SANGHA_LOG_FORMAT": "json", "SANGHA_LOG_LEVEL": "debug"}
    up = Up(tmp_path / "data", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, **settings).wait_ready()
    try:
        with httpx.Client(base_url=up.address, timeout=60) as client:
            signup = client.post("/signup", json={"email": "me@example.com", "password": "correct horse battery"})
            headers = {
                "authorization": f"Bearer {signup.json()['token']}",
                "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01",
            }
            # When a caller with a trace of its own runs a turn
            client.post("/v1/responses", json={"model": "default", "input": "Hello"}, headers=headers)
        # Then the access line and the lines of the attempt name it, each with a span that is exported
        wait_until(lambda: lines_of_trace(up, "web") and lines_of_trace(up, "worker-inference"), 20)
        (access,) = lines_of_trace(up, "web")
        attempt = lines_of_trace(up, "worker-inference")[0]
        assert access["url.path"] == "/v1/responses"
        assert attempt["labels.job_kind"] == "turn.run"
        spans = {access["span.id"], attempt["span.id"]}
        wait_until(lambda: spans <= {span.span_id for span in receiver.trace(TRACE_ID)}, 20)
    finally:
        up.stop()
