"""Follow streams: disconnect in mid-answer, and resume after the last number received, at either web process."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from random import Random
from typing import Any

import openai
import orjson
from openai import OpenAI

from bench.chaos.retrying_client import (
    CONNECTION_ERRORS,
    REPLY_TIMEOUT,
    STALL_TIMEOUT,
    HttpRequest,
    Reply,
    RetryingClient,
)
from bench.chaos.transcripts import ClientTranscript, RecordedReply, Replay, ResumedBy, StreamConnection
from bench.harness.client import tls_context, url_of
from bench.harness.sse import ALL_EVENTS, ReceivedEvent, chunks, read_events

#: Runs after each event; True disconnects.
OnEvent = Callable[[ClientTranscript], bool]


def stay_connected(transcript: ClientTranscript) -> bool:
    """Stay connected."""
    return False


class HttpFollower:
    """Follows streams over HTTP."""

    def __init__(self, client: RetryingClient, rng: Random) -> None:
        self._client = client
        self._rng = rng

    def follow(self, transcript: ClientTranscript, path: str, on_event: OnEvent = stay_connected) -> None:
        """Follow the stream at a path to its end. Raises DeadlineExceeded."""
        for _ in self._client.tries(lambda: len(transcript.events)):
            if transcript.complete or transcript.unexpected:
                return
            self._resume(transcript, path, on_event)

    def create(self, transcript: ClientTranscript, on_event: OnEvent = stay_connected) -> None:
        """Create a streamed turn, and follow it to its end over any number of connections. Raises DeadlineExceeded."""
        for _ in self._client.tries(lambda: len(transcript.events)):
            if transcript.complete or transcript.unexpected:
                return
            if transcript.id:
                self._resume(transcript, f"/v1/responses/{transcript.id}?stream=true", on_event)
            else:
                self._post(transcript, on_event)

    def replay(self, transcript: ClientTranscript, path: str, after: int) -> None:
        """Read an ended stream again, after a number. Raises DeadlineExceeded."""
        headers = ALL_EVENTS if transcript.exact else None
        self._read_again(transcript, after, HttpRequest("GET", path_after(path, after), headers=headers))

    def repeat_create(self, transcript: ClientTranscript) -> None:
        """Send the creating request of an ended turn again: its stream is replayed. Raises DeadlineExceeded."""
        self._read_again(transcript, -1, creating_request(transcript))

    def _read_again(self, transcript: ClientTranscript, after: int, request: HttpRequest) -> None:
        """Read an ended stream to its end, unless it is finally refused."""
        for _ in self._client.tries():
            events = self._read_ended(transcript, request)
            if events is None:
                return
            if events and events[-1].is_last:
                transcript.replays.append(Replay(after, events))
            if events and (events[-1].is_last or events[-1].type == "error"):
                return

    def _read_ended(self, transcript: ClientTranscript, request: HttpRequest) -> list[ReceivedEvent] | None:
        """Read the events of an ended stream until the connection breaks; None where it is finally refused."""
        events: list[ReceivedEvent] = []
        with suppress(*CONNECTION_ERRORS), self._client.open(self._client.choose_web(), request) as (_, response):
            if response.status != 200:
                return [] if self._may_retry(transcript, response, request) else None
            if request.method == "POST":
                id_ = response.headers["x-sangha-response-id"]
                transcript.replies.append(RecordedReply(time.monotonic(), 200, "", id_))
            events += read_events(chunks(response), -1)
        return events

    def _post(self, transcript: ClientTranscript, on_event: OnEvent) -> None:
        web, request = self._client.choose_web(), creating_request(transcript)
        try:
            with self._client.open(web, request) as (connection, response):
                if self._record_creation(transcript, response):
                    transcript.connections.append(StreamConnection(time.monotonic(), web, -1, "create"))
                    self._read(transcript, connection, response, on_event)
        except CONNECTION_ERRORS as error:
            if not transcript.id:
                transcript.replies.append(RecordedReply(time.monotonic(), 0, type(error).__name__))

    def _record_creation(self, transcript: ClientTranscript, response: HTTPResponse) -> bool:
        """Record whether the turn was accepted."""
        if response.status == 200:
            transcript.id = response.headers["x-sangha-response-id"]
            transcript.job_id = response.headers["x-sangha-job-id"]
            transcript.replies.append(RecordedReply(time.monotonic(), 200, "", transcript.id))
            return True
        reply = Reply(response.status, {}, response.read())
        transcript.replies.append(RecordedReply(time.monotonic(), reply.status, reply.code))
        self._client.check_reply(transcript, "POST /v1/responses", reply)
        return False

    def _resume(self, transcript: ClientTranscript, path: str, on_event: OnEvent) -> None:
        web, after = self._client.choose_web(), transcript.last
        resumed_by: ResumedBy = "Last-Event-ID" if after >= 0 and self._rng.random() < 0.5 else "starting_after"
        if resumed_by == "Last-Event-ID":
            request = HttpRequest("GET", path, headers={"Last-Event-ID": str(after), **ALL_EVENTS})
        else:
            request = HttpRequest("GET", path_after(path, after), headers=ALL_EVENTS)
        try:
            with self._client.open(web, request) as (connection, response):
                if response.status != 200:
                    transcript.rejections.append(RecordedReply(time.monotonic(), response.status, str(web)))
                    self._may_retry(transcript, response, request)
                    return
                transcript.connections.append(StreamConnection(time.monotonic(), web, after, resumed_by))
                self._read(transcript, connection, response, on_event)
        except CONNECTION_ERRORS as error:
            transcript.rejections.append(RecordedReply(time.monotonic(), 0, f"{web} {type(error).__name__}"))

    def _may_retry(self, transcript: ClientTranscript, response: HTTPResponse, request: HttpRequest) -> bool:
        reply = Reply(response.status, {}, response.read())
        self._client.check_reply(transcript, f"GET {request.path}", reply)
        return reply.retryable

    def _read(
        self, transcript: ClientTranscript, connection: HTTPConnection, response: HTTPResponse, on_event: OnEvent
    ) -> None:
        if connection.sock is not None:
            connection.sock.settimeout(STALL_TIMEOUT)
        for event in read_events(chunks(response), len(transcript.connections) - 1):
            transcript.events.append(event)
            self._client.deadline.check()
            if on_event(transcript):
                return


class OpenAIFollower:
    """Follows turns with OpenAI's official client, which only gets the addresses of the web processes."""

    def __init__(self, client: RetryingClient) -> None:
        self._client = client
        self._openai = [
            OpenAI(
                base_url=f"{url_of(address)}/v1",
                api_key=client.token,
                timeout=openai.Timeout(REPLY_TIMEOUT, read=STALL_TIMEOUT),
                max_retries=0,  # it would retry the same web process
                http_client=openai.DefaultHttpxClient(trust_env=False, verify=tls_context()),
            )
            for address in client.addresses
        ]

    def close(self) -> None:
        """Close all connections."""
        for client in self._openai:
            client.close()

    def create(self, transcript: ClientTranscript, on_event: OnEvent = stay_connected) -> None:
        """Create a streamed turn, and follow it to its end. Raises DeadlineExceeded."""
        for _ in self._client.tries(lambda: len(transcript.events)):
            if transcript.complete or transcript.unexpected:
                return
            web = self._client.choose_web()
            try:
                self._read(transcript, web, on_event)
                self._client.record_web(web, failed=False)
            except openai.APIError as error:
                if error.code == "answer_restarted":
                    transcript.events.clear()  # and the stream is read from its beginning
                    # A client that always disconnected at the same event beyond a rewind would get this error each
                    # time, and never reach the end.
                    on_event = stay_connected
                else:
                    self._client.record_web(web, failed=True)
                    self._record_error(transcript, error)

    def _read(self, transcript: ClientTranscript, web: int, on_event: OnEvent) -> None:
        after = transcript.last
        stream = self._open(self._openai[web], transcript)
        number = len(transcript.connections)
        transcript.connections.append(StreamConnection(time.monotonic(), web, after, "openai"))
        with stream:
            for event in stream:
                payload: Mapping[str, Any] = event.to_dict(mode="json")
                transcript.events.append(as_received(number, payload))
                if not transcript.id and "response" in payload:
                    transcript.id, transcript.job_id = payload["response"]["id"], payload["response"]["job_id"]
                    transcript.replies.append(RecordedReply(time.monotonic(), 200, "", transcript.id))
                self._client.deadline.check()
                if on_event(transcript):
                    return

    def _open(self, client: OpenAI, transcript: ClientTranscript) -> Any:
        if transcript.id:
            return client.responses.retrieve(transcript.id, stream=True, starting_after=transcript.last)
        extension = {name: value for name, value in transcript.request.items() if name == "memory"}
        standard = {name: value for name, value in transcript.request.items() if name != "memory"}
        headers = {"Idempotency-Key": transcript.key}
        return client.responses.create(**standard, stream=True, extra_body=extension, extra_headers=headers)

    def _record_error(self, transcript: ClientTranscript, error: openai.APIError) -> None:
        if isinstance(error, openai.APIStatusError):
            reply = Reply(error.status_code, {}, error.response.content)
            recorded = RecordedReply(time.monotonic(), reply.status, reply.code)
            self._client.check_reply(transcript, "OpenAI's client", reply)
        else:
            recorded = RecordedReply(time.monotonic(), 0, type(error).__name__)
        (transcript.rejections if transcript.id else transcript.replies).append(recorded)


def as_received(connection: int, payload: Mapping[str, Any]) -> ReceivedEvent:
    """Return an event of OpenAI's client."""
    return ReceivedEvent(
        time.monotonic(), payload["sequence_number"], payload["type"], orjson.dumps(payload), connection
    )


def creating_request(transcript: ClientTranscript) -> HttpRequest:
    """Return the request that creates a streamed turn."""
    headers = {"Idempotency-Key": transcript.key, **ALL_EVENTS}
    return HttpRequest("POST", "/v1/responses", transcript.request, headers)


def path_after(path: str, after: int) -> str:
    """Return the path of a stream that begins after a number."""
    return f"{path}{'&' if '?' in path else '?'}starting_after={after}"


def stream_path(transcript: ClientTranscript) -> str:
    """Return the path of the stream of a piece of work."""
    if transcript.kind in ("turn", "tree"):
        return f"/v1/responses/{transcript.id}?stream=true"
    return f"/v1/jobs/{transcript.job_id}/events"


def replay_positions(transcript: ClientTranscript, rng: Random) -> Sequence[int]:
    """Return the positions from which an ended stream is replayed: the beginning, and a random one."""
    return (-1, rng.randrange(-1, max(transcript.last, 0)))
