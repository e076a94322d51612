"""Turns of an agent that may not leave the installation."""

import pytest

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.agents import server_tools
from pipelines.agents.definitions import Definition

REMOTE = Settings(engine="openai", upstreams=(Upstream("x", "https://api.example.com/v1", ("model",)),))


def test_the_turn_of_a_local_agent_is_refused_where_another_host_serves_the_model():
    with pytest.raises(PermanentFailure) as raised:
        server_tools._check_residency(REMOTE, Definition(residency="local"))

    assert raised.value.code == "residency"


@pytest.mark.parametrize(("settings", "definition"), [
    (REMOTE, Definition()), (REMOTE, None), (Settings(engine="scripted"), Definition(residency="local")),
])  # fmt: skip
def test_other_turns_are_not_refused(settings, definition):
    server_tools._check_residency(settings, definition)
