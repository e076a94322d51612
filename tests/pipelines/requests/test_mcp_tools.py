"""Tools of MCP servers in requests: stored without their credentials, and checked with the field named."""

import json

import pytest
from openai.types.responses import Tool as OpenAITool
from pydantic import TypeAdapter

from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from pipelines.agents.credentials import unseal
from pipelines.chat.prompt import output_format_of
from pipelines.requests.ignored_fields import validate_tolerantly
from pipelines.requests.input_items import stored_items
from pipelines.requests.serving import Serving
from pipelines.requests.turn_request import CreateResponse, new_turn
from tests.pipelines.requests.mcp_items import ITEMS

SETTINGS = Serving.of(Settings(engine="scripted", secret_key="a secret of the tests"))

URL = "https://mcp.example.com/mcp?team=1"
DOCS = {"type": "mcp", "server_label": "docs", "server_url": URL}
REGISTERED = {"type": "mcp", "server_label": "crm"}
PLATFORM = {"type": "mcp", "server_label": "sangha", "allowed_tools": ["memory_search"], "require_approval": "never"}
FUNCTION = {"type": "function", "name": "look"}


def turn(**body):
    """Return the stored request, and what was ignored."""
    parsed, ignored = validate_tolerantly(CreateResponse, {"input": "hello", **body})
    return new_turn(parsed, SETTINGS).request, ignored


def test_servers_are_stored_in_openais_form_without_their_credentials():
    full = {
        **DOCS,
        "server_description": "The documentation.",
        "headers": {"X-Team": "secret-team"},
        "authorization": "secret-token",
        "allowed_tools": {"tool_names": ["search"], "read_only": True},
        "require_approval": {"never": {"tool_names": ["search"]}, "always": {"read_only": False}},
        "defer_loading": False,
    }

    request, ignored = turn(tools=[full, REGISTERED, PLATFORM, FUNCTION])

    shown = {name: full[name] for name in full if name not in ("headers", "authorization", "defer_loading")}
    assert request["tools"][0] == shown
    assert request["tools"][1] == REGISTERED
    assert ignored == []
    for tool in request["tools"][:3]:
        TypeAdapter(OpenAITool).validate_python(tool, strict=True)
    assert "secret-t" not in json.dumps(request), "headers and the token are encrypted"
    assert [*request["mcp_credentials"]] == ["docs"]
    sealed = unseal(SETTINGS.settings, request["mcp_credentials"]["docs"])
    assert (sealed.headers, sealed.authorization) == ({"X-Team": "secret-team"}, "secret-token")


def test_a_request_without_credentials_stores_none():
    assert "mcp_credentials" not in turn(tools=[DOCS])[0]


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "mcp"}, "tools[0].server_label"),
        ({**DOCS, "server_label": "1st"}, "tools[0].server_label"),
        ({**DOCS, "server_label": "x" * 65}, "tools[0].server_label"),
        ({**DOCS, "server_label": "agents"}, "tools[0].server_label"),
        ({**DOCS, "server_label": "sangha"}, "tools[0].server_url"),
        ({**DOCS, "server_url": "stdio:///bin/sh"}, "tools[0].server_url"),
        ({**DOCS, "server_url": "https://"}, "tools[0].server_url"),
        ({**DOCS, "server_url": "https://user:secret@example.com/"}, "tools[0].server_url"),
        ({**DOCS, "server_url": "https://example.com/\r\nX: y"}, "tools[0].server_url"),
        ({**DOCS, "headers": {"X y": "1"}}, "tools[0].headers.X y"),
        ({**DOCS, "headers": {"X-Secret": "secret\r\nHost: b"}}, "tools[0].headers.X-Secret"),
        ({**DOCS, "headers": {"Host": "b.example.com"}}, "tools[0].headers.Host"),
        ({**DOCS, "headers": {"x-a": "1", "X-A": "2"}}, "tools[0].headers"),
        ({**DOCS, "headers": {"Authorization": "Basic x"}, "authorization": "secret"}, "tools[0].authorization"),
        ({**DOCS, "authorization": "secret\n"}, "tools[0].authorization"),
        ({**REGISTERED, "authorization": "secret"}, "tools[0].authorization"),
        ({**REGISTERED, "headers": {"x-a": "1"}}, "tools[0].headers"),
        ({**DOCS, "allowed_tools": "search"}, "tools[0].allowed_tools"),
        ({**DOCS, "allowed_tools": ["a b"]}, "tools[0].allowed_tools[0]"),
        ({**DOCS, "require_approval": "sometimes"}, "tools[0].require_approval"),
        ({**DOCS, "require_approval": {"never": {"read_only": "yes"}}}, "tools[0].require_approval.never.read_only"),
        ({**DOCS, "connector_id": "connector_gmail"}, "tools[0].connector_id"),
        ({**DOCS, "tunnel_id": "tunnel_1"}, "tools[0].tunnel_id"),
    ],
)
def test_an_invalid_server_is_rejected_by_the_name_of_the_field_and_without_its_value(tool, param):
    with pytest.raises(InvalidRequest) as error:
        turn(tools=[tool])

    assert error.value.param == param
    assert "secret" not in error.value.message


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([DOCS, {**REGISTERED, "server_label": "docs"}], "tools[1].server_label"),
        ([{"type": "namespace", "name": "docs", "tools": [FUNCTION]}, DOCS], "tools[1].server_label"),
    ],
)
def test_labels_are_unique(tools, param):
    with pytest.raises(InvalidRequest) as error:
        turn(tools=tools)

    assert error.value.param == param


