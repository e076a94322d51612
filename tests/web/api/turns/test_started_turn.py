"""What a turn stores when it is accepted, and the response object in its last event."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.journal.archive import read_archive
from models.journal.events import ENDINGS, event
from models.journal.shared_fields import is_incomplete
from models.platform.compatibility import Compatibility
from tests.web.api_client import assert_error
from web.api.turns.started_turn import TOOLS_SINCE, response_of

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


COMPACTION = [{"type": "compaction", "encrypted_content": "sangha-1."}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "hi", "tools": [{"type": "custom", "name": "run"}]}),
        ("/v1/responses", {"input": "hi", "context_management": [{"type": "compaction"}]}),
        ("/v1/responses", {"input": COMPACTION}),
        ("/v1/responses/compact", {"model": "default", "input": "hi"}),
    ],
)
def test_what_earlier_workers_cannot_run_waits_for_the_end_of_an_upgrade(user, monkeypatch, path, body):
    monkeypatch.setattr(Compatibility, "at_least", lambda _, version: version < TOOLS_SINCE)

    message = assert_error(user.request("POST", path, json={"background": True, **body}), 503)

    assert message.endswith("are available once the upgrade of this server is finalized.")


def test_functions_need_no_new_workers(user, monkeypatch):
    monkeypatch.setattr(Compatibility, "at_least", lambda _, version: version < TOOLS_SINCE)

    assert user.create_response(tools=[{"type": "function", "name": "run"}])["status"] == "queued"
