"""Given a stack, when a few turns are traced, then the table has each of their round trips by name."""

import os
import subprocess
import sys
from xml.etree import ElementTree


def test_a_trace_lists_every_round_trip_and_draws_one_turn(tmp_path):
    file = tmp_path / "turn.svg"
    options = ["--broker", "redis", "--turns", "5", "--statements", "--picture", str(file)]
    command = [sys.executable, "-m", "bench.trace", *options]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert done.returncode == 0, done.stderr
    round_trips = (
        "auth_context.SESSION",
        "rate_limits.DRAW",
        "responses.INSERT_WITH_JOB",
        "outbox.DUE_OF_LANES",
        "attempts.CLAIM",
        "attempts.END + attempts.AFTER_END",
        "journal.APPEND",
    )
    trips, _, statements = done.stdout.partition("ms to plan")
    for round_trip in round_trips:
        assert round_trip in trips
    for statement in ("outbox.MARK", "attempts.CLAIM", "attempts.END", "usage.BILL", "COMMIT"):
        assert statement in statements
    text = "".join(ElementTree.parse(file).getroot().itertext())
    for lane in (
        "client",
        "web: event loop",
        "web: threads",
        "web: relay",
        "worker: turn",
        "worker: journal",
        "Postgres",
        "Valkey",
    ):
        assert lane in text
    assert "completed" in text
