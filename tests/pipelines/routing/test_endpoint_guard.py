"""Turns of endpoints: which may ask, what is reported, and how they go on after a failure."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest

from models.jobs import attempts
from models.jobs.jobs import Job
from models.platform.errors import Moved, PermanentFailure, Released, Unavailable
from models.serving.endpoint_results import Admission
from pipelines.inference.engine import EngineError, Finish, Token
from pipelines.routing import endpoint_guard
from pipelines.routing.endpoint_guard import PROBES_LATER, SATURATED_DELAY, run_guarded, unserved

NOW = datetime.now(UTC)
ROUTE = {"endpoint": "groq", "model": "m", "home": "inference", "reason": "queue_full", "moves": 1, "cost": "0.1"}
DONE = [Token("a", 1), Finish("stop", 3, 0, 1)]


def failure(kind, error=EngineError, retry_after=None):
    raised = error("it failed")
    raised.kind, raised.retry_after = kind, retry_after
    return raised


def job(route=ROUTE, queue="upstream.groq"):
    arguments = {"route": route} if route else {}
    names = Job.__dataclass_fields__
    values = dict.fromkeys(names) | {"id": "job_a", "queue": queue, "arguments": arguments, "created_at": NOW}
    return Job(**values)


class Results:
    """Records what is reported."""

    def __init__(self, admission=None):
        self.admission = admission or Admission(True)
        self.reports = []

    def admit(self, upstream, job_id):
        return self.admission

    def succeeded(self, upstream, job_id, *, is_probe):
        self.reports.append(("succeeded", is_probe))

    def failed(self, upstream, job_id, kind, *, retry_after):
        self.reports.append(("failed", kind, retry_after))

    def withdraw(self, upstream, job_id):
        self.reports.append(("withdrawn",))


class FakeEngine:
    """Yields outputs, the last of which may be an error."""

    name, endpoint, slots, context = "m", "groq", 4, 4096
    reasons = continues = counts_exactly = False

    def __init__(self, outputs):
        self.outputs = outputs

    def count(self, prompt, output_format):
        return 7

    def generate(self, prompt, **options):
        for output in self.outputs:
            if isinstance(output, Exception):
                raise output
            yield output


def run(results, outputs, a_job=None, pipeline=lambda engine: list(engine.generate([]))):
    return run_guarded(results, FakeEngine(outputs), SimpleNamespace(job=a_job or job()), pipeline)


def test_answer_is_reported():
    results = Results(Admission(True, is_probe=True))

    assert run(results, DONE) == DONE

    assert results.reports == [("succeeded", True)]


def test_cancelled_answer_says_nothing_about_the_endpoint():
    results = Results(Admission(True, is_probe=True))

    run(results, [Finish("cancelled", 3, 0, 0)])

    assert results.reports == [("withdrawn",)]


def test_probe_that_does_not_ask_the_endpoint_is_withdrawn():
    results = Results(Admission(True, is_probe=True))

    run(results, DONE, pipeline=lambda engine: "waits for children")

    assert results.reports == [("withdrawn",)]


@pytest.mark.parametrize("kind", ["overloaded", "timeout", "refused", "dropped", "invalid_response"])
def test_turn_with_a_home_returns_there_at_once_when_the_endpoint_fails(kind):
    results = Results()

    with pytest.raises(Moved) as moved:
        run(results, [Token("a", 1), failure(kind)])

    assert results.reports == [("failed", kind, None)]
    assert (moved.value.queue, moved.value.delay) == ("inference", 0)
    route = moved.value.route
    assert (route["endpoint"], route["reason"], route["moves"]) == (None, "endpoint_failed", 2)


def test_turn_without_a_home_is_tried_again():
    with pytest.raises(EngineError):
        run(Results(), [failure("overloaded")], job(route=None))


def test_turn_without_a_home_waits_as_long_as_a_429_says_and_counts_no_failure():
    with pytest.raises(Released) as released:
        run(Results(), [failure("rate_limited", retry_after=7)], job(route=None))
    assert released.value.delay == 7

    with pytest.raises(Released) as released:
        run(Results(), [failure("rate_limited")], job(route=None))
    assert released.value.delay == SATURATED_DELAY


def test_turn_with_a_home_returns_there_after_a_429():
    results = Results()

    with pytest.raises(Moved) as moved:
        run(results, [failure("rate_limited", retry_after=7)])

    assert results.reports == [("failed", "rate_limited", 7)]
    assert moved.value.route["reason"] == "endpoint_saturated"


def test_turn_that_the_endpoint_rejects_stays_at_home():
    with pytest.raises(Moved) as moved:
        run(Results(), [failure("bad_request", PermanentFailure)])

    assert moved.value.route["stays"]


def test_turn_that_does_not_fit_the_endpoint_returns_to_its_home():
    def pipeline(engine):
        raise PermanentFailure("too long", code="context_length_exceeded")

    with pytest.raises(Moved):
        run(Results(), DONE, pipeline=pipeline)


def test_failure_that_is_not_the_endpoints_is_raised():
    def pipeline(engine):
        raise PermanentFailure("another reason")

    results = Results()
    with pytest.raises(PermanentFailure, match="another reason"):
        run(results, DONE, pipeline=pipeline)
    assert results.reports == []


def test_refused_turn_returns_to_its_home_without_a_request():
    results = Results(Admission(False, reason="breaker_open", retry_after=5))

    with pytest.raises(Moved) as moved:
        run(results, [AssertionError("it was asked")])

    assert moved.value.route["reason"] == "breaker_open"


def test_turn_of_a_model_that_the_endpoint_has_no_more_returns_for_good():
    gone = PermanentFailure("no model 'm'", code="model_not_found")

    moved = unserved(job(), gone)

    assert (moved.queue, moved.route["stays"]) == ("inference", True)
    assert unserved(job(route=None), gone) is gone


def test_refused_turn_without_a_home_waits_and_a_background_turn_is_first():
    results = Results(Admission(False, reason="breaker_open", retry_after=5))

    with pytest.raises(Released) as interactive:
        run(results, DONE, job(route=None))
    with pytest.raises(Released) as background:
        run(results, DONE, job(route=None, queue="upstream.groq_batch"))

    assert (interactive.value.delay, background.value.delay) == (5 + PROBES_LATER, 5)


def test_answer_is_kept_when_its_report_cannot_be_written(monkeypatch):
    results = Results()
    monkeypatch.setattr(results, "succeeded", lambda *_, **__: (_ for _ in ()).throw(Unavailable("no database")))

    assert run(results, DONE) == DONE


def test_moves_do_not_change_the_job():
    a_job = job()

    with pytest.raises(Moved):
        run(Results(), [failure("overloaded")], a_job)

    assert a_job == replace(a_job, arguments={"route": ROUTE})


def test_what_a_failed_answer_has_cost_is_settled_in_the_transaction_of_the_move(job_store, account):
    # Given a turn for which 0.10 of a day's budget were reserved
    route = {**ROUTE, "cost": "0.10", "at": NOW.isoformat(), "price_input": "1000", "price_output": "10000"}
    started = job_store.start(account, arguments={"route": route})
    with job_store.database.transaction() as connection:
        connection.execute("DELETE FROM spill_days")
        connection.execute(
            "INSERT INTO spill_days (spill_day, upstream, spilled_turns, reserved_cost)"
            " VALUES ((now() AT TIME ZONE 'UTC')::date, 'groq', 1, 0.10)"
        )

    # When the endpoint fails after it has read seven tokens and generated one
    with pytest.raises(Moved) as moved:
        run(Results(), [Token("a", 1), failure("dropped")], started)
    with job_store.database.transaction() as connection:
        attempts.move(connection, started, moved.value)
        day = connection.execute("SELECT spilled_turns, reserved_cost, spent_cost FROM spill_days").fetchone()

    # Then the budget has these, and the turn nothing more to settle
    assert day == {"spilled_turns": 1, "reserved_cost": 0, "spent_cost": Decimal("0.017")}
    assert "cost" not in job_store.job(started.id).arguments["route"]


def test_refused_request_costs_nothing(job_store, account):
    route = {**ROUTE, "cost": "0.10", "at": NOW.isoformat(), "price_input": "1000", "price_output": "10000"}
    started = job_store.start(account, arguments={"route": route})
    refused = failure("refused")
    refused.accepted = False

    with pytest.raises(Moved) as moved:
        run(Results(), [refused], started)
    with job_store.database.transaction() as connection:
        attempts.move(connection, started, moved.value)

    assert job_store.job(started.id).arguments["route"]["spent"] == "0"


@pytest.fixture
def two_endpoints(database, monkeypatch):
    """An attempt of a job without a home at `groq`, whose model `corp` serves, too."""
    monkeypatch.setattr(endpoint_guard, "other_endpoint", lambda _, endpoint, model: "corp")
    return lambda **arguments: SimpleNamespace(
        job=replace(job(route=None), arguments={"model": "m", **arguments}), database=database
    )


def guarded(attempt, outputs, results=None):
    return run_guarded(results or Results(), FakeEngine(outputs), attempt, lambda engine: list(engine.generate([])))


@pytest.mark.parametrize(
    ("kind", "reason"), [("overloaded", "endpoint_failed"), ("rate_limited", "endpoint_saturated")]
)
def test_turn_without_a_home_goes_to_another_endpoint_with_its_model(two_endpoints, kind, reason):
    with pytest.raises(Moved) as moved:
        guarded(two_endpoints(), [failure(kind)])

    assert moved.value.queue == "upstream.corp"
    route = moved.value.route
    assert (route["endpoint"], route["model"], route["reason"], route["moves"]) == ("corp", "m", reason, 1)


def test_refused_turn_without_a_home_goes_to_another_endpoint(two_endpoints):
    with pytest.raises(Moved) as moved:
        guarded(two_endpoints(), DONE, Results(Admission(False, reason="breaker_open", retry_after=5)))

    assert moved.value.queue == "upstream.corp"


def test_turn_whose_request_names_the_endpoint_stays_with_it(two_endpoints):
    with pytest.raises(EngineError):
        guarded(two_endpoints(model="groq/m"), [failure("overloaded")])


def test_turn_that_was_moved_often_stays(two_endpoints):
    with pytest.raises(EngineError):
        guarded(two_endpoints(route={"endpoint": "groq", "model": "m", "moves": 4}), [failure("overloaded")])


def test_turn_that_the_endpoint_rejects_is_not_sent_to_another_one(two_endpoints):
    with pytest.raises(PermanentFailure):
        guarded(two_endpoints(), [failure("bad_request", PermanentFailure)])
