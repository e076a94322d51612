"""Turns that may not leave the operator's network cannot be talked into leaving it."""

from dataclasses import replace

import pytest

from models.accounts.accounts import Caller, Role
from models.accounts.audit import RequestOrigin
from models.accounts.residency import set_residency, strictest
from models.jobs.jobs import Job
from models.platform.errors import Moved, NotAllowed, PermanentFailure
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.routing.residency import argument, change_account, check_dispatch, check_model, leaves_network

HOSTED, INSIDE = Upstream("groq", "https://api.example.com/v1", ("m",)), Upstream("corp", "http://vllm:8000/v1", ("m",))
SETTINGS = Settings(engine="scripted", upstreams=(HOSTED, INSIDE))
REMOTE_ENGINE = Settings(engine="openai", upstreams=(HOSTED,))
HOME = {"endpoint": "groq", "model": "m", "home": "inference", "moves": 1, "reason": "queue_full"}


def job(account, queue="upstream.groq", **arguments):
    values = dict.fromkeys(Job.__dataclass_fields__)
    return Job(**values | {"id": "job_r", "account_id": account, "queue": queue, "arguments": arguments})


def dispatch(database, a_job, settings=SETTINGS, **options):
    with database.connection() as connection:
        check_dispatch(settings, connection, a_job, **options)


def change(database, account, residency):
    with database.connection() as connection:
        set_residency(connection, account, residency)


@pytest.mark.parametrize(("residencies", "result"), [
    (["any", "local"], "local"), ([None, "local"], "local"), ([None, "any"], "any"), ([None, None], None),
])  # fmt: skip
def test_the_strictest_residency_counts(residencies, result):
    assert strictest(*residencies) == result
    assert argument(*residencies) == ({"residency": "local"} if result == "local" else {})


@pytest.mark.parametrize(("queue", "leaves"), [
    ("inference", False), ("inference.other", False), ("upstream.corp", False), ("upstream.groq", True),
    ("upstream.groq_batch", True), ("upstream.unknown", True),
])  # fmt: skip
def test_only_hosts_outside_leave_the_network(queue, leaves):
    assert leaves_network(SETTINGS, queue) is leaves


def test_a_request_for_a_model_of_another_host_is_rejected_if_it_may_not_leave():
    with pytest.raises(NotAllowed) as raised:
        check_model("local", is_local_model=False)
    assert raised.value.code == "residency"
    check_model("any", is_local_model=False)
    check_model("local", is_local_model=True)


def test_a_turn_that_may_leave_is_sent(database, account):
    dispatch(database, job(account, route=HOME))


@pytest.mark.parametrize(("arguments", "options", "stays"), [
    ({"residency": "local"}, {}, True), ({}, {"agent": "local"}, True), ({}, {}, None),
])  # fmt: skip
def test_a_turn_that_may_not_leave_goes_home(database, account, arguments, options, stays):
    # Given a turn in the queue of an endpoint whose account became local meanwhile, or that is local itself
    if stays is None:
        change(database, account, "local")

    with pytest.raises(Moved) as moved:
        dispatch(database, job(account, route=HOME, **arguments), **options)

    # Then it goes home; for good, if nothing can change that later
    assert (moved.value.queue, moved.value.route["reason"]) == ("inference", "residency")
    assert moved.value.route.get("stays") is stays


def test_a_turn_without_a_home_fails(database, account):
    with pytest.raises(PermanentFailure) as raised:
        dispatch(database, job(account, residency="local"))

    assert raised.value.code == "residency"


def test_the_settings_decide_for_accounts_that_say_nothing(database, account):
    strict = SETTINGS.model_copy(update={"residency": "local"})

    with pytest.raises(PermanentFailure):
        dispatch(database, job(account), strict)
    change(database, account, "any")
    dispatch(database, job(account), strict)


def test_the_engine_of_another_host_gets_no_turn_that_may_not_leave(database, account):
    with pytest.raises(PermanentFailure):
        dispatch(database, job(account, "inference", residency="local"), REMOTE_ENGINE)
    dispatch(database, job(account, "inference"), REMOTE_ENGINE)


def test_a_turn_that_has_returned_to_the_engine_of_another_host_fails(database, account):
    """It has no other queue to return to."""
    returned = job(account, "inference", residency="local", route={**HOME, "endpoint": None, "moves": 2})
    with pytest.raises(PermanentFailure) as raised:
        dispatch(database, returned, REMOTE_ENGINE)
    assert raised.value.code == "residency"


def test_a_local_engine_may_have_every_turn(database, account):
    change(database, account, "local")

    dispatch(database, job(account, "inference", residency="local"))
    dispatch(database, job(account, "upstream.corp", residency="local"))


def test_a_turn_of_an_erased_account_is_not_sent(database):
    with pytest.raises(PermanentFailure):
        dispatch(database, job("acct_of_nobody"))


def test_changing_an_account_brings_its_waiting_turns_home_and_is_recorded(job_store, database, account):
    # Given a turn that waits for an endpoint, and one of another account
    mine = job_store.enqueue(account, kind="turn.run", arguments={"route": HOME})
    other = job_store.enqueue(job_store.create_account(), kind="turn.run", arguments={"route": HOME})
    for job_id in (mine, other):
        job_store.update(job_id, "queue = 'upstream.groq'")

    # When an admin lets no turn leave
    caller = Caller("user_a", account, Role.ADMIN)
    lanes = change_account(SETTINGS, database, replace(caller), "local", RequestOrigin())

    # Then the account's turn is at home, and the change is in the audit log
    assert lanes == {account}
    assert [job_store.job(job_id).queue for job_id in (mine, other)] == ["inference", "upstream.groq"]
    with database.connection() as connection:
        row = connection.execute(
            "SELECT action, details FROM audit_events WHERE account_id = %s", (account,)
        ).fetchone()
    assert (row["action"], row["details"]) == ("account.residency_changed", {"residency": "local", "was": None})
    for job_id in (mine, other):  # other tests count the waiting jobs of this database
        job_store.update(job_id, "state = 'cancelled', finished_at = now()")
