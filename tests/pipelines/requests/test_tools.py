"""Tools of every type in requests: those that the caller runs are stored, others are ignored and named."""

import pytest
from openai.types.responses import Tool as OpenAITool
from pydantic import TypeAdapter

from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from pipelines.requests.ignored_fields import validate_tolerantly
from pipelines.requests.input_items import stored_items
from pipelines.requests.serving import Serving
from pipelines.requests.turn_request import CreateResponse, new_turn
from pipelines.requests.validation import validate

SETTINGS = Serving.of(Settings(engine="scripted"))

FUNCTION = {"type": "function", "name": "look"}
NESTED = {"type": "function", "function": {"name": "look", "description": "Looks."}}
CUSTOM = {"type": "custom", "name": "note"}
GROUP = {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [FUNCTION, CUSTOM]}
SHELLS = [{"type": "local_shell"}, {"type": "shell", "environment": {"type": "local"}}, {"type": "apply_patch"}]


def turn(**body):
    """Return the stored request, and what was ignored."""
    parsed, ignored = validate_tolerantly(CreateResponse, {"input": "hello", **body})
    return new_turn(parsed, SETTINGS).request, ignored


def test_tools_that_the_caller_runs_are_stored_in_openais_form():
    request, ignored = turn(tools=[NESTED, CUSTOM, GROUP, *SHELLS])

    assert [tool["type"] for tool in request["tools"]] == [
        "function", "custom", "namespace", "local_shell", "shell", "apply_patch",
    ]  # fmt: skip
    for tool in request["tools"]:
        TypeAdapter(OpenAITool).validate_python(tool, strict=True)
    assert ignored == []


def test_tools_that_the_caller_does_not_run_are_ignored_and_named():
    hosted = [
        {"type": "web_search", "external_web_access": False},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "shell", "environment": {"type": "container_auto"}},
        {"type": "from_the_future"},
    ]
    request, ignored = turn(tools=[FUNCTION, *hosted])

    assert [tool["name"] for tool in request["tools"]] == ["look"]
    assert ignored == [
        "tools[1] (web_search)", "tools[2] (code_interpreter)", "tools[3] (shell in a container)",
        "tools[4] (from_the_future)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ([{"type": "web_search"}], {"type": "web_search"}, "tool_choice.type"),
        ([{"type": "web_search"}], "required", "tool_choice"),
        ([FUNCTION], {"type": "shell"}, "tool_choice.type"),
        ([FUNCTION], {"type": "function", "function": {"name": "hear"}}, "tool_choice.function.name"),
        ([FUNCTION], {"type": "custom", "name": "note"}, "tool_choice.name"),
        (
            [FUNCTION, {"type": "web_search"}],
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
            "tool_choice",
        ),
    ],
)
def test_a_choice_of_a_tool_that_the_caller_does_not_run_is_rejected(tools, choice, param):
    with pytest.raises(InvalidRequest) as error:
        turn(tools=tools, tool_choice=choice)

    assert error.value.param == param


@pytest.mark.parametrize(
    ("choice", "stored"),
    [
        ({"type": "custom", "name": "note"}, {"type": "custom", "name": "note"}),
        ({"type": "function", "function": {"name": "look"}}, {"type": "function", "name": "look"}),
        ({"type": "apply_patch"}, {"type": "apply_patch"}),
    ],
)
def test_a_choice_of_one_tool_is_stored(choice, stored):
    assert turn(tools=[FUNCTION, CUSTOM, *SHELLS], tool_choice=choice)[0]["tool_choice"] == stored


def test_allowed_tools_restrict_groups_too():
    references = [{"type": "function", "name": "look"}, {"type": "shell"}, {"type": "web_search"}]

    request, ignored = turn(tools=[GROUP, *SHELLS], tool_choice={"type": "allowed_tools", "tools": references})

    assert [tool["type"] for tool in request["tools"]] == ["namespace", "shell"]
    assert [member["name"] for member in request["tools"][0]["tools"]] == ["look"]
    assert (request["tool_choice"], ignored) == ("auto", ["tool_choice.tools[2] (web_search)"])


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([FUNCTION, CUSTOM, {"type": "custom", "name": "look"}], "tools[2].name"),
        ([NESTED, NESTED], "tools[1].function.name"),
        ([{"type": "shell"}, {"type": "shell"}], "tools[1].type"),
        ([GROUP, {"type": "function", "name": "crm__note"}], "tools[1].name"),
        ([{**GROUP, "tools": [FUNCTION, FUNCTION]}], "tools[0].tools[1].name"),
        ([{"name": "look"}], "tools[0].type"),
    ],
)
def test_tools_with_the_same_name_for_an_engine_are_rejected(tools, param):
    with pytest.raises(InvalidRequest) as error:
        turn(tools=tools)

    assert error.value.param == param


def test_a_strict_request_with_a_tool_that_the_caller_does_not_run_is_rejected():
    with pytest.raises(InvalidRequest, match="it should be one of 'function', 'custom'") as error:
        validate(CreateResponse, {"input": "x", "tools": [{"type": "web_search"}]})

    assert (error.value.param, error.value.code) == ("tools[0].type", "unsupported_value")


def test_a_schema_of_a_group_member_is_checked_by_name():
    member = {"type": "function", "name": "f", "parameters": {"type": "banana"}, "strict": True}

    with pytest.raises(InvalidRequest) as error:
        turn(tools=[{**GROUP, "tools": [FUNCTION, member]}])

    assert error.value.param == "tools[0].tools[1].parameters"


def test_calls_that_another_server_ran_are_ignored_and_named():
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    body, ignored = validate_tolerantly(CreateResponse, {"input": [{"role": "user", "content": "x"}, search]})

    assert len(stored_items(body.input)) == 1
    assert ignored == ["input[1] (web_search_call)"]
