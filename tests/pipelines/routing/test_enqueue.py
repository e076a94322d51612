"""What a web process decides about new turns, without a statement."""

from decimal import Decimal

import pytest

from models.jobs.jobs import NewJob
from models.platform.errors import NotAllowed
from models.platform.upstreams import Upstream
from models.serving.served_models import ModelDescription, ServedModel, ServedModels
from models.serving.state import QueueState, ServingState
from pipelines.routing.enqueue import NewTurnRouting
from pipelines.routing.router import cost_of, target_of

GROQ = Upstream("groq", "https://api.example.com/v1", ("big",), price_input=Decimal(2), price_output=Decimal(4))
SMALL = ServedModel("small", ModelDescription("small"), "inference", 1)
BIG = ServedModel("big", ModelDescription("big", endpoint="groq", is_local=False), "upstream.groq", 16)
FULL = QueueState(threads=1, running=1, waiting=20, published=20, mean_seconds=2.0)
IDLE = QueueState(threads=16, mean_seconds=1.0)


class Cache:
    """A serving state that is known."""

    def __init__(self, home, away=IDLE):
        queues = {"inference": home, "upstream.groq": away}
        self._state = ServingState(ServedModels([SMALL, BIG], SMALL), queues)
        self.ready = True

    def is_ready(self):
        return self.ready

    def state(self):
        return self._state


@pytest.fixture
def routed(settings):
    return settings.model_copy(update={"upstreams": (GROQ,), "spill_to": "groq"})


def turn(**options):
    arguments = options.pop("arguments", {})
    return NewJob("turn.run", "acct", arguments=arguments, **options)


def test_a_turn_leaves_at_once_when_those_that_are_published_keep_all_slots_busy_for_too_long(routed):
    plan = NewTurnRouting(routed, Cache(FULL)).plan(turn(id="job_a", arguments={"most_tokens": [1000, 500]}))

    assert (plan.home, plan.reason, plan.turn.job_id) == ("inference", "queue_full", "job_a")
    assert plan.turn.cost == Decimal("0.004")


def test_the_backlog_of_another_lane_does_not_send_a_turn_away(routed):
    backlog = QueueState(threads=1, running=1, waiting=500, published=1, lanes=1, mean_seconds=2.0)

    assert NewTurnRouting(routed, Cache(backlog)).plan(turn()) is None


@pytest.mark.parametrize("job", [turn(batch=True), turn(arguments={"residency": "local"}),
                                 turn(queue="upstream.groq")])  # fmt: skip
def test_these_turns_stay_where_they_are(routed, job):
    assert NewTurnRouting(routed, Cache(FULL)).plan(job) is None


def test_a_turn_stays_where_the_endpoint_is_busy_or_has_no_worker(routed):
    for away in (QueueState(), QueueState(threads=1, running=1, waiting=90, published=90, mean_seconds=2.0)):
        assert NewTurnRouting(routed, Cache(FULL, away)).plan(turn()) is None


def test_nothing_leaves_without_an_endpoint_or_before_the_state_is_known(settings, routed):
    unknown = Cache(FULL)
    unknown.ready = False

    assert NewTurnRouting(settings, Cache(FULL)).plan(turn()) is None
    assert NewTurnRouting(routed, unknown).plan(turn()) is None


def test_a_model_of_another_host_is_refused_to_turns_that_may_not_leave(routed):
    routing = NewTurnRouting(routed, Cache(IDLE))

    with pytest.raises(NotAllowed) as raised:
        routing.check_model("local", None, "big")
    assert raised.value.code == "residency"
    routing.check_model("local", None, "small")
    routing.check_model("any", None, "big")


def test_a_request_cannot_allow_what_the_installation_does_not(settings, routed):
    # Given an installation whose turns stay unless their account says otherwise
    routing = NewTurnRouting(routed.model_copy(update={"residency": "local"}), Cache(IDLE))

    # When a request allows its turn to leave, then the account decides
    with pytest.raises(NotAllowed):
        routing.check_model("any", None, "big")
    routing.check_model("any", "any", "big")


def test_the_cost_of_a_turn_without_a_known_size_is_that_of_a_full_context(routed):
    target = target_of(routed)

    assert cost_of(target, 1_000_000, None) == 4
    assert cost_of(target, 1_000_000, (500_000, 250_000)) == 2
