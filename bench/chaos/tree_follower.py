"""Follow the merged stream of a tree of jobs, and resume it by its cursor at either web process."""

import time
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPResponse
from random import Random

import orjson

from bench.chaos.retrying_client import CONNECTION_ERRORS, STALL_TIMEOUT, HttpRequest, Reply, RetryingClient
from bench.chaos.transcripts import RecordedReply, StreamConnection, TreeEvent, TreeTranscript
from bench.harness.sse import ALL_EVENTS, ReceivedEvent, chunks, without_comments

#: Runs after each event; True disconnects.
OnTreeEvent = Callable[[TreeTranscript], bool]


class TreeFollower:
    """Follows merged streams over HTTP."""

    def __init__(self, client: RetryingClient, rng: Random) -> None:
        self._client = client
        self._rng = rng

    def follow(self, transcript: TreeTranscript, path: str, on_event: OnTreeEvent) -> None:
        """Follow the tree of a response or a job until all of its journals have ended. Raises DeadlineExceeded."""
        for _ in self._client.tries(lambda: len(transcript.tree_events)):
            if transcript.unexpected or self._read_to_end(transcript, path, on_event):
                return

    def _read_to_end(self, transcript: TreeTranscript, path: str, on_event: OnTreeEvent) -> bool:
        """Read until the connection ends. Returns whether the server has ended the stream, and not a fault."""
        web, before = self._client.choose_web(), len(transcript.tree_events)
        cursor = transcript.tree_events[-1].id if transcript.tree_events else ""
        try:
            with self._client.open(web, self._request(path, cursor)) as (connection, response):
                if not self._accepted(transcript, response, web, path):
                    return False
                if connection.sock is not None:
                    connection.sock.settimeout(STALL_TIMEOUT)
                self._read(transcript, response, on_event)
        except CONNECTION_ERRORS as error:
            transcript.rejections.append(RecordedReply(time.monotonic(), 0, f"{web} {type(error).__name__}"))
            return False
        return transcript.tree_complete or (transcript.complete and len(transcript.tree_events) == before)

    def _request(self, path: str, cursor: str) -> HttpRequest:
        if cursor and self._rng.random() < 0.5:
            return HttpRequest("GET", f"{path}&cursor={cursor}", headers=ALL_EVENTS)
        return HttpRequest("GET", path, headers={**ALL_EVENTS, **({"Last-Event-ID": cursor} if cursor else {})})

    def _accepted(self, transcript: TreeTranscript, response: HTTPResponse, web: int, path: str) -> bool:
        if response.status == 200:
            last = transcript.last
            transcript.connections.append(StreamConnection(time.monotonic(), web, last, "Last-Event-ID"))
            return True
        transcript.rejections.append(RecordedReply(time.monotonic(), response.status, str(web)))
        self._client.check_reply(transcript, f"GET {path}", Reply(response.status, {}, response.read()))
        return False

    def _read(self, transcript: TreeTranscript, response: HTTPResponse, on_event: OnTreeEvent) -> None:
        for event in read_tree_events(chunks(response)):
            transcript.tree_events.append(event)
            if event.job == transcript.job_id:
                number = len(transcript.connections) - 1
                transcript.events.append(ReceivedEvent(event.at, event.sequence, event.type, event.data, number))
            self._client.deadline.check()
            if on_event(transcript):
                return


def read_tree_events(received: Iterable[bytes]) -> Iterator[TreeEvent]:
    """Parse the bytes of a merged stream, cut anywhere. Comments and an incomplete last event are dropped."""
    rest = b""
    for chunk in received:
        now = time.monotonic()
        *frames, rest = (rest + chunk).split(b"\n\n")
        for frame in map(without_comments, frames):
            if frame.startswith(b"id:"):  # not the end of the stream, nor an event that is in no journal
                yield _parse(frame, now)


def _parse(frame: bytes, at: float) -> TreeEvent:
    id_, type_, data = frame.split(b"\n", 2)
    payload = orjson.loads(data[6:])
    own = b"{" + data[6:].partition(b",")[2]  # the journal's event has no key `job`
    return TreeEvent(at, id_[4:].decode(), payload["job"], payload["sequence_number"], type_[7:].decode(), own)
