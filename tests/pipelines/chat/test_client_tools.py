"""Tools of every type that the caller runs are functions for an engine, and their calls are items of OpenAI's types."""

import orjson
import pytest
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from models.journal import journal
from pipelines.chat import turn
from pipelines.chat.client_tools import client_tools, function_name
from pipelines.chat.prompt import assemble_messages, output_format_of
from pipelines.inference.answer_grammar import calls_error
from pipelines.inference.engine import GeneratedCall, Message, ToolCall
from pipelines.inference.json_schema import enforced_schema
from tests.pipelines.chat.conftest import FakeEngine

FUNCTION = {"type": "function", "name": "look", "description": "Looks.", "parameters": None, "strict": False}
CUSTOM = {"type": "custom", "name": "note", "description": "Writes.", "format": {"type": "text"}}
GROUP = {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [FUNCTION, CUSTOM]}
TOOLS = [CUSTOM, GROUP, {"type": "local_shell"}, {"type": "shell", "environment": None}, {"type": "apply_patch"}]

CALLS = {
    "note": ('{"input":"a\\nb"}', {"type": "custom_tool_call", "name": "note", "input": "a\nb"}),
    "crm__look": ("{}", {"type": "function_call", "name": "look", "namespace": "crm", "arguments": "{}"}),
    "crm__note": (
        '{"input":"x"}',
        {"type": "custom_tool_call", "name": "note", "namespace": "crm", "input": "x"},
    ),
    "local_shell": (
        '{"command":["ls","-l"],"timeout_ms":5}',
        {
            "type": "local_shell_call",
            "action": {"type": "exec", "command": ["ls", "-l"], "env": {}, "timeout_ms": 5, "user": None,
                       "working_directory": None},
        },
    ),
    "shell": (
        '{"commands":["ls","pwd"]}',
        {
            "type": "shell_call",
            "action": {"commands": ["ls", "pwd"], "timeout_ms": None, "max_output_length": None},
        },
    ),
    "apply_patch": (
        '{"type":"update_file","path":"a.txt","diff":"@@\\n-a\\n+b"}',
        {
            "type": "apply_patch_call",
            "operation": {"type": "update_file", "path": "a.txt", "diff": "@@\n-a\n+b"},
        },
    ),
}  # fmt: skip


def test_every_tool_is_a_function_for_the_engine():
    tools = {tool.name: tool for tool in output_format_of({"tools": TOOLS}).tools}

    assert list(tools) == list(CALLS)
    assert tools["note"].parameters["required"] == ["input"]
    assert tools["crm__look"].description == "Customers.\n\nLooks."
    assert tools["crm__note"].description.startswith("Writes."), "the group is described once"


def test_one_grammar_constrains_calls_of_all_types():
    assert calls_error(output_format_of({"tools": TOOLS})) is None


def test_a_long_name_of_a_group_member_is_shortened_and_stays_unique():
    names = {function_name("x" * 60 + end, "mcp__server") for end in ("a", "b")}

    assert len(names) == 2
    assert all(len(name) == 64 for name in names)
    assert function_name("x" * 60 + "a", "mcp__server") in names, "and the same for every turn"


def test_a_choice_of_a_group_member_is_its_function():
    choice = output_format_of({"tools": TOOLS, "tool_choice": {"type": "function", "name": "look"}}).tool_choice

    assert choice == ("function", "crm__look")


@pytest.mark.parametrize(
    ("definition", "enforced"),
    [(r"[a-z]+ \d{2}", True), (r"(?<=a)b", False)],
)
def test_a_regular_expression_is_enforced_where_it_can_be(definition, enforced):
    tool = {**CUSTOM, "format": {"type": "grammar", "syntax": "regex", "definition": definition}}
    (described,) = client_tools([tool])

    assert definition in described.function.description
    assert ("pattern" in enforced_schema(described.function.parameters)["properties"]["input"]) is enforced


