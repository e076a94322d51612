"""Resuming event streams by `starting_after` and `Last-Event-ID`."""

import httpx
import pytest

from models.jobs.attempts import store_rewind
from models.journal import journal
from models.journal.journal import Claim
from tests.web.api_client import assert_error
from tests.web.scripted_job import ScriptedJob, forget_rewind


@pytest.fixture
def scripted(user, database, redis_client):
    return ScriptedJob(database, redis_client, user.caller.account_id)


def ids(response: httpx.Response) -> list[int]:
    """Return the ids of the frames of a complete stream."""
    assert response.status_code == 200, response.text
    return [int(line.removeprefix("id: ")) for line in response.text.splitlines() if line.startswith("id: ")]


@pytest.mark.parametrize(("after", "first"), [(-1, 0), (0, 1), (3, 4), (5, 6)])
@pytest.mark.parametrize("how", ["query", "header"])
@pytest.mark.parametrize("archived_only", [False, True])
def test_a_stream_begins_after_the_cursor(user, scripted, after, first, how, archived_only):
    scripted.append_deltas(3)
    scripted.end()
    if archived_only:
        scripted.forget_journal()
    path, headers = f"/v1/jobs/{scripted.id}/events", {}
    if how == "query":
        path += f"?starting_after={after}"
    elif after >= 0:
        headers = {"last-event-id": str(after)}

    assert ids(user.request("GET", path, headers=headers)) == list(range(first, 6))


def test_the_query_takes_precedence_over_the_header(user, scripted):
    scripted.end()

    response = user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after=1", headers={"last-event-id": "0"})

    assert ids(response) == [2]


def test_a_cursor_beyond_the_end_is_rejected_with_its_name(user, scripted):
    scripted.end()

    query = user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after=50")
    header = user.request("GET", f"/v1/jobs/{scripted.id}/events", headers={"last-event-id": "50"})

    assert "50" in assert_error(query, 400, param="starting_after")
    assert_error(header, 400, param="Last-Event-ID")


@pytest.mark.parametrize("cursor", ["-2", "x", "1.5", "1e3", ""])
def test_an_invalid_cursor_is_rejected(user, scripted, cursor):
    assert_error(
        user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after={cursor}"), 400, param="starting_after"
    )


@pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "99999999999999999999", "\xb2", "0x1"])
def test_an_invalid_last_event_id_is_rejected(user, scripted, cursor):
    headers = {"last-event-id": cursor.encode("latin-1")}

    assert_error(user.request("GET", f"/v1/jobs/{scripted.id}/events", headers=headers), 400, param="Last-Event-ID")


def test_a_cursor_that_redis_has_lost_is_a_retryable_503(user, scripted):
    scripted.append_deltas(5)
    scripted.forget_journal()

    response = user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after=5")

    assert_error(response, 503, code="service_unavailable")
    assert response.headers["retry-after"] == "1"


def test_a_cursor_whose_event_a_promoted_replica_lacks_is_a_retryable_503(user, scripted):
    # Given a running job, and a client with an event that Redis has lost with the last ones
    scripted.append_deltas(5)

    response = user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after=9")

    # Then it may come again: the attempt writes the events that Redis lacks
    assert_error(response, 503, code="service_unavailable")


def store_rewind_at(database, job, sequence: int) -> None:
    """Store a rewind as an attempt does before it writes the event that announces it."""
    with database.connection() as connection:
        store_rewind(connection, job, sequence)


@pytest.mark.parametrize("after", [2, 4, 5])
def test_a_client_that_received_rewound_events_resumes_at_the_rewind(user, scripted, after):
    # Given a journal of 0 to 5 that was rewound to 2, and is 0 to 4 now
    scripted.append_deltas(4)
    scripted.rewind(2)
    scripted.append_deltas(1)
    scripted.end()

    # When a client resumes that may have other events from 2 on
    # Then it begins at the event that announces the rewind
    assert ids(user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after={after}")) == [2, 3, 4]


def test_a_rewind_that_only_redis_knows_is_announced(user, scripted, database):
    # Given a rewind whose note in the row was lost by a failover of Postgres
    scripted.append_deltas(4)
    scripted.rewind(2)
    scripted.append_deltas(4)
    forget_rewind(database, scripted)
    scripted.end()

    # When a client with the events from before resumes
    # Then it begins at the event that announces the rewind
    assert ids(user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after=5")) == [2, 3, 4, 5, 6, 7]


def test_a_client_below_a_rewind_resumes_where_it_was(user, scripted):
    scripted.append_deltas(4)
    scripted.rewind(4)
    scripted.end()

    assert ids(user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after=2")) == [3, 4, 5]


def test_a_rewind_that_is_announced_later_does_not_repeat_events(user, scripted, database):
    # Given a job whose row was rewound to 2, but whose events up to 5 are in the journal again
    scripted.append_deltas(4)
    store_rewind_at(database, scripted.job, 2)
    scripted.announce_rewind()
    scripted.end()

    # When a client with all of them resumes
    # Then it begins at the event that announces the rewind, after them
    assert ids(user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after=5")) == [6, 7]


@pytest.mark.parametrize(("after", "events"), [(1, [2]), (2, [2]), (5, [2])])
def test_a_client_with_other_events_than_the_last_ones_of_an_ended_job_gets_its_end(
    user, scripted, database, redis_client, after, events
):
    # Given a job that was rewound to 2, and ended before the rewind was announced
    scripted.append_deltas(4)
    scripted.forget_journal()
    store_rewind_at(database, scripted.job, 2)
    scripted.events = scripted.events[:2]
    journal.append(redis_client, Claim(scripted.id, 1), scripted.events)
    scripted.end()

    assert ids(user.request("GET", f"/v1/jobs/{scripted.id}/events?starting_after={after}")) == events