def test_a_choice_of_a_server_or_of_one_of_its_tools_is_stored():
    all_of_it, one = {"type": "mcp", "server_label": "docs"}, {"type": "mcp", "server_label": "docs", "name": "search"}

    assert turn(tools=[DOCS], tool_choice=all_of_it)[0]["tool_choice"] == all_of_it
    assert turn(tools=[DOCS], tool_choice=one)[0]["tool_choice"] == one
    assert turn(tools=[DOCS], tool_choice="required")[0]["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ({"type": "mcp", "server_label": "crm"}, "tool_choice.server_label"),
        (
            {"type": "allowed_tools", "tools": [{"type": "mcp", "server_label": "crm"}]},
            "tool_choice.tools[0].server_label",
        ),
    ],
)
def test_a_choice_of_a_server_that_is_not_offered_is_rejected(choice, param):
    with pytest.raises(InvalidRequest) as error:
        turn(tools=[DOCS], tool_choice=choice)

    assert error.value.param == param


def test_allowed_tools_restrict_servers_and_their_tools():
    references = [
        {"type": "mcp", "server_label": "docs"},
        {"type": "mcp", "server_label": "sangha", "name": "memory_search"},
        {"type": "mcp", "server_label": "sangha", "name": "memory_write"},
        {"type": "mcp", "server_label": "files", "name": "read"},
    ]
    files = {**DOCS, "server_label": "files", "allowed_tools": {"read_only": True}, "authorization": "t"}
    secret = {**DOCS, "server_label": "other", "authorization": "t"}

    request, _ = turn(
        tools=[DOCS, REGISTERED, PLATFORM, files, secret],
        tool_choice={"type": "allowed_tools", "tools": references},
    )

    allowed = {tool["server_label"]: tool.get("allowed_tools") for tool in request["tools"]}
    assert allowed == {
        "docs": None,
        "sangha": ["memory_search"],
        "files": {"read_only": True, "tool_names": ["read"]},
    }
    assert [*request["mcp_credentials"]] == ["files"], "those of a server that is not called are not stored"


def test_a_choice_of_a_server_offers_the_engine_its_tools_only():
    group = {"type": "namespace", "name": "docs", "tools": [{**FUNCTION, "name": "search"}, {**FUNCTION, "name": "b"}]}
    request = {"tools": [group, FUNCTION]}

    one = output_format_of({**request, "tool_choice": {"type": "mcp", "server_label": "docs", "name": "search"}})
    every = output_format_of({**request, "tool_choice": {"type": "mcp", "server_label": "docs"}})
    unknown = output_format_of({**request, "tool_choice": {"type": "mcp", "server_label": "crm"}})

    assert [tool.name for tool in one.tools] == ["docs__search"]
    assert one.must_call_tool
    assert [tool.name for tool in every.tools] == ["docs__search", "docs__b"]
    assert (len(unknown.tools), unknown.tool_choice) == (3, "auto"), "its tools could not be listed"


def test_items_of_earlier_outputs_are_stored_in_the_present_form():
    body, ignored = validate_tolerantly(CreateResponse, {"input": ITEMS})

    listed, request, completed, failed, unreachable, open_call = stored_items(body.input)

    assert ignored == []
    assert listed["tools"] == [
        {"name": "search", "description": "", "input_schema": {"type": "object"}, "annotations": {}}
    ]
    assert request == ITEMS[1], "with its id, by which it is found"
    assert (completed["output"], completed["status"]) == ("found", "completed")
    assert failed["error"] == {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "not found"}]}
    assert (unreachable["error"]["code"], unreachable["status"]) == (503, "failed")
    assert open_call["status"] == "incomplete"
