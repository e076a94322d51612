"""JSON Schemas of callers are accepted or rejected with the field's name, and never compiled in the web process."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.inference import answer_grammar
from pipelines.inference.grammars.compiler import TOO_COMPLEX, compiler
from tests.web.api_client import assert_error

#: Two seconds of compiling.
BOMB = {
    "type": "object",
    "properties": {f"p{number}": {"type": "integer", "multipleOf": 9_901 + 2 * number} for number in range(40)},
}
DECIMAL = {
    "type": "object",
    "properties": {
        "price": {
            "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}],
        }
    },
    "required": ["price"],
}
OVERLAPPING = {
    "type": "object",
    "additionalProperties": False,
    "required": ["score"],
    "properties": {"score": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}},
    "patternProperties": {"^score$": {"type": "integer"}},
}
NESTED = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/A"}},
    "required": ["a"],
    "additionalProperties": False,
}
ENDLESS = {"$ref": "#/$defs/A", "$defs": {"A": NESTED}}


def response_body(schema, strict=False):
    return {
        "input": "x",
        "text": {"format": {"type": "json_schema", "name": "a", "schema": schema, "strict": strict}},
    }


def chat_body(schema, strict=False):
    return {
        "model": "default",
        "messages": [{"role": "user", "content": "x"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": strict}},
    }


def tool_body(schema, strict=False):
    tool = {"type": "function", "name": "f", "parameters": schema, "strict": strict}
    return {"input": "x", "background": True, "tools": [tool]}


def schedule_body(schema, strict=False):
    return {
        "name": "hourly",
        "trigger": {"type": "interval", "seconds": 3600},
        "work": {"kind": "turn", "request": response_body(schema, strict)},
    }


ROUTES = [
    ("/v1/responses", response_body, "text.format.schema"),
    ("/v1/responses", tool_body, "tools[0].parameters"),
    ("/v1/responses/input_tokens", response_body, "text.format.schema"),
    ("/v1/chat/completions", chat_body, "response_format.json_schema.schema"),
    ("/v1/schedules", schedule_body, "work.request.text.format.schema"),
]


@pytest.fixture(autouse=True)
def forgotten():
    """Forget the verdicts of other tests."""
    compiler()._verdicts.clear()


@pytest.mark.parametrize(("path", "body", "param"), ROUTES)
@pytest.mark.parametrize("schema", [BOMB, OVERLAPPING, ENDLESS, {"type": "integer", "multipleOf": 1_000_003}])
def test_a_schema_that_is_not_enforced_is_a_400_that_names_its_field(user, path, body, param, schema):
    if body is tool_body:
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"], "$defs": schema.get("$defs", {})}
    for strict in (True, False):
        answer = user.request("POST", path, json=body(schema, strict))
        assert_error(answer, 400, param=param, code="invalid_json_schema")
    assert user.jobs() == []


def test_the_web_process_spends_no_time_on_a_schema(user):
    started = time.process_time()
    answer = user.request("POST", "/v1/responses", json=response_body(BOMB))
    assert_error(answer, 400, code="invalid_json_schema")
    assert time.process_time() - started < 0.25


def test_many_requests_with_new_schemas_leave_other_requests_alone(user):
    # Given thirty requests with schemas that take their whole budget
    bombs = [{**BOMB, "title": str(number)} for number in range(30)]
    with ThreadPoolExecutor(30) as pool:
        pending = [pool.submit(user.request, "POST", "/v1/responses", json=response_body(bomb)) for bomb in bombs]
        # Then requests that need threads and the database are answered before them
        for _ in range(5):
            assert user.request("GET", "/v1/me").status_code == 200
        assert not all(answer.done() for answer in pending)
        assert {answer.result().status_code for answer in pending} <= {400, 429}


@pytest.mark.parametrize(("path", "as_chat"), [("/v1/responses", False), ("/v1/chat/completions", True)])
def test_tools_that_do_not_compile_together_are_a_400_that_names_them(user, monkeypatch, path, as_chat):
    # Given two tools, and a compiler that spends its time on the grammar of both, or rejects the second one's call
    functions = [{"name": name, "parameters": {"type": "object", "required": ["x"]}} for name in ("f", "g")]
    nested = [{"type": "function", "function": each} for each in functions]
    flat = [{"type": "function", **each} for each in functions]
    body = {**chat_body({}), "tools": nested} if as_chat else {"input": "x", "tools": flat}
    place = "tools[1].function.parameters" if as_chat else "tools[1].parameters"
    for error, param in ((TOO_COMPLEX, "tools"), ("too wide", place)):
        checked = {1: [error], 2: [None, "too wide"]}
        monkeypatch.setattr(answer_grammar, "_grammar_errors", lambda grammars, _, by=checked: by[len(grammars)])
        # Then the request is rejected, and no job fails later
        message = assert_error(user.request("POST", path, json=body), 400, param=param, code="invalid_json_schema")
        assert "together" in message or "too wide" in message
    assert user.jobs() == []


def test_required_arguments_without_a_description_are_accepted(user):
    request = {**tool_body({"type": "object", "required": ["x"]}), "tool_choice": "required"}
    assert user.request("POST", "/v1/responses", json=request).status_code == 200


@pytest.mark.parametrize("body", [response_body, tool_body])
def test_a_pattern_that_no_grammar_can_enforce_is_accepted_unless_strict(user, body):
    request = {**body(DECIMAL), "background": True}
    assert user.request("POST", "/v1/responses", json=request).status_code == 200
    message = assert_error(
        user.request("POST", "/v1/responses", json=body(DECIMAL, strict=True)), 400, code="invalid_json_schema"
    )
    assert "'price'" in message
    assert "(?!" in message
