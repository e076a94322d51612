"""A turn uses the memories of the end user whom it names; without a name a key with `memory: named` has none."""

import pytest

from models.accounts.accounts import Caller, Role
from models.platform.errors import InvalidRequest
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.turn_space import with_space

OWNERS, NAMED = (Caller("user_1", "acct_1", Role.OWNER, key_id="key_1", memory=memory) for memory in ("owner", "named"))
SESSION = Caller("user_1", "acct_1", Role.OWNER, session_id="sess_1")

NO_MEMORY = {"recall": False, "remember": False}


def resolve(caller, named_spaces=True, **request):
    turn = with_space(NewTurn(request, []), caller, named_spaces=named_spaces)
    return turn.space, turn.request.get("memory")


@pytest.mark.parametrize("caller", [SESSION, OWNERS, NAMED])
@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({"user": "u"}, "u"),
        ({"user": "u", "safety_identifier": "s"}, "s"),
        ({"user": "u", "safety_identifier": "s", "memory": {"space": "m"}}, "m"),
        ({"user": "u", "safety_identifier": "", "memory": {"limit": 3}}, "u"),
        ({"user": "u", "safety_identifier": " ", "memory": None}, "u"),
    ],
)
def test_the_most_specific_name_names_the_space(caller, request_, name):
    assert resolve(caller, **request_) == (name, request_.get("memory"))


@pytest.mark.parametrize("caller", [SESSION, OWNERS])
@pytest.mark.parametrize("request_", [{}, {"user": ""}, {"memory": {"recall": True, "limit": 3}}])
def test_a_person_and_a_key_of_their_own_have_their_memories_without_a_name(caller, request_):
    assert resolve(caller, **request_) == ("", request_.get("memory"))


@pytest.mark.parametrize("request_", [{}, {"user": " "}, {"memory": {"limit": 3}}, {"memory": {"recall": False}}])
def test_another_key_has_no_memory_without_a_name(request_):
    assert resolve(NAMED, **request_) == ("", {**(request_.get("memory") or {}), **NO_MEMORY})


@pytest.mark.parametrize("option", ["recall", "remember"])
def test_another_key_must_name_whose_memory_it_asks_for(option):
    with pytest.raises(InvalidRequest) as raised:
        resolve(NAMED, memory={option: True})

    assert (raised.value.param, raised.value.code) == (f"memory.{option}", "space_required")


@pytest.mark.parametrize("caller", [SESSION, OWNERS, NAMED])
def test_named_turns_have_no_memory_while_an_earlier_version_may_run(caller):
    # It would recall the user's own memories in the turns of all end users.
    assert resolve(caller, named_spaces=False, user="u", memory={"recall": True}) == ("", NO_MEMORY)
