"""Given attempts that write journals, when Redis is slow, gone or emptied, then nothing is lost or repeated."""

import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.harness.waiting import wait_until
from models.journal import journal
from models.journal.writer import Journal, JournalWriter
from models.platform.errors import Fenced
from models.platform.ids import new_id
from models.platform.redis_client import connect
from ops.process import ChildProcess
from ops.servers import Valkey, running_server

DELTA = "response.output_text.delta"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChildProcess]:
    """A Valkey that may be emptied and killed."""
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
def current() -> set[tuple[str, int]]:
    """The attempts that Postgres would say are present."""
    return set()


@pytest.fixture(scope="module")
def writer(client: redis.Redis, current: set[tuple[str, int]]) -> Iterator[JournalWriter]:
    writer = JournalWriter(client, lambda job_id, attempt: (job_id, attempt) in current)
    yield writer
    writer.stop()


@pytest.fixture
def begin(client, writer, current):
    """`begin(…)` → the journal of a present attempt that has taken the fence."""

    def open_journal(job_id=None, attempt=1, first=0, carried=()):
        job_id = job_id or new_id("job")
        current.difference_update({held for held in current if held[0] == job_id})
        current.add((job_id, attempt))
        journal.append(client, job_id, attempt, [])
        return Journal(job_id, attempt, first, writer, carried)

    return open_journal


def stored(client, written):
    return journal.read_events(client, written.job_id)


def numbers(client, written):
    return [event.sequence for event in stored(client, written)]


