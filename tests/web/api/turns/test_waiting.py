"""Clients of queued turns learn what they wait for, and official clients see nothing of it."""

import contextlib

import openai
import orjson
import pytest

from bench.harness.waiting import wait_until
from tests.web.scripted_job import ScriptedJob
from web.streams import waiting

ALL = {"X-Sangha-Events": "all"}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Report each change to streams without a delay."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FIRST_AFTER", "REPORT_INTERVAL", "CHECK_INTERVAL"):
            patch.setattr(waiting, name, 0.0)
        patch.setattr(waiting, "READ_INTERVAL", 0.02)
        patch.setattr(waiting, "MAX_SHARE", 1.0)
        yield


def create(user, **fields):
    response = user.request("POST", "/v1/responses", json={"model": "default", "input": "hello", **fields})
    assert response.status_code == 200, response.text
    return response.json()


def open_events(user, path, **headers):
    return user.client.stream("GET", path, headers={"authorization": f"Bearer {user.token}", **headers})


def read_until(lines, text):
    """Return the lines up to the first one with the text."""
    read = []
    for line in lines:
        read.append(line)
        if text in line:
            return read
    raise AssertionError(f"no line has {text}: {read}")


@pytest.mark.parametrize("path", ["/v1/responses/{id}?stream=true", "/v1/jobs/{job_id}/events"])
def test_a_queued_turn_says_what_it_waits_for_until_its_attempt_begins(user, database, redis_client, path):
    # Given a turn that no worker runs
    turn = create(user, background=True)
    with open_events(user, path.format(**turn), **ALL) as response:
        lines = response.iter_lines()
        # When its stream is read
        before = read_until(lines, '"type":"sangha:engine.waiting"')
        scripted = ScriptedJob.of_response(database, redis_client, user.caller.account_id, turn["job_id"])
        scripted.append_deltas(2)
        scripted.end()
        after = list(lines)
    # Then it says so without an id, and no more once an event of the attempt is there
    event = orjson.loads(before[-1].removeprefix("data: "))
    assert event.keys() == {"type", "position", "predicted_wait", "reason"}
    assert event["position"] >= 1
    assert before[-2] == "event: sangha:engine.waiting"
    assert before[-3] == ""
    text = "\n".join(after)
    assert "engine.waiting" not in text[text.index("output_text.delta") :]
    numbers = [int(line.removeprefix("id: ")) for line in before + after if line.startswith("id: ")]
    assert numbers == list(range(len(scripted.events)))


def test_a_tree_says_what_its_root_waits_for(user):
    turn = create(user, background=True)
    with open_events(user, f"/v1/jobs/{turn['job_id']}/events?tree=true") as response:
        line = read_until(response.iter_lines(), 'engine.waiting"')[-1]

    assert line.startswith(f'data: {{"job":"{turn["job_id"]}","type":"sangha:engine.waiting"')


def test_a_stream_of_openais_types_gets_a_comment(user):
    turn = create(user, background=True)
    with open_events(user, f"/v1/responses/{turn['id']}?stream=true") as response:
        line = read_until(response.iter_lines(), "waiting")[-1]

    assert line.startswith(": waiting position=")


def test_openais_client_receives_the_journal_only(user, database, redis_client):
    # Given a stream with a report
    turn = create(user, background=True)
    base = str(user.client.base_url).rstrip("/")
    client = openai.OpenAI(base_url=f"{base}/v1", api_key=user.token)
    stream = client.responses.retrieve(turn["id"], stream=True)
    iterator = iter(stream)
    events = [next(iterator), next(iterator)]
    wait_until(lambda: any(each.wait and each.wait.reported for each in user.client.app.state.platform.streams))
    # When the turn runs
    scripted = ScriptedJob.of_response(database, redis_client, user.caller.account_id, turn["job_id"])
    scripted.append_deltas(2)
    scripted.end()
    with contextlib.suppress(StopIteration):
        events += list(iterator)
    # Then the client has seen its events
    assert [event.type for event in events][:2] == ["response.created", "response.queued"]
    assert not any("waiting" in event.type for event in events)


def test_a_stream_resumes_after_the_last_id_that_came_before_the_wait(user, database, redis_client):
    turn = create(user, background=True)
    path = f"/v1/jobs/{turn['job_id']}/events"
    with open_events(user, path) as response:
        last = [line for line in read_until(response.iter_lines(), "engine.waiting") if line.startswith("id: ")][-1]
    scripted = ScriptedJob.of_response(database, redis_client, user.caller.account_id, turn["job_id"])
    scripted.end()

    resumed = user.request("GET", path, headers={"last-event-id": last.removeprefix("id: ")})

    assert [line for line in resumed.text.splitlines() if line.startswith("id: ")] == ["id: 2"]


def test_a_queued_response_has_what_it_waits_for(user, database, redis_client):
    turn = create(user, background=True)

    def waiting_of():
        return user.request("GET", f"/v1/responses/{turn['id']}").json().get("sangha", {}).get("waiting")

    wait_until(lambda: waiting_of() is not None)
    assert turn["sangha"]["waiting"].keys() == waiting_of().keys() == {"position", "predicted_wait", "reason"}
    ScriptedJob.of_response(database, redis_client, user.caller.account_id, turn["job_id"])
    assert waiting_of() is None


def test_a_second_turn_of_a_conversation_waits_for_the_first(user):
    first = create(user, background=True)
    conversation = user.request("POST", "/v1/conversations", json={}).json()["id"]
    create(user, background=True, conversation=conversation)
    second = create(user, background=True, conversation=conversation)

    assert second["sangha"]["waiting"] == {"position": None, "predicted_wait": None, "reason": "conversation_busy"}
    assert first["sangha"]["waiting"]["reason"] != "conversation_busy"
