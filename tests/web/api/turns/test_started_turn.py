"""The response object in the last event of a turn."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.journal.events import ENDINGS, event
from web.api.turns.started_turn import response_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.just('"response":{}')
RESPONSES = st.dictionaries(TEXT | st.just("response"), TEXT | st.dictionaries(TEXT, TEXT), max_size=4)


@given(RESPONSES, st.sampled_from(sorted(ENDINGS)), st.sampled_from([{}, {"job_id": "job_1"}]))
def test_the_response_of_an_ending_is_found_without_parsing_it(response, type_, others):
    ending = event(7, type_.decode(), {**others, "response": response})

    assert response_of(ending) == orjson.dumps(response)


@pytest.mark.parametrize("payload", [{}, {"job_id": "job_1"}])
def test_the_end_of_a_turn_that_has_no_response_object(payload):
    assert response_of(event(2, "sangha:job.cancelled", payload)) is None
