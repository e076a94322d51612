"""Following streams: leaving in mid-answer, and coming back by the last number that was heard, at either door."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from random import Random
from typing import Any

import openai
import orjson
from openai import OpenAI

from bench.chaos.door import ANSWER, BROKEN, STALL, Doors, Reply
from bench.chaos.transcripts import Answer, Connection, Heard, How, Replay, Transcript, frames

#: What to do when an event was heard; True leaves the stream.
OnHeard = Callable[[Transcript], bool]


def stay(transcript: Transcript) -> bool:
    """Hear on."""
    return False


class Listener:
    """Follows streams over raw HTTP."""

    def __init__(self, doors: Doors, rng: Random) -> None:
        self._doors = doors
        self._rng = rng

    def follow(self, transcript: Transcript, path: str, on_heard: OnHeard = stay) -> None:
        """Hear the stream at a path to its end. Raises OutOfPatience."""
        for _ in self._doors.tries(lambda: len(transcript.events)):
            if transcript.over:
                return
            self._rejoin(transcript, path, on_heard)

    def create(self, transcript: Transcript, on_heard: OnHeard = stay) -> None:
        """Begin a streamed turn and hear it to its end, however often its connection breaks. Raises OutOfPatience."""
        for _ in self._doors.tries(lambda: len(transcript.events)):
            if transcript.over or (transcript.strange and not transcript.id):
                return
            if transcript.id:
                self._rejoin(transcript, f"/v1/responses/{transcript.id}?stream=true", on_heard)
            else:
                self._post(transcript, on_heard)

    def replay(self, transcript: Transcript, path: str, after: int) -> None:
        """Ask for an ended stream again behind a number. Raises OutOfPatience."""
        self._again(transcript, after, "GET", f"{path}{'&' if '?' in path else '?'}starting_after={after}")

    def doubt(self, transcript: Transcript) -> None:
        """Ask for an ended turn once more under its key: it is told from its beginning. Raises OutOfPatience."""
        self._again(transcript, -1, "POST", "/v1/responses")

    def _again(self, transcript: Transcript, after: int, method: str, path: str) -> None:
        """Read an ended stream to its end, unless it is refused for good."""
        for _ in self._doors.tries():
            events = self._read_again(transcript, method, path)
            if events is None:
                return
            if events and events[-1].ends:
                transcript.replays.append(Replay(after, events))
                return

    def _read_again(self, transcript: Transcript, method: str, path: str) -> list[Heard] | None:
        """The events of an ended stream as far as they came; None where they were refused for good."""
        posts = method == "POST"
        body, headers = (transcript.asked, {"Idempotency-Key": transcript.key}) if posts else (None, {})
        events: list[Heard] = []
        with suppress(*BROKEN), self._doors.open(self._doors.choose(), method, path, body, headers) as (_, answer):
            if answer.status != 200:
                return [] if self._put_off(transcript, answer, path) else None
            if posts:
                transcript.answers.append(Answer(time.monotonic(), 200, "", answer.headers["x-sangha-response-id"]))
            for sequence, type_, data in frames(_chunks(answer)):
                events.append(Heard(time.monotonic(), -1, sequence, type_, data))
        return events

    def _post(self, transcript: Transcript, on_heard: OnHeard) -> None:
        door = self._doors.choose()
        headers = {"Idempotency-Key": transcript.key}
        try:
            with self._doors.open(door, "POST", "/v1/responses", transcript.asked, headers) as (connection, answer):
                if not self._noted(transcript, answer):
                    return
                transcript.connections.append(Connection(time.monotonic(), door, -1, "create"))
                self._hear(transcript, connection, answer, on_heard)
        except BROKEN as error:
            if not transcript.id:
                transcript.answers.append(Answer(time.monotonic(), 0, type(error).__name__))

    def _noted(self, transcript: Transcript, answer: HTTPResponse) -> bool:
        """Note whether the turn was accepted."""
        now = time.monotonic()
        if answer.status == 200:
            transcript.id = answer.headers["x-sangha-response-id"]
            transcript.job_id = answer.headers["x-sangha-job-id"]
            transcript.answers.append(Answer(now, 200, "", transcript.id))
            return True
        reply = Reply(answer.status, {}, answer.read())
        transcript.answers.append(Answer(now, reply.status, reply.code))
        self._doors.complain(transcript, "POST /v1/responses", reply)
        return False

    def _rejoin(self, transcript: Transcript, path: str, on_heard: OnHeard) -> None:
        door, after = self._doors.choose(), transcript.last
        by_header = after >= 0 and self._rng.random() < 0.5
        headers = {"Last-Event-ID": str(after)} if by_header else {}
        if not by_header:
            path += f"{'&' if '?' in path else '?'}starting_after={after}"
        try:
            with self._doors.open(door, "GET", path, headers=headers) as (connection, answer):
                if answer.status != 200:
                    transcript.refused.append(Answer(time.monotonic(), answer.status, str(door)))
                    self._put_off(transcript, answer, path)
                    return
                how: How = "Last-Event-ID" if by_header else "starting_after"
                transcript.connections.append(Connection(time.monotonic(), door, after, how))
                self._hear(transcript, connection, answer, on_heard)
        except BROKEN as error:
            transcript.refused.append(Answer(time.monotonic(), 0, f"{door} {type(error).__name__}"))

    def _put_off(self, transcript: Transcript, answer: HTTPResponse, path: str) -> bool:
        """Whether to ask again."""
        reply = Reply(answer.status, {}, answer.read())
        self._doors.complain(transcript, f"GET {path}", reply)
        return reply.again

    def _hear(
        self, transcript: Transcript, connection: HTTPConnection, answer: HTTPResponse, on_heard: OnHeard
    ) -> None:
        if connection.sock is not None:
            connection.sock.settimeout(STALL)
        number = len(transcript.connections) - 1
        for sequence, type_, data in frames(_chunks(answer)):
            transcript.hear(Heard(time.monotonic(), number, sequence, type_, data))
            self._doors.patience.check()
            if on_heard(transcript):
                return


def _chunks(answer: HTTPResponse) -> Iterator[bytes]:
    while data := answer.read1(65536):
        yield data


class Official:
    """Follows turns with OpenAI's own client, which is told nothing but where the doors are."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._clients = [
            OpenAI(
                base_url=f"http://{host}:{port}/v1",
                api_key=doors.token,
                timeout=openai.Timeout(ANSWER, read=STALL),
                max_retries=0,  # it would knock at the same door
                http_client=openai.DefaultHttpxClient(trust_env=False),
            )
            for host, port in doors.addresses
        ]

    def close(self) -> None:
        """Leave."""
        for client in self._clients:
            client.close()

    def create(self, transcript: Transcript, on_heard: OnHeard = stay) -> None:
        """Begin a streamed turn and hear it to its end. Raises OutOfPatience."""
        for _ in self._doors.tries(lambda: len(transcript.events)):
            if transcript.over or (transcript.strange and not transcript.id):
                return
            door = self._doors.choose()
            try:
                self._connect(transcript, door, on_heard)
                self._doors.note(door, failed=False)
            except openai.APIStatusError as error:
                self._doors.note(door, failed=True)
                self._refused(transcript, error)
            except openai.APIError as error:
                self._doors.note(door, failed=True)
                if not transcript.id:
                    transcript.answers.append(Answer(time.monotonic(), 0, type(error).__name__))

    def _connect(self, transcript: Transcript, door: int, on_heard: OnHeard) -> None:
        after = transcript.last
        stream = self._stream(self._clients[door], transcript)
        number = len(transcript.connections)
        transcript.connections.append(Connection(time.monotonic(), door, after, "openai"))
        with stream:
            for event in stream:
                told: Mapping[str, Any] = event.to_dict(mode="json")
                transcript.hear(_as_heard(number, told))
                self._know(transcript, told)
                self._doors.patience.check()
                if on_heard(transcript):
                    return

    def _stream(self, client: OpenAI, transcript: Transcript) -> Any:
        if transcript.id:
            return client.responses.retrieve(transcript.id, stream=True, starting_after=transcript.last)
        own = {name: value for name, value in transcript.asked.items() if name == "memory"}
        theirs = {name: value for name, value in transcript.asked.items() if name != "memory"}
        headers = {"Idempotency-Key": transcript.key}
        return client.responses.create(**theirs, stream=True, extra_body=own, extra_headers=headers)

    def _know(self, transcript: Transcript, told: Mapping[str, Any]) -> None:
        if not transcript.id and "response" in told:
            transcript.id, transcript.job_id = told["response"]["id"], told["response"]["job_id"]
            transcript.answers.append(Answer(time.monotonic(), 200, "", transcript.id))

    def _refused(self, transcript: Transcript, error: openai.APIStatusError) -> None:
        reply = Reply(error.status_code, {}, error.response.content)
        if not transcript.id:
            transcript.answers.append(Answer(time.monotonic(), reply.status, reply.code))
        self._doors.complain(transcript, "OpenAI's client", reply)


def _as_heard(number: int, told: Mapping[str, Any]) -> Heard:
    return Heard(time.monotonic(), number, told["sequence_number"], told["type"], orjson.dumps(told))


def stream_path(transcript: Transcript) -> str:
    """Where the stream of a piece of work can be followed."""
    if transcript.kind == "turn":
        return f"/v1/responses/{transcript.id}?stream=true"
    return f"/v1/jobs/{transcript.job_id}/events"


def replayed_from(transcript: Transcript, rng: Random) -> Sequence[int]:
    """From where an ended stream is asked for again: the beginning, and somewhere inside."""
    return (-1, rng.randrange(-1, max(transcript.last, 0)))
