"""`sangha pools` on a real database."""

from tests.ops.commands import sangha


def test_pools_shows_each_pool(dead_job: str) -> None:
    lines = sangha("pools").output.splitlines()
    assert lines[0].split() == ["pool", "workers", "threads", "queued", "running", "waiting", "dead", "oldest"]
    assert lines[1].split() == ["inference", "0", "0", "0", "0", "0", "1", "-"]