def test_a_lark_grammar_is_shown_to_the_model():
    tool = {**CUSTOM, "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}}
    (described,) = client_tools([tool])

    assert described.function.description.endswith('start: "a"')


@pytest.mark.parametrize("function", CALLS)
def test_a_call_is_an_item_and_events_of_openais_types(harness, fake_engine, function):
    # Given a model that calls the tool
    arguments, expected = CALLS[function]
    started = harness.start(tools=TOOLS)
    attempt = harness.attempt(started)
    # When its turn runs
    harness.settle(attempt, turn.run(fake_engine(GeneratedCall(function, arguments, 1)), attempt))
    # Then the item is the caller's, and the stream is valid
    (item,) = harness.stored_response(started).output
    assert {name: item[name] for name in expected} == expected
    assert harness.writer.drain()
    events = [orjson.loads(each.data) for each in journal.read_events(harness.client, started.response.job_id)]
    for event in events:
        if event["type"].startswith("response.") and "response" not in event:
            TypeAdapter(ResponseStreamEvent).validate_python(event)
    assert TypeAdapter(OpenAIResponse).validate_python(events[-1]["response"]).output[0].type == expected["type"]
    kinds = [event["type"] for event in events]
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 1


@pytest.mark.parametrize("function", CALLS)
def test_the_engine_reads_an_earlier_call_as_it_wrote_it(harness, fake_engine, function):
    arguments, _ = CALLS[function]
    started = harness.start(tools=TOOLS)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(fake_engine(GeneratedCall(function, arguments, 1)), attempt))
    (item,) = harness.stored_response(started).output
    output = {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "done", "status": "completed"}
    if function == "shell":
        output["output"] = [{"stdout": "done", "stderr": "", "outcome": {"type": "exit", "exit_code": 1}}]

    messages = prompt_of(harness, harness.start(items=[output], previous=started.response.id))

    call = messages[1].calls[0]
    assert (call.id, call.name) == (item["call_id"], function)
    assert orjson.loads(call.arguments) == orjson.loads(arguments)
    assert (messages[2].role, messages[2].call_id) == ("tool", item["call_id"])
    assert "done" in messages[2].content


def test_a_malformed_call_of_a_hosted_engine_is_an_item_without_content(harness, fake_engine):
    for function, field in [("note", "input"), ("shell", "action"), ("apply_patch", "operation")]:
        started = harness.start(tools=TOOLS)
        attempt = harness.attempt(started)
        harness.settle(attempt, turn.run(fake_engine(GeneratedCall(function, "not json", 1)), attempt))

        (item,) = harness.stored_response(started).output
        assert item[field] in ("not json", {"commands": [], "timeout_ms": None, "max_output_length": None},
                               {"type": "", "path": "", "diff": ""})  # fmt: skip


def test_outputs_in_parts_are_text_for_the_engine(harness):
    call = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
    parts = [{"type": "input_text", "text": "a "}, {"type": "input_text", "text": "cat"}]
    output = {"type": "function_call_output", "call_id": "call_1", "output": parts}

    messages = prompt_of(harness, harness.start("look", items=[call, output]))

    assert messages[1:] == [
        Message("assistant", "", (ToolCall("call_1", "look", "{}"),)),
        Message("tool", "a cat", call_id="call_1"),
    ]


def test_an_output_of_the_local_shell_may_name_the_item_of_its_call(harness, fake_engine):
    started = harness.start(tools=TOOLS)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(fake_engine(GeneratedCall("local_shell", '{"command":["ls"]}', 1)), attempt))
    (item,) = harness.stored_response(started).output
    output = {"type": "local_shell_call_output", "call_id": item["id"], "output": "a.txt"}

    messages = prompt_of(harness, harness.start(items=[output], previous=started.response.id))

    assert messages[-1] == Message("tool", "a.txt", call_id=item["call_id"])


def prompt_of(harness, started):
    with harness.database.connection() as connection:
        return assemble_messages(FakeEngine(), connection, started.response)
