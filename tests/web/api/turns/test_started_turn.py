"""What a turn stores when it is accepted, and the response object in its last event."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.journal.archive import read_archive
from models.journal.events import ENDINGS, event
from models.journal.shared_fields import is_incomplete
from models.platform.compatibility import Compatibility
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


@pytest.mark.parametrize("finalized", [False, True])
def test_large_fields_are_stored_once_when_no_earlier_version_may_read_them(user, database, monkeypatch, finalized):
    monkeypatch.setattr(Compatibility, "at_least", lambda _, version: finalized and version == "0014")

    created = user.create_response(instructions="Answer in rhymes. " * 100)

    with database.connection() as connection:
        opening = read_archive(connection, created["job_id"]).events
    assert [is_incomplete(event) for event in opening] == [False, finalized]
