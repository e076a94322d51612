"""Unknown fields of a body are ignored and named."""

from collections.abc import Iterable
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationInfo, model_validator

from models.platform.errors import InvalidRequest
from pipelines.requests.ignored_fields import MAX_HEADER, Hint, header_value, mark_without_effect, validate_tolerantly
from pipelines.requests.validation import RequestBody, validate


class Part(RequestBody):
    text: str


class Message(RequestBody):
    content: list[Part]
    schema_: dict[str, object] | None = Field(None, alias="schema")


class Options(RequestBody):
    size: int | None = None

    @model_validator(mode="after")
    def _mark_without_effect(self, info: ValidationInfo) -> "Options":
        mark_without_effect(info)
        return self

    def without_effect(self) -> Iterable[str]:
        return ["size"] if self.size is not None else []


class Turn(RequestBody):
    tier: Annotated[Literal["fast"] | None, Hint] = None
    messages: list[Message] = Field(default_factory=list)
    options: Options | None = None


def test_unknown_fields_at_any_depth_are_named_and_removed():
    value = {
        "session_id": "s",
        "messages": [
            {"content": [{"text": "a"}]},
            {"content": [{"text": "b", "role": "user"}], "id": 1, "schema": {"any": {"thing": 1}}},
        ],
        "options": {"top": 1},
    }

    body, ignored = validate_tolerantly(Turn, value)

    assert ignored == ["session_id", "messages[1].id", "messages[1].content[0].role", "options.top"]
    assert body == Turn(
        messages=[
            Message(content=[Part(text="a")]),
            Message(content=[Part(text="b")], schema={"any": {"thing": 1}}),
        ],
        options=Options(),
    )
    assert "session_id" not in body.model_dump()


def test_a_body_without_unknown_fields_is_validated_once(monkeypatch):
    calls = []
    monkeypatch.setattr("pipelines.requests.ignored_fields._without_unknown_fields", lambda *_: calls.append(1))

    _, ignored = validate_tolerantly(Turn, {"messages": [{"content": []}]})

    assert (ignored, calls) == ([], [])


def test_known_fields_without_effect_are_named():
    assert validate_tolerantly(Turn, {"options": {"size": 1}})[1] == ["options.size"]
    assert validate_tolerantly(Turn, {"options": {}})[1] == []


def test_an_unknown_value_of_a_hint_is_ignored_and_named():
    assert validate_tolerantly(Turn, {"tier": "fast"}) == (Turn(tier="fast"), [])
    assert validate_tolerantly(Turn, {"tier": "ultrafast"}) == (Turn(), ["tier"])
    assert validate_tolerantly(Turn, {"tier": 5, "x": 1}) == (Turn(), ["x", "tier"])
    with pytest.raises(InvalidRequest):
        validate(Turn, {"tier": "ultrafast"})


def test_an_error_of_a_known_field_is_reported_rather_than_an_unknown_field():
    with pytest.raises(InvalidRequest) as error:
        validate_tolerantly(Turn, {"a": {"b": 1}, "messages": [{"content": [{"text": 5}], "c": 1}]})

    assert (error.value.param, error.value.code) == ("messages[0].content[0].text", "invalid_type")


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (["a", "b[0].c", "tools[3] (web_search)"], "a, b[0].c, tools[3] (web_search)"),
        (["a\r\nset-cookie: x", "b,c", "é\x7f"], "a??set-cookie: x, b?c, ??"),
    ],
)
def test_names_are_separated_and_safe_in_a_header(names, value):
    assert header_value(names) == value


def test_a_long_list_is_cut_and_says_how_many_more_there_are():
    value = header_value([f"messages[{number}].id" for number in range(5000)])

    kept, _, rest = value.rpartition(", and ")
    assert len(value) <= MAX_HEADER
    assert rest == f"{5000 - len(kept.split(', '))} more"
