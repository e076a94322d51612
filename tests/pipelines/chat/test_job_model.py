"""A job names the model that its request has named; any other one runs with the default model of the time."""

from dataclasses import replace

import pytest

from models.serving.served_models import ModelDescription, ServedModel
from pipelines.agents.definitions import Definition
from pipelines.chat.job_model import argument

TARGET = ServedModel("small", ModelDescription("small"), "inference")
UNNAMED, NAMED = {"model": "small", "any_model": True}, {"model": "small"}
AGENT = Definition()


@pytest.mark.parametrize(
    ("target", "request_", "definition", "expected"),
    [
        (TARGET, NAMED, None, {"model": "small"}),
        (TARGET, UNNAMED, None, {"model": None}),
        (TARGET, UNNAMED, AGENT, {"model": None}),
        (TARGET, UNNAMED, replace(AGENT, model="small"), {"model": "small"}),
        (replace(TARGET, queue="upstream.cloud"), UNNAMED, None, {"model": "small"}),
        (None, NAMED, None, {}),
        (None, UNNAMED, None, {"model": None}),
    ],
)
def test_a_turn_names_its_model_unless_it_is_for_the_default_one(target, request_, definition, expected):
    assert argument(target, request_, definition) == expected
