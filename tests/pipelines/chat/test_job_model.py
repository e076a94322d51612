"""A job names the model that its request has named; any other one runs with the default model of the time."""

from dataclasses import replace

import pytest

from models.serving.served_models import ModelDescription, ServedModel, ServedModels
from pipelines.agents.agent_turns import resolve_agent, served_by
from pipelines.chat.job_model import argument

TARGET = ServedModel("small", ModelDescription("small"), "inference")
UNNAMED, NAMED = {"model": "small", "any_model": True}, {"model": "small"}


@pytest.mark.parametrize(
    ("target", "request_", "expected"),
    [
        (TARGET, NAMED, {"model": "small"}),
        (TARGET, UNNAMED, {"model": None}),
        (replace(TARGET, queue="upstream.cloud"), UNNAMED, {"model": "small"}),
        (None, NAMED, {}),
    ],
)
def test_a_turn_names_its_model_unless_it_is_for_the_default_one(target, request_, expected):
    assert argument(target, request_) == expected


@pytest.mark.parametrize("former", ["small", "forgotten"])
def test_a_request_without_a_model_gets_the_default_one_of_the_time_of_its_turn(former):
    # Given a request that was read when another model was the default
    request = {"model": former, "any_model": True}
    large = ServedModel("large", ModelDescription("large"), "inference")
    models = ServedModels([replace(TARGET, queue="inference.small"), large], large)
    # When its turn is prepared
    resolved, _ = resolve_agent(None, "acct", request, models)
    # Then the present default model answers
    assert (resolved["model"], served_by(models, resolved)) == ("large", large)
    assert argument(served_by(models, resolved), resolved) == {"model": None}
