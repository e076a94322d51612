"""A step of a job counts once when servers, confirmations or notifications are lost."""

import signal
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import redis

from bench.harness.waiting import wait_until
from models.jobs import attempts
from models.jobs.attempt_context import WaitForChildren, plain_ending
from models.jobs.attempts import Ending
from models.jobs.cancellation import cancel
from models.jobs.jobs import NewJob, children
from models.jobs.leases import GIVE_BACK_OF_WORKER
from models.journal import journal
from models.journal.archive import read_archive
from models.platform.database import Database
from models.platform.errors import Fenced, Unavailable
from models.platform.redis_client import connect
from ops.embedded_servers import Valkey, running_server
from tests.tasks.handlers import COMPLETES, completes, event_types, handler, raises


@pytest.mark.parametrize("error", [Unavailable("the engine is down"), redis.ConnectionError("gone")])
def test_job_is_released_without_a_failure_while_a_dependency_is_down(runner, job_store, account, error):
    job_id = job_store.enqueue(account)

    runner.execute(handler(raises(error)), job_id, "m")

    job = job_store.job(job_id)
    assert (job.state, job.failures, job.published_at) == ("scheduled", 0, None)
    assert job_store.claim(job_id) is None  # its run_at is a second from now


def test_job_is_released_while_redis_is_down(runner, job_store, account, tmp_path):
    job_id = job_store.enqueue(account)
    runner.client = connect(f"unix://{tmp_path}/nothing.sock")

    runner.execute(COMPLETES, job_id, "m")

    assert (job_store.job(job_id).state, job_store.job(job_id).failures) == ("scheduled", 0)


@pytest.mark.parametrize("outcome", ["completes", "fails", "waits", "is fenced"])
def test_attempt_is_fenced_after_a_newer_claim(runners, job_store, account, outcome):
    stale, other = runners("stale"), runners("other")
    job_id, started, proceed = job_store.enqueue(account), threading.Event(), threading.Event()

    def run(attempt):
        started.set()
        assert proceed.wait(20)
        if outcome == "completes":
            return completes(attempt)
        if outcome == "waits":
            return WaitForChildren([NewJob("test.child", account)])
        raise ValueError("late") if outcome == "fails" else Fenced("late")

    thread = threading.Thread(target=stale.execute, args=(handler(run), job_id, "m"))
    thread.start()
    assert started.wait(20)
    give_back(job_store, job_id)
    other.execute(COMPLETES, job_id, "m2")
    proceed.set()
    thread.join(20)

    assert not thread.is_alive()
    assert (job_store.job(job_id).state, job_store.job(job_id).result) == ("completed", {"attempt": 2})
    assert event_types(other, job_store, job_id) == ["test.written", "sangha:job.completed"]
    with job_store.database.connection() as connection:
        assert children(connection, job_id) == []


def give_back(job_store, job_id):
    """Put a running job back, as if its worker were silent."""
    job_store.update(job_id, "worker = 'silent'")
    with job_store.database.connection() as connection:
        connection.execute(GIVE_BACK_OF_WORKER, {"workers": ["silent"]})


class UnconfirmingDatabase(Database):
    """A database that loses the confirmations of the next `lost` commits."""

    lost = 0

    @contextmanager
    def _losing(self, transaction):
        with transaction() as connection:
            yield connection
        if self.lost:
            self.lost -= 1
            raise Unavailable("the connection was lost while the commit was on its way back")

    def transaction(self):
        return self._losing(super().transaction)

    def batch(self):
        return self._losing(super().batch)


def test_a_job_whose_claim_postgres_has_lost_is_sent_again_when_its_attempt_ends(runner, job_store, account):
    # Given an attempt during which Postgres crashes and loses the claim
    job_id = job_store.enqueue(account)

    def run(attempt):
        forget = "state = 'queued', attempt = 0, claim_id = NULL, worker = NULL, published_at = now()"
        job_store.update(attempt.job.id, forget)
        return plain_ending(attempt, "completed")

    # When it ends
    runner.execute(handler(run), job_id, "m")

    # Then it has written nothing, and the job gets another message
    job = job_store.job(job_id)
    assert (job.state, job.published_at) == ("queued", None)
    assert job_store.claim(job_id).attempt == 1


@pytest.fixture
def unconfirming(job_store):
    database = UnconfirmingDatabase(job_store.database.dsn)
    yield database
    database.close()


def test_ending_whose_confirmation_is_lost_is_recorded_once(runners, unconfirming, job_store, account):
    runner = runners("worker", unconfirming)
    job_id, recorded = job_store.enqueue(account), []

    def run(attempt):
        unconfirming.lost = 1
        return replace(completes(attempt), record=lambda connection: recorded.append(job_store.enqueue(account)))

    runner.execute(handler(run), job_id, "m")

    assert job_store.job(job_id).state == "completed"
    assert len(recorded) == 1  # the repeated transaction was rejected before its record
    assert event_types(runner, job_store, job_id) == ["test.written", "sangha:job.completed"]
    assert journal.read_events(runner.client, job_id)[-1].ends


