"""Given a turn with a journal, when its stream is asked for from anywhere, then it begins there or says why not."""

import httpx
import pytest

from models import journal
from models.attempts import note_rewind
from tests.web.telling import Telling
from tests.web.visiting import refused


@pytest.fixture
def told(visitor, database, redis_client):
    return Telling(database, redis_client, visitor.caller.account_id)


def ids(answer: httpx.Response) -> list[int]:
    """The ids of the frames of a stream that has ended."""
    assert answer.status_code == 200, answer.text
    return [int(line.removeprefix("id: ")) for line in answer.text.splitlines() if line.startswith("id: ")]


@pytest.mark.parametrize(("after", "first"), [(-1, 0), (0, 1), (3, 4), (5, 6)])
@pytest.mark.parametrize("how", ["query", "header"])
@pytest.mark.parametrize("forgotten", [False, True])
def test_a_stream_begins_behind_the_cursor(visitor, told, after, first, how, forgotten):
    told.say(3)
    told.end()
    if forgotten:
        told.forget()
    path, headers = f"/v1/jobs/{told.id}/events", {}
    if how == "query":
        path += f"?starting_after={after}"
    elif after >= 0:
        headers = {"last-event-id": str(after)}

    assert ids(visitor.request("GET", path, headers=headers)) == list(range(first, 6))


def test_the_query_goes_before_the_header(visitor, told):
    told.end()

    answer = visitor.request("GET", f"/v1/jobs/{told.id}/events?starting_after=1", headers={"last-event-id": "0"})

    assert ids(answer) == [2]


@pytest.mark.parametrize("ended", [False, True])
def test_a_cursor_beyond_the_end_is_refused_by_name(visitor, told, ended):
    if ended:
        told.end()

    query = visitor.request("GET", f"/v1/jobs/{told.id}/events?starting_after=50")
    header = visitor.request("GET", f"/v1/jobs/{told.id}/events", headers={"last-event-id": "50"})

    assert "50" in refused(query, 400, param="starting_after")
    refused(header, 400, param="Last-Event-ID")


@pytest.mark.parametrize("cursor", ["-2", "x", "1.5", "1e3", ""])
def test_a_cursor_that_is_none_is_refused(visitor, told, cursor):
    refused(visitor.request("GET", f"/v1/jobs/{told.id}/events?starting_after={cursor}"), 400, param="starting_after")


@pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "99999999999999999999", "\xb2", "0x1"])
def test_a_last_event_id_that_is_none_is_refused(visitor, told, cursor):
    headers = {"last-event-id": cursor.encode("latin-1")}

    refused(visitor.request("GET", f"/v1/jobs/{told.id}/events", headers=headers), 400, param="Last-Event-ID")


def test_a_cursor_that_redis_has_forgotten_is_put_off_and_not_refused(visitor, told):
    told.say(5)
    told.forget()

    answer = visitor.request("GET", f"/v1/jobs/{told.id}/events?starting_after=5")

    refused(answer, 503, code="service_unavailable")
    assert answer.headers["retry-after"] == "1"


def test_who_heard_what_was_lost_is_taken_back(visitor, told, database, redis_client):
    told.say(5)
    told.forget()
    with database.connection() as connection:
        note_rewind(connection, told.job, 2)
    told.told = told.told[:2]
    journal.append(redis_client, told.id, 1, told.told)
    told.end()

    assert ids(visitor.request("GET", f"/v1/jobs/{told.id}/events?starting_after=5")) == [2]
