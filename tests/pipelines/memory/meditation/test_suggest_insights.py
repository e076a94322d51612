"""Insights that the language model suggests are accepted only if they are well-formed, grounded and new."""

from datetime import UTC, datetime

import orjson
import pytest

from models.memory.scan import MemoryText
from pipelines.memory.meditation.suggest_insights import accepted_insights
from tests.pipelines.memory.meditation.rides import RIDES, VALID

NOTES = [
    MemoryText(str(number), text, "user", datetime(2026, 1, number + 1, tzinfo=UTC))
    for number, text in enumerate(RIDES)
]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[]",
        '{"insights": 5}',
        '{"insights": [{"text": "Rides on the red bicy',
        '{"insights": [{"text": 5, "sources": [1, 2]}]}',
        orjson.dumps({"insights": [{**VALID, "sources": []}]}).decode(),
        orjson.dumps({"insights": [{**VALID, "sources": [1]}]}).decode(),
        orjson.dumps({"insights": [{**VALID, "sources": [1, 9]}]}).decode(),
        orjson.dumps({"insights": [{"text": RIDES[0], "sources": [1, 2]}]}).decode(),
        orjson.dumps(
            {"insights": [{"text": "Penguins prefer quantum chromodynamics lectures.", "sources": [1, 2]}]}
        ).decode(),
    ],
)
def test_malformed_uncited_repeated_or_ungrounded_insight_is_rejected(answer):
    assert list(accepted_insights(answer, NOTES)) == []


def test_valid_insight_is_accepted():
    answer = orjson.dumps({"insights": [VALID]}).decode()

    (accepted,) = accepted_insights(answer, NOTES)

    assert (accepted["text"], accepted["sources"]) == (VALID["text"], ["0", "2"])
