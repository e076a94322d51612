"""`sangha pools` on a real database."""

from models.platform.database import Database
from tests.ops.commands import sangha


def test_pools_shows_each_pool(dead_job: str) -> None:
    lines = sangha("pools").output.splitlines()
    columns = ["pool", "workers", "threads", "scheduled", "queued", "running", "waiting", "dead", "oldest"]
    assert lines[0].split() == columns
    assert lines[1].split() == ["inference", "0", "0", "0", "0", "0", "0", "1", "-"]


def test_pools_says_what_to_do_for_jobs_that_no_worker_serves(installation: Database, dead_job: str) -> None:
    for queue, remedy in (
        ("inference.small", "Start `sangha worker inference --model small=PATH`"),
        ("upstream.groq_batch", "Add groq to SANGHA_UPSTREAMS"),
    ):
        with installation.connection() as connection:
            connection.execute("UPDATE jobs SET state = 'queued', queue = %s WHERE id = %s", (queue, dead_job))
        lines = sangha("pools").output.splitlines()
        assert any(line.startswith(f"{queue}: 1 jobs wait") and remedy in line for line in lines)
