"""Given a standby by asynchronous replication, when it is promoted, then it lacks what was committed last."""

from pathlib import Path

import psycopg

from bench.chaos import standby as module
from bench.chaos.standby import Standby, lose_commits, promote, wait_for_replication
from ops.embedded_servers import Postgres, running_server


def execute(server: Postgres, statement: str) -> list[tuple[int, ...]]:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_promoted_standby_lacks_the_last_commits(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "LOST_SECONDS", 0.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "logs").mkdir()
    primary = Postgres(tmp_path / "primary", tmp_path / "a")
    standby = Standby(tmp_path / "standby", tmp_path / "b", primary)
    with running_server(primary, tmp_path / "run", tmp_path / "logs") as running:
        execute(primary, "CREATE TABLE commits (number int)")
        with running_server(standby, tmp_path / "run", tmp_path / "logs"):
            wait_for_replication(primary)
            execute(primary, "INSERT INTO commits VALUES (1)")
            wait_until_replicated(primary)

            def commit_and_kill() -> None:
                execute(primary, "INSERT INTO commits VALUES (2)")
                running.kill()

            lost = lose_commits(standby, commit_and_kill)
            promote(standby)
            execute(standby, "INSERT INTO commits VALUES (3)")

            assert execute(standby, "SELECT number FROM commits ORDER BY 1") == [(1,), (3,)]
            assert lost.began < lost.ended


def wait_until_replicated(primary: Postgres) -> None:
    module.wait_until(
        lambda: execute(primary, "SELECT 1 FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()"),
        10,
        what="replication",
    )
