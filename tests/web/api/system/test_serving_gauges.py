"""Gauges of models and endpoints: labels of the installation, and values while Postgres is down."""

from decimal import Decimal

import pytest

from models.serving import moves, spill_budget
from models.serving.breakers import Breaker, record_failure
from models.serving.served_models import ModelDescription, ServedModel, ServedModels
from models.serving.spill_budget import SpillDay, list_today
from models.serving.state import QueueState, ServingState
from web.api.system import serving_gauges as gauges
from web.api.system.serving_gauges import Reading
from web.app import build

SMALL = ServedModel("small", ModelDescription("small"), "inference", slots=2)
LARGE = ServedModel("large", ModelDescription("large"), "inference.large")


@pytest.fixture
def state():
    queue = QueueState(threads=2, waiting=4, running=2, mean_seconds=10, published=4, lanes=0)
    return ServingState(ServedModels([SMALL, LARGE], SMALL), {"inference": queue})


def test_models_have_their_turns_slots_and_predicted_wait(state):
    reading = Reading(state)

    assert gauges.predicted_waits(reading) == {("small",): 25}  # of a model without a worker it is unknown
    assert gauges.slots(reading) == {("small",): 2, ("large",): 0}
    assert gauges.turns(reading) == {
        ("small", "queued"): 4, ("small", "running"): 2, ("large", "queued"): 0, ("large", "running"): 0,
    }  # fmt: skip


def test_endpoints_have_the_state_and_the_requests_of_their_breakers():
    breaker = Breaker("groq", "open", "closed", window_requests=10, window_failures=4, saturated_for=3.0)
    reading = Reading(breakers={"groq": breaker})

    assert gauges.breaker_states(reading) == {
        ("groq", "closed"): 1, ("groq", "open"): 0, ("groq", "half_open"): 0,
    }  # fmt: skip
    assert gauges.window_requests(reading) == {("groq", "success"): 6, ("groq", "failure"): 4}
    assert gauges.saturation(reading) == {("groq",): 3}


def test_the_budget_counts_what_is_reserved(settings, monkeypatch):
    days = [SpillDay("groq", 5, Decimal("0.5"), Decimal("1.5"), 100), SpillDay("corp", 1, Decimal(0), Decimal(1), 100)]
    reading = Reading(days=days)
    limits = settings.model_copy(update={"spill_money": Decimal(4), "spill_share": 0.1})
    monkeypatch.setattr(type(limits), "spill_target", property(lambda _: (type("Endpoint", (), {"name": "groq"}), "m")))

    assert gauges.spill_cost(reading)["groq", "reserved"] == 0.5
    assert gauges.spilled_turns(reading) == {("groq",): 5, ("corp",): 1}
    assert gauges.budget_used(limits, reading) == {("groq", "money"): 0.5, ("groq", "share"): 0.5}


def test_without_postgres_there_are_no_values(settings):
    reading = Reading()

    for values in (gauges.predicted_waits, gauges.turns, gauges.slots, gauges.breaker_states, gauges.spill_cost):
        assert values(reading) == {}
    assert gauges.budget_used(settings, reading) == {}


def test_the_day_of_the_budget_is_todays(empty_database):
    with empty_database.connection() as connection:
        connection.execute("DELETE FROM spill_days")
        connection.execute(
            "INSERT INTO spill_days (spill_day, upstream, spilled_turns, spent_cost) VALUES"
            " ((now() AT TIME ZONE 'UTC')::date, 'groq', 2, 0.25), ('2020-01-01', 'groq', 9, 9)"
        )
        assert [(day.endpoint, day.turns, day.spent) for day in list_today(connection)] == [
            ("groq", 2, Decimal("0.25"))
        ]


def test_the_metrics_have_what_the_database_counts(settings, database, serve):
    app = build(settings)
    client = serve(app)
    with database.connection() as connection:
        record_failure(connection, "failing", "job_1", "timeout")
        record_failure(connection, "failing", "job_2", "timeout")
        moves.count_moves(connection, "failing", "queue_full", 3)
        spill_budget.count_ended(connection, {"upstream.failing": 5})

    text = app.state.platform.metrics.render()[0].decode()
    with database.connection() as connection:
        for table, column in (("circuit_breakers", "upstream"), ("endpoint_failures", "failed_upstream"),
                              ("route_moves", "moved_endpoint")):  # fmt: skip
            connection.execute(f"DELETE FROM {table} WHERE {column} = 'failing'")
        connection.execute("DELETE FROM turn_counts WHERE turn_queue = 'upstream.failing'")

    assert client.get("/healthz").status_code == 200
    assert 'sangha_endpoint_failures_total{endpoint="failing",kind="timeout"} 2.0' in text
    assert 'sangha_turn_moves_total{endpoint="failing",reason="queue_full"} 3.0' in text
    assert 'sangha_ended_turns{queue="upstream.failing"} 5.0' in text
    assert 'sangha_endpoint_breaker{endpoint="failing",state="closed"} 1.0' in text
