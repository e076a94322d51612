"""Given a stack of its own, when a few turns are traced, then each trip that they make stands in the table, by name."""

import os
import subprocess
import sys
from xml.etree import ElementTree


def test_a_trace_names_every_trip_and_draws_one_turn(tmp_path):
    file = tmp_path / "turn.svg"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench.trace",
            "--broker",
            "redis",
            "--turns",
            "5",
            "--statements",
            "--picture",
            str(file),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )

    assert done.returncode == 0, done.stderr
    for trip in ("credentials.SESSION", "rate_limits.DRAW", "responses.INSERT + COMMIT", "outbox.DUE", "attempts.CLAIM",
                 "BEGIN + attempts.END + attempts.SOMEBODY_WAITS", "journal.APPEND"):  # fmt: skip
        assert trip in done.stdout
    inside = done.stdout.partition("ms to plan")[2]
    for statement in ("jobs.INSERT", "outbox.DUE", "attempts.CLAIM", "attempts.END", "usage.BILL", "COMMIT"):
        assert statement in inside
    drawn = "".join(ElementTree.parse(file).getroot().itertext())
    for lane in ("client", "web: event loop", "web: relay", "worker: turn", "worker: journal", "Postgres", "Valkey"):
        assert lane in drawn
    assert "completed" in drawn
