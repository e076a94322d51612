"""An answer of the scripted engine during faults: whether it is complete, and how long it paused."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness.sse import REWOUND, scripted_text
from tests.journeys.stack import AccountOwner, Installation, record_time
from tests.journeys.stream_follower import StreamFollower

TOKENS = 60

SCRIPT = f"tokens={TOKENS},rate=40"

TEXT = scripted_text(TOKENS)


def assert_complete(stack: Installation, user: AccountOwner, follower: StreamFollower) -> None:
    """Assert that stream, stored output and archive have the whole answer, and that it was billed once."""
    follower.end()
    assert follower.text == TEXT
    stored = user.get(f"/v1/responses/{follower.response_id}")
    assert stored["status"] == "completed"
    assert stored["output"][0]["content"][0]["text"] == TEXT
    assert stored == follower.events[-1].json()["response"]
    billed = stack.rows("SELECT output_tokens FROM usage_records WHERE job_id = %s", stored["job_id"])
    assert [row["output_tokens"] for row in billed] == [TOKENS] == [stored["usage"]["output_tokens"]]
    assert_replay(stack, user, follower)


def assert_replay(stack: Installation, user: AccountOwner, follower: StreamFollower) -> None:
    """Assert that the archive alone replays the stream from several positions.

    A replay from a position after a rewind begins with the rewind event.
    """
    stack.redis.delete(f"sangha:events:{follower.job_id}", f"sangha:journal:{follower.job_id}")
    rewinds = [event.sequence - 1 for event in follower.events if event.type == REWOUND]
    for after in (-1, follower.last // 2, follower.last - 1):
        first = min([after, *rewinds])
        replay = user.follow(follower.response_id, after, by_query=True).end()
        assert [event.data for event in replay.events] == [
            event.data for event in follower.effective if event.sequence > first
        ]


@contextmanager
def fault(name: str, stack: Installation, follower: StreamFollower, deltas: int = 10) -> Iterator[None]:
    """Inject a fault during an answer, and record the longest pause after it when the stream has ended."""
    follower.wait_for_events(deltas=deltas)
    since = time.monotonic()
    yield
    follower.end()
    record_time(f"{name}, {stack.broker}: longest pause", follower.longest_pause(since))


def attempts(stack: Installation, follower: StreamFollower) -> tuple[int, int]:
    """Return the number of attempts at a turn, and how many of them count as failures."""
    (row,) = stack.rows("SELECT attempt, failures FROM jobs WHERE id = %s", follower.job_id)
    return row["attempt"], row["failures"]
