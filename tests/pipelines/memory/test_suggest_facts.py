"""Facts that the language model suggests are accepted only if they are well-formed and grounded in their sources."""

from datetime import UTC, datetime

import orjson
import pytest

from models.memory.scan import MemoryText
from pipelines.memory.suggest_facts import accepted_facts

MONDAY = datetime(2026, 11, 16, 9, tzinfo=UTC)


def fact(text, subject, attribute, value, *sources):
    return {"text": text, "subject": subject, "attribute": attribute, "value": value, "sources": list(sources)}


@pytest.mark.parametrize(
    "suggestion",
    [
        fact("user lives in Paris", "user", "home", "Paris", 1),  # no source contains it
        fact("user lives in Lisbon", "user", "home", "Lisbon", 3),  # line 3 does not exist
        fact("user lives in Lisbon", "user", "home", "Lisbon", 2),  # only the assistant's line contains it
        fact("user lives in Lisbon", "user", "home", "Lisbon"),
        fact("user lives in Lisbon", "user", "", "Lisbon", 1),
        {"text": "user lives in Lisbon"},
        "user lives in Lisbon",
    ],
)
def test_malformed_or_ungrounded_fact_is_rejected(suggestion):
    lines = [
        MemoryText("a", "I live in Lisbon.", "user", MONDAY),
        MemoryText("b", "Lisbon it is.", "assistant", MONDAY),
    ]

    assert list(accepted_facts(orjson.dumps({"facts": [suggestion]}).decode(), lines)) == []


@pytest.mark.parametrize("answer", ["", "{", '{"facts": 3}', "[]", "null"])
def test_malformed_answer_contains_no_facts(answer):
    assert list(accepted_facts(answer, [])) == []
