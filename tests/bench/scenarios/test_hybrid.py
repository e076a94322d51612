"""Given turns beside a full queue and streams that break, when they are counted, then each loss is seen."""

from datetime import UTC, datetime, timedelta
from typing import Any

from bench.harness.sse import scripted_text
from bench.scenarios.hybrid import LONG, Death, death, death_figures, out_of_order

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def row(second: float) -> dict[str, Any]:
    return {"started_at": BEGAN + timedelta(seconds=second)}


def test_turns_that_began_before_an_earlier_one_are_out_of_order() -> None:
    assert out_of_order([row(1), row(2), row(3)]) == 0
    assert out_of_order([row(1), row(3), row(2)]) == 1


def test_lost_and_repeated_tokens_of_broken_streams_are_counted() -> None:
    whole, cut = scripted_text(LONG), scripted_text(LONG - 3)

    assert death(2, [whole, cut, whole + "w0 "], 2) == Death(2, 2, 3, 1)


def test_only_what_sangha_promises_has_a_goal() -> None:
    assert all(figure.goal for figure in death_figures("ours, the endpoint", Death(8, 8, 0, 0)))
    assert not any(figure.goal for figure in death_figures("LiteLLM, its primary", Death(8, 0, 0, 0)))
