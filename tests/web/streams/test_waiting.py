"""Telling streams why their turns wait: how often, in one read for all, and never after an attempt's first event."""

import asyncio

import pytest
from openai._streaming import SSEDecoder

from models.platform.errors import Unavailable
from models.serving.waiting_turns import WaitingTurn
from tests.web.streams.test_sse import SCOPE, AsgiClient
from web.streams import sse, waiting
from web.streams.sse import EventStream, OpenStreams
from web.streams.waiting import Wait, WaitingStreams, as_comment, as_event

BUSY = WaitingTurn("busy", 3, 12.34)


class Feed:
    """The source of a stream, to which the test adds frames."""

    def __init__(self):
        self.frames = asyncio.Queue()

    async def __call__(self):
        while (data := await self.frames.get()) is not None:
            yield data


class Reader:
    """Answers reads from what the test sets, and counts them."""

    def __init__(self):
        self.turns, self.reads, self.before_answer = {}, [], lambda: None

    def __call__(self, job_ids):
        self.reads.append(set(job_ids))
        self.before_answer()
        return {job_id: turn for job_id, turn in self.turns.items() if job_id in job_ids}


class Scene:
    """Streams that wait, and the clock's constants of a test."""

    def __init__(self):
        self.streams, self.reader = OpenStreams(), Reader()
        self.waiting = WaitingStreams(self.streams, self.reader)
        self.tasks, self.clients, self.feeds = [], [], []

    async def open(self, job_id, encode=as_event):
        client, feed = AsgiClient(), Feed()
        stream = EventStream(feed(), self.streams, wait=Wait(job_id, encode))
        self.tasks.append(asyncio.create_task(stream(SCOPE, client.receive, client.send)))
        self.clients.append(client)
        self.feeds.append(feed)
        feed.frames.put_nowait(b"first\n\n")
        await client.wait_for(b"first")
        await asyncio.sleep(0)
        return client, feed

    async def report(self):
        await self.waiting.report()
        await asyncio.sleep(0)  # the writes

    async def close(self):
        for feed in self.feeds:
            feed.frames.put_nowait(None)
        await asyncio.wait_for(asyncio.gather(*self.tasks), 5)


@pytest.fixture
def play(monkeypatch):
    """`play(scenario)` runs a coroutine function with a scene, in which all is due at once."""
    for name in ("FIRST_AFTER", "REPORT_INTERVAL", "CHECK_INTERVAL"):
        monkeypatch.setattr(waiting, name, 0.0)

    def play(scenario):
        async def run():
            scene = Scene()
            await scenario(scene)
            await scene.close()

        asyncio.run(run())

    return play


def test_one_read_serves_all_streams(play):
    async def scenario(scene):
        clients = [(await scene.open(f"job_{number % 3}"))[0] for number in range(9)]
        scene.reader.turns = {"job_0": BUSY}
        await scene.report()
        assert scene.reader.reads == [{"job_0", "job_1", "job_2"}]
        assert [b"sangha:engine.waiting" in client.body for client in clients] == [True, False, False] * 3

    play(scenario)


def test_the_event_has_no_id_and_no_number(play):
    async def scenario(scene):
        client, _ = await scene.open("job_0")
        scene.reader.turns = {"job_0": BUSY}
        await scene.report()
        assert client.body == (
            b"first\n\nevent: sangha:engine.waiting\n"
            b'data: {"type":"sangha:engine.waiting","position":3,"predicted_wait":12.3,"reason":"busy"}\n\n'
        )

    play(scenario)


def test_openais_client_does_not_see_the_comment():
    wire = [sse.frame(0, b'{"type":"a"}'), as_comment("job_0", BUSY), sse.frame(1, b'{"type":"b"}')]

    events = list(SSEDecoder().iter_bytes(iter(wire)))

    assert wire[1] == b": waiting position=3 predicted_wait=12.3 reason=busy\n"
    assert [(event.id, event.data) for event in events] == [("0", '{"type":"a"}'), ("1", '{"type":"b"}')]


def test_only_changes_are_reported_again(play):
    async def scenario(scene):
        client, _ = await scene.open("job_0")
        for turn in (BUSY, BUSY, WaitingTurn("busy", 3, 12.9), WaitingTurn("busy", 2, 9), WaitingTurn("no_worker", 2)):
            scene.reader.turns = {"job_0": turn}
            await scene.report()
        assert client.body.count(b"event:") == 3

    play(scenario)


def test_an_interval_has_at_most_one_report(play, monkeypatch):
    async def scenario(scene):
        monkeypatch.setattr(waiting, "REPORT_INTERVAL", 60.0)
        client, _ = await scene.open("job_0")
        for position in (5, 4, 3):
            scene.reader.turns = {"job_0": WaitingTurn("busy", position)}
            await scene.report()
        assert client.body.count(b"event:") == 1

    play(scenario)


def test_nothing_is_reported_after_an_event_that_arrives_during_the_read(play):
    async def scenario(scene):
        client, feed = await scene.open("job_0")
        scene.reader.turns = {"job_0": BUSY}
        loop = asyncio.get_running_loop()

        def attempt_begins():
            asyncio.run_coroutine_threadsafe(deliver(), loop).result(5)

        async def deliver():
            feed.frames.put_nowait(b"in_progress\n\n")
            await client.wait_for(b"in_progress")

        scene.reader.before_answer = attempt_begins
        await scene.report()
        assert client.body == b"first\n\nin_progress\n\n"
        # Until a later read has found that it waits again
        scene.reader.before_answer = lambda: None
        await scene.report()
        assert b"engine.waiting" in client.body

    play(scenario)


def test_the_wait_of_a_turn_whose_worker_has_died_is_reported_again(play):
    async def scenario(scene):
        client, feed = await scene.open("job_0")
        await scene.report()  # it runs
        feed.frames.put_nowait(b"token\n\n")
        await client.wait_for(b"token")
        await scene.report()  # it sends events, so it is not looked at
        assert len(scene.reader.reads) == 1
        scene.reader.turns = {"job_0": WaitingTurn("no_worker", 1)}
        await scene.report()
        assert client.body.endswith(b'"reason":"no_worker"}\n\n')

    play(scenario)


def test_a_stream_is_not_looked_at_in_its_first_moment(play, monkeypatch):
    async def scenario(scene):
        monkeypatch.setattr(waiting, "FIRST_AFTER", 60.0)
        await scene.open("job_0")
        await scene.report()
        assert scene.reader.reads == []

    play(scenario)


def test_reading_goes_on_after_an_error(play, monkeypatch, caplog):
    async def scenario(scene):
        monkeypatch.setattr(waiting, "READ_INTERVAL", 0.0)
        client, _ = await scene.open("job_0")
        scene.reader.turns = {"job_0": BUSY}
        errors = [Unavailable("Postgres is down"), ZeroDivisionError()]

        def fail():
            if errors:
                raise errors.pop(0)

        scene.reader.before_answer = fail
        task = asyncio.create_task(scene.waiting.run())
        await asyncio.wait_for(client.wait_for(b"waiting"), 5)
        task.cancel()

    play(scenario)
    assert "ZeroDivisionError" in caplog.text
    assert "Postgres is down" not in caplog.text
