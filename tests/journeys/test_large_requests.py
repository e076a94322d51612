"""Turns with large tools: their journals have the tools once, and clients receive them in every response object."""

from collections.abc import Sequence

import httpx
from openai import OpenAI

from bench.harness.sse import REWOUND, ReceivedEvent, scripted_text
from models.journal.keys import hash_key, stream_key
from models.journal.shards import shard_keys
from tests.journeys.openai_types import assert_valid_model
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation
from tests.journeys.stream_follower import StreamFollower

TOKENS = 20
SCRIPT = f"tokens={TOKENS},rate=0"

#: 64 KiB of JSON, and how much the whole journal of their turn may take.
TOOLS = [
    {
        "type": "function",
        "name": f"tool_{number}",
        "description": "x" * 900,
        "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        "strict": True,
    }
    for number in range(62)
]
SIZE = 64 * 1024
MAX_JOURNAL = 1.3 * SIZE

#: The events with a response object.
WITH_RESPONSE = ["response.created", "response.queued", "response.in_progress", "response.completed"]


def stored_sizes(stack: Installation, job_id: str) -> dict[str, int]:
    """Return the bytes of a job's events in Redis, in the shard streams and in the archive."""
    stream = stack.redis.xrange(stream_key(job_id))
    shards = [fields for key in shard_keys() for _, fields in stack.redis.xrange(key)]
    (archive,) = stack.rows("SELECT sum(octet_length(events)) AS size FROM job_events WHERE job_id = %s", job_id)
    return {
        "stream": sum(len(fields[b"e"]) for _, fields in stream),
        "shards": sum(len(fields[b"e"]) for fields in shards if fields[b"j"].decode() == hash_key(job_id)),
        "archive": archive["size"],
    }


def assert_whole(events: Sequence[ReceivedEvent]) -> None:
    """Assert that each response object has the tools, and no event the form that journals have."""
    responses = [event.json()["response"] for event in events if event.type in WITH_RESPONSE]
    assert [response["tools"] for response in responses] == [TOOLS] * len(responses)
    assert not any("shared" in event.json() for event in events)


def assert_replays(user: AccountOwner, follower: StreamFollower) -> None:
    """Assert that a stream from any event on equals the rest of the whole stream."""
    rewinds = [event.sequence - 1 for event in follower.events if event.type == REWOUND]
    for after in range(-1, follower.last):
        replay = user.follow(follower.response_id, after, by_query=True).end()
        assert [event.data for event in replay.events] == [
            event.data for event in follower.effective if event.sequence > min([after, *rewinds])
        ]


@ON_REDIS
def test_large_tools_are_stored_once_in_the_archive_only(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)

    follower = user.stream(tools=TOOLS, tool_choice="none").end()

    assert follower.text == scripted_text(TOKENS)
    assert [type_ for type_ in follower.types if type_ in WITH_RESPONSE] == WITH_RESPONSE
    assert_whole(follower.events)
    assert follower.events[-1].json()["response"] == user.get(f"/v1/responses/{follower.response_id}")
    sizes = stored_sizes(stack, follower.job_id)
    assert 0 < sizes["stream"] < 0.3 * SIZE
    assert SIZE < sizes["archive"] < MAX_JOURNAL
    assert 0 < sizes["shards"] < 0.3 * SIZE


@ON_REDIS
def test_large_tools_are_received_from_any_event_on_and_after_evictions(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)
    follower = user.stream(tools=TOOLS, tool_choice="none").end()

    assert_replays(user, follower)
    stack.redis.xtrim(stream_key(follower.job_id), minid="3-0", approximate=False)
    assert_replays(user, follower)
    stack.redis.delete(stream_key(follower.job_id), hash_key(follower.job_id))
    assert_replays(user, follower)


@ON_REDIS
def test_large_tools_survive_the_loss_of_worker_and_valkey(stack: Installation, user: AccountOwner):
    worker = stack.start_worker("tokens=60,rate=40")
    follower = user.stream(tools=TOOLS, tool_choice="none")
    follower.wait_for_events(deltas=10)

    worker.kill()
    stack.redis.flushall()
    stack.start_worker("tokens=60,rate=0")
    stack.release_jobs(worker)

    follower.end()
    assert follower.text == scripted_text(60)
    assert REWOUND in follower.types
    assert_whole(follower.events)
    assert_replays(user, follower)


@ON_REDIS
def test_cancelled_turns_have_large_tools_in_their_last_event(stack: Installation, user: AccountOwner):
    # Given a turn that runs and one that waits behind it
    stack.start_worker("tokens=400,rate=40", slots=1)
    running = user.stream(tools=TOOLS, tool_choice="none")
    running.wait_for_events(deltas=2)
    waiting = user.stream(tools=TOOLS, tool_choice="none", previous_response_id=running.response_id)
    waiting.wait_for_events(type_="response.queued")
    # When both are cancelled
    for follower in (waiting, running):
        user.post(f"/v1/responses/{follower.response_id}/cancel")
    # Then the last event of each has the tools
    for follower in (waiting, running):
        follower.end()
        assert_whole(follower.events)
        assert follower.events[-1].json()["response"]["tools"] == TOOLS
        assert stored_sizes(stack, follower.job_id)["archive"] < MAX_JOURNAL


@ON_REDIS
def test_every_interface_has_large_tools(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)
    with OpenAI(base_url=f"{stack.addresses()[0]}/v1", api_key=user.token, timeout=60) as client:
        # Without streaming
        response = client.responses.create(model="default", input="hello", tools=TOOLS, tool_choice="none")
        assert_valid_model(response)
        assert [tool.name for tool in response.tools] == [tool["name"] for tool in TOOLS]
        assert response == client.responses.retrieve(response.id)
        # Streamed, and resumed
        events = list(
            client.responses.create(model="default", input="hello", tools=TOOLS, tool_choice="none", stream=True)
        )
        for event in events:
            assert_valid_model(event)
        assert events[-1].response == client.responses.retrieve(events[-1].response.id)
        resumed = client.responses.retrieve(events[0].response.id, stream=True, starting_after=5)
        assert list(resumed) == [event for event in events if event.sequence_number > 5]
        # As the job of any kind
        job_id = events[0].response.job_id
        url = f"{stack.addresses()[0]}/v1/jobs/{job_id}/events?starting_after=1"
        of_job = httpx.get(url, headers=user.headers, timeout=60).text
        assert of_job.count('"name":"tool_61"') == 2
        # As a chat completion
        functions = [{"type": "function", "function": {"name": "f", "description": "x" * 10_000}}]
        chat = client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "hi"}], tools=functions, tool_choice="none"
        )
        assert chat.choices[0].message.content == scripted_text(TOKENS)
