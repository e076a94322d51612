"""The request of a turn with what its agent adds."""

from decimal import Decimal

import pytest

from pipelines.agents.definitions import AgentLimits, Definition, SubAgent, apply, parse

REQUEST = {"model": "agent/helper", "instructions": None}

SHOP = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example/mcp"}


def function(name, description=""):
    return {"type": "function", "name": name, "description": description}


def test_a_stored_definition_is_parsed_and_unknown_keys_are_ignored():
    stored = {
        "instructions": "Be brief.", "agents": [{"name": "b", "handoff": True}], "limits": {"money": "0.5", "steps": 3},
        "memory": None, "later": 1,
    }  # fmt: skip

    parsed = parse(stored)

    assert parsed.agents == [SubAgent("b", handoff=True)]
    assert parsed.limits == AgentLimits(steps=3, money=Decimal("0.5"))
    assert (parsed.memory, parsed.residency) == (None, "any")


def test_an_empty_definition_has_the_defaults():
    assert parse({}) == Definition(agents=[])


def test_instructions_of_the_agent_precede_those_of_the_request():
    definition = Definition(instructions="You sell shoes.")

    assert apply(definition, REQUEST)["instructions"] == "You sell shoes."
    assert (
        apply(definition, {**REQUEST, "instructions": "In German."})["instructions"] == "You sell shoes.\n\nIn German."
    )
    assert apply(Definition(), REQUEST)["instructions"] is None


def test_of_two_tools_with_one_name_the_agents_counts():
    definition = Definition(tools=[function("find", "the agent's"), SHOP])
    other = {**SHOP, "server_url": "https://thief.example/mcp"}

    tools = apply(definition, {**REQUEST, "tools": [function("find"), other, function("more")]})["tools"]

    assert tools == [function("find", "the agent's"), SHOP, function("more")]


def test_credentials_of_a_request_are_not_sent_to_a_server_of_the_agent():
    definition = Definition(tools=[SHOP])

    effective = apply(definition, {**REQUEST, "mcp_credentials": {"shop": "of the request", "own": "kept"}})

    assert effective["mcp_credentials"] == {"own": "kept"}


@pytest.mark.parametrize(("own", "expected"), [
    (None, {"recall": False, "limit": 3}),
    ({"recall": True}, {"recall": True, "limit": 3}),
])  # fmt: skip
def test_memory_options_of_a_request_replace_those_of_the_agent(own, expected):
    definition = Definition(memory={"recall": False, "limit": 3})

    assert apply(definition, {**REQUEST, "memory": own})["memory"] == expected


@pytest.mark.parametrize(("own", "expected"), [
    (None, "json_object"), ({"format": {"type": "text"}}, "json_object"),
    ({"format": {"type": "json_schema", "schema": {}}}, "json_schema"),
])  # fmt: skip
def test_a_request_may_have_a_format_of_its_own(own, expected):
    definition = Definition(text={"format": {"type": "json_object"}})

    assert apply(definition, {**REQUEST, "text": own})["text"]["format"]["type"] == expected