def test_claim_whose_confirmation_is_lost_is_repeated_at_once(runner, job_store, account, monkeypatch):
    job_id, claim, lost = job_store.enqueue(account), attempts.claim, []

    def unconfirmed(*arguments, **options):
        claimed = claim(*arguments, **options)
        if not lost:
            lost.append(claimed)
            raise Unavailable("the connection was lost while the commit was on its way back")
        return claimed

    monkeypatch.setattr(attempts, "claim", unconfirmed)
    runner.execute(COMPLETES, job_id, "m")

    job = job_store.job(job_id)
    assert (job.state, job.attempt, job.failures) == ("completed", 2, 0)


def test_redelivery_to_the_worker_that_runs_the_job_is_dropped(runner, job_store, account):
    job_id = job_store.enqueue(account)

    def run(attempt):
        runner.execute(handler(raises(AssertionError("it ran twice"))), job_id, "m")
        return completes(attempt)

    runner.execute(handler(run), job_id, "m")

    assert (job_store.job(job_id).state, job_store.job(job_id).attempt) == ("completed", 1)


def test_cancellation_between_claim_and_start_stops_the_attempt(runner, job_store, account, monkeypatch):
    job_id, claim = job_store.enqueue(account), attempts.claim

    def claim_then_cancel(*arguments, **options):
        claimed = claim(*arguments, **options)
        with job_store.database.transaction() as connection:
            cancel(connection, job_id, account)
        runner.cancel(job_id)
        return claimed

    def run(attempt):
        attempt.check()
        return completes(attempt)

    monkeypatch.setattr(attempts, "claim", claim_then_cancel)
    runner.execute(handler(run), job_id, "m")

    assert job_store.job(job_id).state == "cancelled"


@pytest.mark.parametrize("outcome", ["fails", "waits", "is released"])
def test_retry_wait_and_release_count_once_without_confirmation(runners, unconfirming, job_store, account, outcome):
    runner = runners("worker", unconfirming)
    job_id = job_store.enqueue(account)

    def run(attempt):
        attempt.journal.write("test.written", {})
        unconfirming.lost = 1
        if outcome == "waits":
            return WaitForChildren([NewJob("test.child", account)])
        raise ValueError if outcome == "fails" else Unavailable("down")

    runner.execute(handler(run), job_id, "m")

    job = job_store.job(job_id)
    assert (job.state, job.failures) == ("waiting" if outcome == "waits" else "scheduled", outcome == "fails")
    assert job.pending_children == (outcome == "waits")
    assert event_types(runner, job_store, job_id) == ["test.written"]


def test_journal_is_complete_after_redis_is_killed_and_emptied(runners, job_store, account, tmp_path):
    """After a kill -9 and a start without data, Redis and the archive have every event."""
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    with running_server(Valkey(tmp_path / "valkey", tmp_path), tmp_path / "run", tmp_path / "logs") as server:
        runner = runners()
        runner.client = runner.writer._client = connect(server.service.url)
        job_id = job_store.enqueue(account)

        def run(attempt):
            for n in range(20):
                attempt.journal.write_text("test.delta", {}, f"w{n} ", 1)
            runner.writer.drain()
            server.signal(signal.SIGKILL)
            wait_until(lambda: not server.running)
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
        with job_store.database.connection() as connection:
            archived = read_archive(connection, job_id)
        assert [event.data for event in recent] == [event.data for event in archived.events]
        assert archived.tokens == 40
        runner.client.close()


def test_evicted_journal_is_written_again_with_its_ending(runner, job_store, account):
    """Open streams then receive it at once."""
    job_id = job_store.enqueue(account)

    def run(attempt):
        attempt.journal.write("test.written", {})
        runner.writer.drain()

        def record(connection):
            journal.delete(runner.client, job_id)

        return replace(plain_ending(attempt, "completed"), record=record)

    runner.execute(handler(run), job_id, "m")
    runner.writer.drain()

    assert [event.sequence for event in journal.read_events(runner.client, job_id)] == [0, 1]


def test_stopping_worker_does_not_wait_for_postgres(runner, monkeypatch):
    """The database may never come back."""

    @contextmanager
    def unavailable():
        raise Unavailable("down")
        yield

    monkeypatch.setattr(runner.database, "connection", unavailable)
    runner.release_all()

    with pytest.raises(Unavailable):
        runner.execute(COMPLETES, "job", "m")


def test_ending_of_an_unknown_attempt_is_fenced(runner, job_store, account):
    job = job_store.start(account)
    object.__setattr__(job, "attempt", 9)

    with pytest.raises(Fenced), job_store.database.batch() as connection:
        attempts.end(connection, job, Ending("completed", []), [])

    assert job_store.job(job.id).state == "running"
