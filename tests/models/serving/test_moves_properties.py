"""Whatever order moves, claims, ends and cancels come in, a turn is in one queue, and the budget adds up."""

from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from models.jobs.attempts import Ending, claim, end
from models.jobs.cancellation import cancel
from models.serving import moves
from models.serving.moves import MAX_MOVES, Candidate, Target

HOME, AWAY = "inference", "upstream.groq"
TARGET = Target("groq", "llama", price_input=Decimal(1), price_output=Decimal(1), money=Decimal(2))
TURNS = 4

steps = st.lists(
    st.tuples(
        st.sampled_from(["spill", "return", "claim_home", "claim_away", "end", "cancel", "release", "localize"]),
        st.integers(0, TURNS - 1),
    ),
    max_size=25,
)

RESERVED = """
SELECT coalesce(sum((arguments -> 'route' ->> 'cost')::numeric), 0) AS cost FROM jobs WHERE finished_at IS NULL
"""


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_a_turn_is_in_one_queue_and_the_budget_adds_up(empty_job_store, steps):
    store = empty_job_store
    with store.database.transaction() as connection:
        for table in ("jobs", "spill_days", "route_moves"):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
    account, other = store.create_account(), store.create_account()
    owners = [account, account, account, other]
    turns = [store.enqueue(owner, kind="turn.run", arguments={"n": n}) for n, owner in enumerate(owners)]

    ends = dict.fromkeys(turns, 0)
    local = False
    for step, number in steps:
        job_id = turns[number]
        with store.database.transaction() as connection:
            before = store.job(job_id)
            moved = _do(connection, step, before, other)
        local = local or step == "localize"
        after = store.job(job_id)
        ends[job_id] += after.ended and not before.ended
        assert not (moved and local and owners[number] == other and step == "spill")
        _check(store, turns)
    assert all(count <= 1 for count in ends.values())


def _do(connection, step, job, other):
    """Do a step with a job. Returns whether it was moved."""
    match step:
        case "spill":
            turn = [Candidate(job.id, Decimal("0.7"))]
            return moves.spill(connection, HOME, TARGET, turn, "queue_full", unfinished=0).job_ids
        case "return":
            return moves.return_home(connection, "groq", "endpoint_saturated", job_ids=[job.id]).job_ids
        case "claim_home" | "claim_away":
            queue = HOME if step == "claim_home" else AWAY
            claimed = claim(connection, job.id, message_id="m", worker="w", queue=queue)
            assert claimed is None or job.queue == queue
        case "end" if job.state == "running":
            end(connection, job, Ending("completed", [], tokens=1000, input_tokens=600), [])
        case "cancel":
            cancel(connection, job.id, job.account_id)
        case "release" if job.state == "running":
            connection.execute("UPDATE jobs SET state = 'queued', published_at = NULL WHERE id = %s", (job.id,))
        case "localize":
            connection.execute("UPDATE accounts SET account_residency = 'local' WHERE id = %s", (other,))
            moves.return_home(connection, "groq", "residency", account_id=other)
    return ()


def _check(store, turns):
    with store.database.connection() as connection:
        day = connection.execute("SELECT reserved_cost, spent_cost FROM spill_days").fetchone()
        reserved = connection.execute(RESERVED).fetchone()["cost"]
    jobs = [store.job(job_id) for job_id in turns]
    assert all(job.queue in (HOME, AWAY) for job in jobs)
    assert all((job.arguments.get("route") or {}).get("moves", 0) <= MAX_MOVES for job in jobs)
    assert (day["reserved_cost"] if day else 0) == reserved
    assert day is None or day["reserved_cost"] + day["spent_cost"] <= TARGET.money
