"""Given servers, confirmations and news that get lost, then each step of a job counts once, or is taken again."""

import signal
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import redis

from models.jobs import attempts
from models.jobs.attempt_context import Waiting, plain_ending
from models.jobs.attempts import Ending
from models.jobs.cancellation import cancel
from models.jobs.jobs import NewJob, children
from models.journal import journal
from models.journal.archive import read_archive
from models.platform.database import Database
from models.platform.errors import Fenced, Unavailable
from models.platform.redis_client import connect
from ops.servers import Valkey, running_server
from tests.tasks.handlers import COMPLETES, completes, handler, raises, story
from tests.waiting import eventually


@pytest.mark.parametrize("error", [Unavailable("the engine is down"), redis.ConnectionError("gone")])
def test_what_meets_a_part_that_is_down_waits_and_counts_no_failure(runner, desk, account, error):
    job_id = desk.enqueue(account)

    runner.execute(handler(raises(error)), job_id, "m")

    job = desk.job(job_id)
    assert (job.state, job.failures, job.published_at) == ("queued", 0, None)
    assert desk.claim(job_id) is None  # a moment later


def test_without_redis_a_job_waits(runner, desk, account, tmp_path):
    job_id = desk.enqueue(account)
    runner.client = connect(f"unix://{tmp_path}/nothing.sock")

    runner.execute(COMPLETES, job_id, "m")

    assert (desk.job(job_id).state, desk.job(job_id).failures) == ("queued", 0)


@pytest.mark.parametrize("outcome", ["completes", "fails", "waits", "is fenced"])
def test_a_zombie_that_wakes_up_changes_nothing(runners, desk, account, outcome):
    zombie, other = runners("zombie"), runners("other")
    job_id, inside, go = desk.enqueue(account), threading.Event(), threading.Event()

    def run(attempt):
        inside.set()
        assert go.wait(20)
        if outcome == "completes":
            return completes(attempt)
        if outcome == "waits":
            return Waiting([NewJob("test.child", account)])
        raise ValueError("late") if outcome == "fails" else Fenced("late")

    thread = threading.Thread(target=zombie.execute, args=(handler(run), job_id, "m"))
    thread.start()
    assert inside.wait(20)
    other.execute(COMPLETES, job_id, "m")
    go.set()
    thread.join(20)

    assert not thread.is_alive()
    assert (desk.job(job_id).state, desk.job(job_id).result) == ("completed", {"attempt": 2})
    assert story(other, desk, job_id) == ["test.said", "sangha:job.completed"]
    with desk.database.connection() as connection:
        assert children(connection, job_id) == []


class Unconfirming(Database):
    """A database that loses the confirmation of the next commits of one kind of transaction."""

    lost = 0

    @contextmanager
    def _losing(self, within):
        with within() as connection:
            yield connection
        if self.lost:
            self.lost -= 1
            raise Unavailable("the connection was lost while the commit was on its way back")

    def transaction(self):
        return self._losing(super().transaction)

    def batch(self):
        return self._losing(super().batch)


@pytest.fixture
def unconfirming(desk):
    database = Unconfirming(desk.database.dsn)
    yield database
    database.close()


def test_an_end_whose_confirmation_is_lost_is_an_end_once(runners, unconfirming, desk, account):
    runner = runners("worker", unconfirming)
    job_id, recorded = desk.enqueue(account), []

    def run(attempt):
        unconfirming.lost = 1
        return replace(completes(attempt), record=lambda connection: recorded.append(desk.enqueue(account)))

    runner.execute(handler(run), job_id, "m")

    assert desk.job(job_id).state == "completed"
    assert len(recorded) == 1  # the repeat was refused before it
    assert story(runner, desk, job_id) == ["test.said", "sangha:job.completed"]
    assert journal.read_events(runner.client, job_id)[-1].ends


def test_a_claim_whose_confirmation_is_lost_is_made_good_at_once(runner, desk, account, monkeypatch):
    job_id, claim, lost = desk.enqueue(account), attempts.claim, []

    def unconfirmed(*given, **named):
        claimed = claim(*given, **named)
        if not lost:
            lost.append(claimed)
            raise Unavailable("the connection was lost while the commit was on its way back")
        return claimed

    monkeypatch.setattr(attempts, "claim", unconfirmed)
    runner.execute(COMPLETES, job_id, "m")

    job = desk.job(job_id)
    assert (job.state, job.attempt, job.failures) == ("completed", 2, 0)