def test_what_is_written_arrives_in_order_and_complete(client, writer, begin):
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
def test_text_is_joined_and_never_lost_or_mixed(client, writer, begin, pieces):
    """The deltas of a journal, joined, are what was written, each with the payload it was written with."""
    written = begin()
    said: list[tuple[str, str]] = []
    for kind, text in pieces:
        text = text.encode("utf-8", "replace").decode()
        if kind == "event":
            written.write("test.said", {"text": text})
        else:
            written.write_text(DELTA, {"item_id": kind}, text, 1)
            said.append((kind, text))
    unsent_yet = written.unarchived()
    assert writer.drain()

    events = [orjson.loads(event.data) for event in stored(client, written)]
    deltas = [event for event in events if event["type"] == DELTA]
    for kind in ("text", "other text"):
        assert "".join(e["delta"] for e in deltas if e["item_id"] == kind) == "".join(t for k, t in said if k == kind)
    assert [event["text"] for event in events if event["type"] == "test.said"] == [
        text.encode("utf-8", "replace").decode() for kind, text in pieces if kind == "event"
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert sum(event.tokens for event in stored(client, written)) == len(said) == written.tokens
    assert unsent_yet == written.attempt_events()


def test_what_is_written_together_stands_behind_the_text_before_it_and_counts_once(client, writer, begin):
    # Given text that is still open
    written = begin()
    written.write_text(DELTA, {}, "a", 2)
    # When events are written together
    written.write_atomically([("one", {}), ("two", {})], 3)
    # Then no batch could have held only some of them, and the last one carries their tokens
    assert writer.drain()
    told = journal.read_events(client, written.job_id)
    assert [(event.sequence, event.type, event.tokens) for event in told] == [
        (0, DELTA.encode(), 2), (1, b"one", 0), (2, b"two", 3),
    ]  # fmt: skip
    assert written.tokens == 5


def test_while_redis_is_busy_text_gathers_into_few_deltas(client, writer, begin):
    """A write never waits for Redis; what has gathered meanwhile goes as one."""
    written = begin()
    client.execute_command("CLIENT", "PAUSE", 300, "WRITE")
    for n in range(1000):
        written.write_text(DELTA, {}, f"w{n} ", 1)

    assert writer.drain()

    deltas = [orjson.loads(event.data)["delta"] for event in stored(client, written)]
    assert "".join(deltas) == "".join(f"w{n} " for n in range(1000))
    assert len(deltas) < 20


def test_a_journal_that_redis_forgot_is_written_again_whole(client, writer, begin):
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


def test_after_a_checkpoint_only_the_archived_part_may_be_missing(client, writer, begin):
    written = begin()
    for n in range(10):
        written.write("test.said", {"n": n})
    writer.drain()
    written.mark_archived(6)
    client.flushall()

    written.write("test.said", {"n": 10})
    assert writer.drain()

    assert numbers(client, written) == [7, 8, 9, 10]


def test_a_checkpoint_forgets_nothing_that_redis_lacks(client, writer, begin):
    written = begin()
    client.execute_command("CLIENT", "PAUSE", 300, "WRITE")
    for n in range(10):
        written.write("test.said", {"n": n})
    unarchived = written.unarchived()

    written.mark_archived(unarchived[-1].sequence)

    assert written.unarchived() == []
    assert writer.drain()
    assert numbers(client, written) == list(range(10))


def test_an_attempt_carries_what_only_redis_had_of_the_one_before(client, writer, begin):
    """It is this attempt that archives it, and that writes it again should Redis forget it."""
    first = begin()
    for n in range(5):
        first.write("test.said", {"n": n})
    writer.drain()
    carried = stored(client, first)[2:]

    second = begin(first.job_id, 2, first=5, carried=carried)
    second.write("test.said", {"n": 5})

    assert [event.sequence for event in second.unarchived()] == [2, 3, 4, 5]
    assert [event.sequence for event in second.attempt_events()] == [5]
    writer.drain()
    client.flushall()
    second.write("test.said", {"n": 6})
    writer.drain()
    assert numbers(client, second) == [2, 3, 4, 5, 6]


def test_a_zombie_is_fenced_by_the_attempt_after_it(client, writer, begin):
    zombie = begin()
    zombie.write("test.said", {"by": 1})
    writer.drain()
    present = begin(zombie.job_id, 2, first=1)

    zombie.write("test.said", {"by": 1})
    wait_until(lambda: zombie.fenced)

    with pytest.raises(Fenced):
        zombie.write("test.said", {"by": 1})
    with pytest.raises(Fenced):
        zombie.write_text(DELTA, {}, "late", 1)
    present.write("test.said", {"by": 2})
    writer.drain()
    assert [orjson.loads(event.data)["by"] for event in stored(client, present)] == [1, 2]


def test_a_zombie_cannot_write_over_a_later_attempt_in_an_emptied_redis(client, writer, begin):
    zombie = begin()
    zombie.write("test.said", {"by": 1})
    writer.drain()
    present = begin(zombie.job_id, 2, first=1)
    client.flushall()

    zombie.write("test.said", {"by": 1})
    wait_until(lambda: zombie.fenced)

    assert stored(client, present) == []
    present.write("test.said", {"by": 2})
    writer.drain()
    assert [orjson.loads(event.data)["by"] for event in stored(client, present)] == [2]


def test_endings_count_only_when_they_are_closed(client, writer, begin):
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


def test_many_journals_at_once_share_the_way(client, writer, begin):
    journals = [begin() for _ in range(50)]
    for n in range(40):
        for written in journals:
            written.write_text(DELTA, {}, f"w{n} ", 1)

    assert writer.drain()

    for written in journals:
        text = "".join(orjson.loads(event.data)["delta"] for event in stored(client, written))
        assert text == "".join(f"w{n} " for n in range(40))


def test_one_broken_journal_does_not_hold_up_the_others(client, writer, begin):
    broken, sound = begin(), begin()
    client.delete(journal.stream_key(broken.job_id))
    client.set(journal.stream_key(broken.job_id), "no stream")

    broken.write("test.said", {})
    sound.write("test.said", {})
    wait_until(lambda: sound.unsent() == [])

    assert not writer.drain(0.1)  # it is still being tried
    client.delete(journal.stream_key(broken.job_id))
    assert writer.drain()
    assert numbers(client, broken) == [0]


def test_what_was_written_while_redis_was_down_is_there_when_it_is_up(client, server, writer, begin):
    """kill -9 in the middle of an answer."""
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
    found = stored(client, written)
    assert [event.sequence for event in found] == list(range(len(found)))
    text = "".join(orjson.loads(event.data)["delta"] for event in found[20:])
    assert text == "".join(f"w{n} " for n in range(20, 40))


def test_stopping_sends_what_is_left(client, current):
    writer = JournalWriter(client, lambda job_id, attempt: True)
    written = Journal(new_id("job"), 1, 0, writer)
    journal.append(client, written.job_id, 1, [])
    for n in range(100):
        written.write_text(DELTA, {}, f"w{n} ", 1)

    writer.stop()

    assert written.unsent() == []
    assert not writer._thread.is_alive()


def test_stopping_does_not_wait_for_a_redis_that_is_gone(tmp_path: Path):
    writer = JournalWriter(connect(f"unix://{tmp_path}/nothing.sock"), lambda job_id, attempt: True)
    written = Journal("job", 1, 0, writer)
    written.write("test.said", {})

    writer.stop(timeout=0.2)

    assert written.unsent() != []
    wait_until(lambda: not writer._thread.is_alive())


def test_an_empty_writer_is_drained():
    writer = JournalWriter(redis.Redis(), lambda job_id, attempt: True)

    assert writer.drain(0)
    writer.stop()
