"""When a call needs an approval, by the policies of servers and agents."""

from datetime import timedelta

import pytest

from models.platform.settings import Settings
from pipelines.agents.approvals import approval_reason, expires_after, policy_of
from pipelines.agents.definitions import Definition
from pipelines.agents.listed_tool import ListedTool
from pipelines.agents.servers import ServerReference

READ, WRITE = ListedTool("read", "", {}, read_only=True), ListedTool("write", "", {})


def asked(policy):
    """Return which of the tools ask."""
    tools = {"read": READ, "write": WRITE}
    return {name for name, tool in tools.items() if approval_reason(policy, tool, "{}", "docs") == "policy"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("always", {"read", "write"}),
        ("never", set()),
        ("not_read_only", {"write"}),
        ({}, {"read", "write"}),
        ({"always": {"tool_names": ["write"]}}, {"write"}),
        ({"never": {"tool_names": ["read"]}}, {"write"}),
        ({"never": {"read_only": True}}, {"write"}),
        ({"never": {"tool_names": ["docs.read"]}}, {"write"}),
        ({"never": {"tool_names": ["crm.read"]}}, {"read", "write"}),
        ({"always": {"tool_names": ["read"]}, "never": {"read_only": True}}, {"read", "write"}),
        ({"always": {}, "never": {}}, {"read", "write"}),
        ({"default": "never", "always": {"read_only": False}}, {"write"}),
        ({"default": "not_read_only"}, {"write"}),
        ({"default": "always", "always": {"tool_names": ["read"]}}, {"read", "write"}),
        ({"above": "1", "costs": {}}, set()),
        (["never", [{"never": {"read_only": True}}, "never"]], {"write"}),
    ],
)
def test_policies(policy, expected):
    assert asked(policy) == expected


@pytest.mark.parametrize(("cost", "reason"), [("0.99", None), ("1.00", None), ("1.000001", "price"), ("20", "price")])
def test_a_call_above_the_price_asks(cost, reason):
    for name in ("write", "docs.write"):
        assert approval_reason({"above": "1.00", "costs": {name: cost}}, WRITE, "{}", "docs") == reason


@pytest.mark.parametrize("arguments", ["", "[]", "null", "{", '"{}"', "{} {}", '{"a": NaN}'])
def test_arguments_that_are_no_json_object_always_ask(arguments):
    assert approval_reason("never", READ, arguments) == "arguments"


def test_a_changed_definition_always_asks():
    assert approval_reason("never", ListedTool("read", "", {}, read_only=True, changed=True), "{}") == "tool_changed"


def server(source, require_approval):
    own = require_approval if source in ("account", "operator") else None
    return ServerReference("docs", source, None, require_approval=require_approval, own_approval=own)


@pytest.mark.parametrize(
    ("source", "of_server", "of_agent", "expected"),
    [
        ("request", "always", None, {"read", "write"}),
        ("request", "always", "never", set()),
        ("platform", "never", "always", {"read", "write"}),
        ("account", "always", "never", {"read", "write"}),
        ("operator", {"never": {"read_only": True}}, "never", {"write"}),
        ("account", "never", "not_read_only", {"write"}),
        ("account", "never", None, set()),
    ],
)
def test_an_agent_asks_for_more_approvals_than_a_registered_server_but_not_for_fewer(
    source, of_server, of_agent, expected
):
    assert asked(policy_of(server(source, of_server), Definition(approval=of_agent))) == expected


def test_delegations_ask_only_if_the_agent_says_so():
    assert asked(policy_of(None, Definition())) == set()
    assert asked(policy_of(None, Definition(approval="always"))) == {"read", "write"}


@pytest.mark.parametrize(
    ("approval", "seconds"),
    [(None, 7_200), ("always", 7_200), ({"expires_after": 60}, 60), ({"expires_after": 86_400}, 7_200)],
)
def test_an_agent_may_shorten_the_time_in_which_an_approval_can_be_given(approval, seconds):
    settings = Settings(approval_hours=2)

    assert expires_after(settings, Definition(approval=approval)) == timedelta(seconds=seconds)
    assert expires_after(settings, None) == timedelta(hours=2)