def test_a_message_that_comes_again_to_the_worker_that_runs_its_job_is_dropped(runner, desk, account):
    job_id = desk.enqueue(account)

    def run(attempt):
        runner.execute(handler(raises(AssertionError("it ran twice"))), job_id, "m")
        return completes(attempt)

    runner.execute(handler(run), job_id, "m")

    assert (desk.job(job_id).state, desk.job(job_id).attempt) == ("completed", 1)


def test_a_cancel_that_comes_between_claim_and_run_is_heard(runner, desk, account, monkeypatch):
    job_id, claim = desk.enqueue(account), attempts.claim

    def claim_then_cancel(*given, **named):
        claimed = claim(*given, **named)
        with desk.database.transaction() as connection:
            cancel(connection, job_id, account)
        runner.cancel(job_id)
        return claimed

    def run(attempt):
        attempt.check()
        return completes(attempt)

    monkeypatch.setattr(attempts, "claim", claim_then_cancel)
    runner.execute(handler(run), job_id, "m")

    assert desk.job(job_id).state == "cancelled"


@pytest.mark.parametrize("outcome", ["fails", "waits", "is released"])
def test_other_steps_whose_confirmation_is_lost_count_once(runners, unconfirming, desk, account, outcome):
    runner = runners("worker", unconfirming)
    job_id = desk.enqueue(account)

    def run(attempt):
        attempt.journal.write("test.said", {})
        unconfirming.lost = 1
        if outcome == "waits":
            return Waiting([NewJob("test.child", account)])
        raise ValueError if outcome == "fails" else Unavailable("down")

    runner.execute(handler(run), job_id, "m")

    job = desk.job(job_id)
    assert (job.state, job.failures) == ("waiting" if outcome == "waits" else "queued", outcome == "fails")
    assert job.pending_children == (outcome == "waits")
    assert story(runner, desk, job_id) == ["test.said"]


def test_a_redis_that_dies_and_returns_in_the_middle_costs_nothing(runners, desk, account, tmp_path):
    """kill -9, an empty new one: the journal is whole again, in Redis and in the archive."""
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    with running_server(Valkey(tmp_path / "valkey", tmp_path), tmp_path / "run", tmp_path / "logs") as server:
        runner = runners()
        runner.client = runner.writer._client = connect(server.service.url)
        job_id = desk.enqueue(account)

        def run(attempt):
            for n in range(20):
                attempt.journal.write_text("test.delta", {}, f"w{n} ", 1)
            runner.writer.drain()
            server.signal(signal.SIGKILL)
            eventually(lambda: not server.running)
            for n in range(20, 40):
                attempt.journal.write_text("test.delta", {}, f"w{n} ", 1)
            for file in (tmp_path / "valkey").rglob("*aof*"):
                if file.is_file():
                    file.unlink()
            server.start()
            server.wait_ready()
            return plain_ending(attempt, "completed")

        runner.execute(handler(run), job_id, "m")
        assert runner.writer.drain(20)

        recent = journal.read_events(runner.client, job_id)
        with desk.database.connection() as connection:
            archived = read_archive(connection, job_id)
        assert [event.data for event in recent] == [event.data for event in archived.events]
        assert archived.tokens == 40
        runner.client.close()


def test_an_end_that_redis_has_forgotten_the_beginning_of_is_written_whole(runner, desk, account):
    """Those who follow hear of it at once, and not when somebody looks into the archive."""
    job_id = desk.enqueue(account)

    def run(attempt):
        attempt.journal.write("test.said", {})
        runner.writer.drain()

        def record(connection):
            journal.delete(runner.client, job_id)

        return replace(plain_ending(attempt, "completed"), record=record)

    runner.execute(handler(run), job_id, "m")
    runner.writer.drain()

    assert [event.sequence for event in journal.read_events(runner.client, job_id)] == [0, 1]


def test_what_leaves_while_postgres_is_away_gives_up(runner, monkeypatch):
    """A worker that is told to stop does not wait for a database that may never come back."""

    @contextmanager
    def away():
        raise Unavailable("away")
        yield

    monkeypatch.setattr(runner.database, "connection", away)
    runner.release_all()

    with pytest.raises(Unavailable):
        runner.execute(COMPLETES, "job", "m")


def test_an_end_of_an_attempt_that_never_was_is_fenced(runner, desk, account):
    job = desk.started(account)
    object.__setattr__(job, "attempt", 9)

    with pytest.raises(Fenced), desk.database.batch() as connection:
        attempts.end(connection, job, Ending("completed", []), [])

    assert desk.job(job.id).state == "running"
