"""The router's pass over real queues."""

from decimal import Decimal

import pytest

from models.jobs import workers
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Database
from models.platform.upstreams import Upstream
from models.serving import breakers
from models.serving.moves import MovedTurns
from models.serving.served_models import ModelDescription
from models.serving.state import ServingCache
from pipelines.routing.router import LOCK, Outages, Router
from tests.databases import new_database

GROQ = Upstream("groq", "https://api.groq.test/v1", ("llama",), price_input=Decimal(1), price_output=Decimal(1))
HOME, AWAY = "inference", "upstream.groq"


@pytest.fixture
def routed(postgres, settings):
    """A database, the settings of an installation that spills, and its router."""
    routed_settings = settings.model_copy(update={"upstreams": (GROQ,), "spill_to": "groq", "spill_after": 5.0})
    with new_database(postgres) as database:
        cache = ServingCache(database, lambda: ModelDescription("small"))
        yield Installation(database, Router(routed_settings, database, cache))


class Installation:
    """Queues with workers and turns."""

    def __init__(self, database: Database, router: Router) -> None:
        self.database, self.router = database, router

    def work(self, queue, threads=1, running=0, mean=4.0):
        """Register a worker, with so many running turns."""
        with self.database.connection() as connection:
            workers.register(connection, queue, host="h", pid=1, pools=["p"], threads={queue: threads},
                             mean_seconds={queue: mean})  # fmt: skip
        for _ in range(running):
            self.turn(self.account(), queue=queue, state="running")

    def account(self):
        """Insert an account."""
        with self.database.connection() as connection:
            row = connection.execute(
                "INSERT INTO accounts (id, name) VALUES ('acct_' || gen_random_uuid(), 'a') RETURNING id"
            ).fetchone()
        return row["id"]

    def turn(self, account, **columns):
        """Enqueue a turn, with other values in some columns."""
        job = NewJob("turn.run", account, arguments=columns.pop("arguments", {}))
        with self.database.transaction() as connection:
            enqueue(connection, job)
            for name, value in columns.items():
                connection.execute(f"UPDATE jobs SET {name} = %s WHERE id = %s", (value, job.id))
        return job.id

    def queue_of(self, *job_ids):
        """Return the queues of jobs."""
        with self.database.connection() as connection:
            rows = connection.execute("SELECT id, queue FROM jobs WHERE id = ANY(%s)", (list(job_ids),)).fetchall()
        queues = {row["id"]: row["queue"] for row in rows}
        return [queues[job_id] for job_id in job_ids]

    def age(self, job_id, seconds):
        """Let a turn have waited."""
        with self.database.connection() as connection:
            connection.execute(
                "UPDATE jobs SET run_at = now() - make_interval(secs => %s) WHERE id = %s", (seconds, job_id)
            )


def test_turns_leave_a_flooded_queue_and_only_those_that_may(routed):
    # Given a local worker that is busy, an idle endpoint, and turns of two accounts
    routed.work(HOME, running=1)
    routed.work(AWAY, threads=16)
    mine, other = routed.account(), routed.account()
    turns = [routed.turn(mine) for _ in range(3)]
    local = [routed.turn(other, arguments={"residency": "local"}) for _ in range(3)]

    # When the router passes
    result = routed.router.run_pass()

    # Then all but those that begin within five seconds leave, if they may
    assert result.spilled == 2
    assert result.lanes == {mine}
    assert routed.queue_of(*local) == [HOME] * 3
    assert sorted(routed.queue_of(*turns)) == [HOME, AWAY, AWAY]


def test_a_pass_moves_turns_by_their_rank_in_their_lane(routed):
    # Given a lane with three turns and one with a single later turn
    routed.work(HOME, running=1)
    routed.work(AWAY, threads=16)
    greedy, modest = routed.account(), routed.account()
    first, second, third = (routed.turn(greedy) for _ in range(3))
    single = routed.turn(modest)
    for seconds, job_id in ((4, first), (3, second), (2, third), (0, single)):
        routed.age(job_id, seconds)

    # When one begins in time, and then the waits pass the limit
    routed.router.run_pass()

    # Then the single turn is before the second one of the other lane: it stays
    assert routed.queue_of(first, single, second, third) == [AWAY, HOME, AWAY, AWAY]


