"""`sangha pools` on a real database."""

from tests.ops.commands import sangha


def test_pools_shows_each_pool(dead_job: str) -> None:
    lines = sangha("pools").output.splitlines()
    columns = ["pool", "workers", "threads", "scheduled", "queued", "running", "waiting", "dead", "oldest"]
    assert lines[0].split() == columns
    assert lines[1].split() == ["inference", "0", "0", "0", "0", "0", "0", "1", "-"]
