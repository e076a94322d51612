"""Write journals while Redis is slow, restarted or emptied."""

import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.harness.waiting import wait_until
from models.journal import journal
from models.journal.events import event
from models.journal.journal import Claim, Fence
from models.journal.keys import stream_key
from models.journal.writer import Journal, JournalWriter
from models.platform.errors import Fenced
from models.platform.ids import new_id
from models.platform.redis_client import connect
from ops.child_process import ChildProcess
from ops.embedded_servers import Valkey, running_server
from tests.models.journal.evictions import evict

DELTA = "response.output_text.delta"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChildProcess]:
    """A Valkey server that tests may empty and kill."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("run", "logs"):
        (folder / name).mkdir()
    with running_server(Valkey(folder / "valkey", folder), folder / "run", folder / "logs") as child:
        yield child


@pytest.fixture(scope="module")
def client(server: ChildProcess) -> Iterator[redis.Redis]:
    client = connect(server.service.url)
    yield client
    client.close()


@pytest.fixture(scope="module")
def current() -> set[Claim]:
    """The claims that are current according to Postgres."""
    return set()


@pytest.fixture(scope="module")
def writer(client: redis.Redis, current: set[Claim]) -> Iterator[JournalWriter]:
    writer = JournalWriter(client, lambda *claim: claim in current)
    yield writer
    writer.stop()


@pytest.fixture
def begin(client, writer, current):
    """`begin(…)` returns the journal of a current attempt that has taken the fence."""

    def open_journal(job_id=None, attempt=1, first=0, unarchived_before=()):
        claim = Claim(job_id or new_id("job"), attempt, uuid4())
        current.difference_update({other for other in current if other.job_id == claim.job_id})
        current.add(claim)
        journal.append(client, claim, [], Fence.SEIZE)
        return Journal(claim, first, writer, unarchived_before)

    return open_journal


def stored(client, written):
    return journal.read_events(client, written.claim.job_id)


def numbers(client, written):
    return [event.sequence for event in stored(client, written)]


def test_events_arrive_completely_and_in_order(client, writer, begin):
    one, two = begin(), begin()
    for n in range(300):
        (one, two)[n % 2].write("test.said", {"n": n})

    assert writer.drain()

    for written in (one, two):
        assert numbers(client, written) == list(range(150))
        assert stored(client, written) == written.attempt_events()
        assert written.unsent() == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["text", "text", "text", "other text", "event"]), st.text(max_size=5)), max_size=30
    )
)
def test_merged_text_is_complete_and_in_order(client, writer, begin, pieces):
    """The joined deltas of each payload equal the text written with it."""
    written = begin()
    texts: list[tuple[str, str]] = []
    for kind, text in pieces:
        text = text.encode("utf-8", "replace").decode()
        if kind == "event":
            written.write("test.said", {"text": text})
        else:
            written.write_text(DELTA, {"item_id": kind}, text, 1)
            texts.append((kind, text))
    unarchived = written.unarchived()
    assert writer.drain()

    events = [orjson.loads(event.data) for event in stored(client, written)]
    deltas = [event for event in events if event["type"] == DELTA]
    for kind in ("text", "other text"):
        assert "".join(e["delta"] for e in deltas if e["item_id"] == kind) == "".join(t for k, t in texts if k == kind)
    assert [event["text"] for event in events if event["type"] == "test.said"] == [
        text.encode("utf-8", "replace").decode() for kind, text in pieces if kind == "event"
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert sum(event.tokens for event in stored(client, written)) == len(texts) == written.tokens
    assert unarchived == written.attempt_events()


def test_events_written_atomically_follow_earlier_text_and_carry_their_tokens_once(client, writer, begin):
    # Given a delta that may still be extended
    written = begin()
    written.write_text(DELTA, {}, "a", 2)
    # When events are written atomically
    written.write_atomically([("one", {}), ("two", {})], 3)
    # Then they follow it in one batch, and the last one carries their tokens
    assert writer.drain()
    events = journal.read_events(client, written.claim.job_id)
    assert [(event.sequence, event.type, event.tokens) for event in events] == [
        (0, DELTA.encode(), 2), (1, b"one", 0), (2, b"two", 3),
    ]  # fmt: skip
    assert written.tokens == 5


def test_text_is_merged_into_few_deltas_while_redis_is_busy(client, writer, begin):
    """A write does not wait for Redis."""
    written = begin()
    client.execute_command("CLIENT", "PAUSE", 300, "WRITE")
    for n in range(1000):
        written.write_text(DELTA, {}, f"w{n} ", 1)

    assert writer.drain()

    deltas = [orjson.loads(event.data)["delta"] for event in stored(client, written)]
    assert "".join(deltas) == "".join(f"w{n} " for n in range(1000))
    assert len(deltas) < 20


def test_an_evicted_journal_is_written_again_completely(client, writer, begin):
    written = begin()
    written.write("test.said", {"n": 0})
    writer.drain()
    for n in range(1, 40):
        if n % 10 == 5:
            client.flushall()
        written.write("test.said", {"n": n})
        if n % 3 == 0:
            writer.drain()

    assert writer.drain()

    assert numbers(client, written) == list(range(40))


@pytest.mark.parametrize("evicted", ["hash", "stream", "fence", "shards", "both"])
def test_an_evicted_part_of_a_journal_is_repaired_by_the_running_attempt(client, writer, begin, evicted):
    # Given a running attempt
    written = begin()
    for n in range(10):
        written.write("test.said", {"n": n})
    writer.drain()
    # When Redis evicts a part of its journal
    evict(client, written.claim.job_id, evicted)
    # Then its next append writes the lost events again
    written.write("test.said", {"n": 10})
    assert writer.drain()
    assert stored(client, written) == written.attempt_events()
    assert not written.fenced


def test_nothing_is_lost_while_redis_has_no_memory_left(client, writer, begin):
    # Given a running attempt, and a Redis that refuses all writes
    written = begin()
    written.write("test.said", {"n": 0})
    writer.drain()
    limit = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    try:
        for n in range(1, 10):
            written.write("test.said", {"n": n})
        assert not writer.drain(0.3)
        # When a checkpoint archives its events, and Redis loses the journal as well
        written.mark_archived(5)
        client.delete(stream_key(written.claim.job_id))
    finally:
        client.config_set("maxmemory", limit)
    # Then Redis gets all events that it has not confirmed
    assert writer.drain()
    assert numbers(client, written) == list(range(1, 10))


def test_an_attempt_takes_the_fence_back_from_a_claim_that_postgres_has_forgotten(client, writer, begin):
    # Given an attempt, and a worker whose claim was lost in a failover and which opens the journal only now
    written = begin()
    for n in range(3):
        written.write("test.said", {"by": "current", "n": n})
    writer.drain()
    forgotten = Claim(written.claim.job_id, 2, uuid4())
    taken = journal.append(client, forgotten, [event(3, "test.said", {"by": "forgotten"})])
    assert taken.status == "ok"
    # When the attempt writes
    written.write("test.said", {"by": "current", "n": 3})
    assert writer.drain()
    # Then the journal has its events only, and the other one writes nothing more
    assert stored(client, written) == written.attempt_events()
    late = journal.append(client, forgotten, [event(4, "test.said", {"by": "forgotten"})], Fence.HELD)
    assert late.status == "lost"


def test_an_attempt_whose_claim_postgres_has_forgotten_is_fenced_by_one_with_the_same_number(client, writer, begin):
    # Given two claims with the same attempt number, of which Postgres knows the second
    forgotten = begin()
    forgotten.write("test.said", {"by": "forgotten"})
    writer.drain()
    current_journal = begin(forgotten.claim.job_id, forgotten.claim.attempt, first=1)
    # When the first one writes
    forgotten.write("test.said", {"by": "forgotten"})
    wait_until(lambda: forgotten.fenced)
    # Then nothing of it appears
    current_journal.write("test.said", {"by": "current"})
    writer.drain()
    assert [orjson.loads(event.data)["by"] for event in stored(client, current_journal)] == ["forgotten", "current"]


def test_archived_events_are_not_written_again(client, writer, begin):
    written = begin()
    for n in range(10):
        written.write("test.said", {"n": n})
    writer.drain()
    written.mark_archived(6)
    client.flushall()

    written.write("test.said", {"n": 10})
    assert writer.drain()

    assert numbers(client, written) == [7, 8, 9, 10]


def test_a_checkpoint_keeps_events_that_redis_lacks(client, writer, begin):
    written = begin()
    client.execute_command("CLIENT", "PAUSE", 300, "WRITE")
    for n in range(10):
        written.write("test.said", {"n": n})
    unarchived = written.unarchived()

    written.mark_archived(unarchived[-1].sequence)

    assert written.unarchived() == []
    assert writer.drain()
    assert numbers(client, written) == list(range(10))


def test_an_attempt_retains_unarchived_events_of_the_one_before(client, writer, begin):
    """It archives them, and writes them again if Redis loses them."""
    first = begin()
    for n in range(5):
        first.write("test.said", {"n": n})
    writer.drain()
    unarchived_before = stored(client, first)[2:]

    second = begin(first.claim.job_id, 2, first=5, unarchived_before=unarchived_before)
    second.write("test.said", {"n": 5})

    assert [event.sequence for event in second.unarchived()] == [2, 3, 4, 5]
    assert [event.sequence for event in second.attempt_events()] == [5]
    writer.drain()
    client.flushall()
    second.write("test.said", {"n": 6})
    writer.drain()
    assert numbers(client, second) == [2, 3, 4, 5, 6]


def test_a_superseded_attempt_is_fenced(client, writer, begin):
    superseded = begin()
    superseded.write("test.said", {"by": 1})
    writer.drain()
    current_journal = begin(superseded.claim.job_id, 2, first=1)

    superseded.write("test.said", {"by": 1})
    wait_until(lambda: superseded.fenced)

    with pytest.raises(Fenced):
        superseded.write("test.said", {"by": 1})
    with pytest.raises(Fenced):
        superseded.write_text(DELTA, {}, "late", 1)
    current_journal.write("test.said", {"by": 2})
    writer.drain()
    assert [orjson.loads(event.data)["by"] for event in stored(client, current_journal)] == [1, 2]


def test_a_superseded_attempt_cannot_write_to_an_emptied_redis(client, writer, begin):
    superseded = begin()
    superseded.write("test.said", {"by": 1})
    writer.drain()
    current_journal = begin(superseded.claim.job_id, 2, first=1)
    client.flushall()

    superseded.write("test.said", {"by": 1})
    wait_until(lambda: superseded.fenced)

    assert stored(client, current_journal) == []
    current_journal.write("test.said", {"by": 2})
    writer.drain()
    assert [orjson.loads(event.data)["by"] for event in stored(client, current_journal)] == [2]


def test_endings_are_written_only_when_they_are_appended(client, writer, begin):
    written = begin()
    written.write_text(DELTA, {}, "half", 1)

    endings = written.compose_endings([("test.done", {}), ("sangha:job.completed", {})])
    writer.drain()
    assert numbers(client, written) == [0]
    assert [event.sequence for event in endings] == [1, 2]
    assert written.compose_endings([("sangha:job.dead", {})])[0].sequence == 1  # the first ending was rolled back

    written.append_endings(endings)
    writer.drain()
    assert numbers(client, written) == [0, 1, 2]
    assert written.next_sequence == 3


def test_many_journals_are_sent_together(client, writer, begin):
    journals = [begin() for _ in range(50)]
    for n in range(40):
        for written in journals:
            written.write_text(DELTA, {}, f"w{n} ", 1)

    assert writer.drain()

    for written in journals:
        text = "".join(orjson.loads(event.data)["delta"] for event in stored(client, written))
        assert text == "".join(f"w{n} " for n in range(40))


def test_an_unwritable_journal_does_not_delay_the_others(client, writer, begin):
    broken, sound = begin(), begin()
    client.delete(stream_key(broken.claim.job_id))
    client.set(stream_key(broken.claim.job_id), "no stream")

    broken.write("test.said", {})
    sound.write("test.said", {})
    wait_until(lambda: sound.unsent() == [])

    assert not writer.drain(0.1)  # it is retried
    client.delete(stream_key(broken.claim.job_id))
    assert writer.drain()
    assert numbers(client, broken) == [0]


def test_events_written_while_redis_is_down_arrive_after_its_restart(client, server, writer, begin):
    """Redis is killed in the middle of an answer."""
    written = begin()
    for n in range(20):
        written.write("test.said", {"n": n})
    server.signal(signal.SIGKILL)
    for n in range(20, 40):
        written.write_text(DELTA, {}, f"w{n} ", 1)
    assert not writer.drain(0.1)
    wait_until(lambda: not server.running)

    server.start()
    server.wait_ready()

    assert writer.drain()
    events = stored(client, written)
    assert [event.sequence for event in events] == list(range(len(events)))
    text = "".join(orjson.loads(event.data)["delta"] for event in events[20:])
    assert text == "".join(f"w{n} " for n in range(20, 40))


def test_stop_sends_the_remaining_events(client, current):
    writer = JournalWriter(client, lambda *claim: True)
    written = Journal(Claim(new_id("job"), 1), 0, writer)
    journal.append(client, written.claim, [])
    for n in range(100):
        written.write_text(DELTA, {}, f"w{n} ", 1)

    writer.stop()

    assert written.unsent() == []
    assert not writer._thread.is_alive()


def test_stop_does_not_wait_for_an_unavailable_redis(tmp_path: Path):
    writer = JournalWriter(connect(f"unix://{tmp_path}/nothing.sock"), lambda *claim: True)
    written = Journal(Claim("job", 1), 0, writer)
    written.write("test.said", {})

    writer.stop(timeout=0.2)

    assert written.unsent() != []
    wait_until(lambda: not writer._thread.is_alive())


def test_a_new_writer_has_nothing_to_send():
    writer = JournalWriter(redis.Redis(), lambda *claim: True)

    assert writer.drain(0)
    writer.stop()