def test_nothing_moves_while_all_begin_in_time(routed):
    routed.work(HOME, threads=4)
    routed.work(AWAY)
    job_id = routed.turn(routed.account())

    assert routed.router.run_pass().spilled == 0
    assert routed.queue_of(job_id) == [HOME]


def test_another_router_that_works_is_left_alone(routed):
    routed.work(HOME, running=1)
    routed.work(AWAY)
    routed.age(routed.turn(routed.account()), 60)
    with routed.database.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))

        assert routed.router.run_pass().spilled == 0
    assert routed.router.run_pass().spilled == 1


def test_an_open_breaker_brings_turns_home_and_lets_none_leave(routed):
    # Given turns that wait for an endpoint
    routed.work(HOME, running=1)
    routed.work(AWAY, threads=1, running=1, mean=1.0)
    job_id = routed.turn(routed.account())
    routed.age(job_id, 60)
    assert routed.router.run_pass().spilled == 1

    # When its breaker opens
    with routed.database.connection() as connection:
        breakers.force(connection, "groq", "open")

    # Then they come back, and stay
    result = routed.router.run_pass()
    assert (result.returned, result.spilled) == (1, 0)
    assert routed.queue_of(job_id) == [HOME]


def test_turns_come_back_from_a_saturated_endpoint(routed):
    routed.work(HOME, threads=4)
    routed.work(AWAY, threads=1, running=1, mean=30.0)
    route = {"endpoint": "groq", "home": HOME, "moves": 1, "at": "2026-01-01T00:00:00+00:00", "cost": "1"}
    job_id = routed.turn(routed.account(), queue=AWAY, arguments={"route": route})

    assert routed.router.run_pass().returned == 1
    assert routed.queue_of(job_id) == [HOME]


def test_turns_leave_a_model_without_a_worker_after_the_limit(routed):
    routed.work(AWAY)
    young, old = routed.turn(routed.account()), routed.turn(routed.account())
    routed.age(old, 6)

    routed.router.run_pass()

    assert routed.queue_of(young, old) == [HOME, AWAY]


def test_without_an_endpoint_to_spill_to_a_pass_reads_nothing(settings):
    class NoDatabase:
        def connection(self):
            raise AssertionError("a statement")

    database = NoDatabase()
    router = Router(settings, database, ServingCache(database, lambda: ModelDescription("small")))

    assert router.run_pass().spilled == 0


def test_an_outage_lasts_from_when_it_was_seen():
    from models.serving.state import QueueState

    now = 0.0
    outages = Outages(clock=lambda: now)
    assert outages.seconds("q", QueueState()) == 0
    now = 7.0
    assert outages.seconds("q", QueueState()) == 7
    assert outages.seconds("q", QueueState(threads=1)) == 0
    assert outages.seconds("q", QueueState()) == 0


def test_one_turn_at_a_time_probes_an_endpoint_whose_cooldown_is_over(routed):
    # Given an open breaker whose cooldown is over, and turns that wait too long
    routed.work(HOME, running=1)
    routed.work(AWAY, threads=16)
    with routed.database.connection() as connection:
        breakers.record_failure(connection, "groq", "job_a", "auth")
        connection.execute("UPDATE circuit_breakers SET probe_at = now()")
    turns = [routed.turn(routed.account()) for _ in range(3)]
    for job_id in turns:
        routed.age(job_id, 60)

    # When the router passes several times before a worker claims one
    moved = [routed.router.run_pass() for _ in range(3)]

    # Then one turn has left to probe, and stays there
    assert [(each.spilled, each.returned) for each in moved] == [(1, 0), (0, 0), (0, 0)]
    (probe,) = [job_id for job_id in turns if routed.queue_of(job_id) == [AWAY]]
    with routed.database.connection() as connection:
        assert breakers.read(connection, "groq").probe_job_id == probe


def test_a_probe_that_cannot_leave_is_given_to_another_turn(routed, monkeypatch):
    routed.work(HOME, running=1)
    routed.work(AWAY, threads=16)
    with routed.database.connection() as connection:
        breakers.record_failure(connection, "groq", "job_a", "auth")
        connection.execute("UPDATE circuit_breakers SET probe_at = now()")
    routed.age(routed.turn(routed.account()), 60)
    with monkeypatch.context() as patched:
        patched.setattr(Router, "_move", lambda *_: MovedTurns())  # as where another transaction has locked the turn
        assert routed.router.run_pass().spilled == 0

    assert routed.router.run_pass().spilled == 1
