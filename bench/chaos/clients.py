"""The clients of a fleet: what each kind requests, repeatedly, until the fleet ends.

Everything that a client does follows from its own seeded random numbers: the same seed sends the same requests. The
results are in its transcripts.
"""

import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from bench.chaos.retrying_client import REPLY_TIMEOUT, Deadline, DeadlineExceeded, HttpRequest, RetryingClient
from bench.chaos.stream_follower import (
    HttpFollower,
    OnEvent,
    OpenAIFollower,
    replay_positions,
    stay_connected,
    stream_path,
)
from bench.chaos.transcripts import ClientTranscript, WorkKind
from bench.harness.client import Address
from bench.harness.stack import WITHOUT_MEMORY
from pipelines.inference.scripted.engine import SLOW_WORD

#: Seconds between two polls, and on average between two pieces of work.
POLL_INTERVAL, REST = 0.25, 0.3

#: The share of turns that are remembered (the others leave the memory pools idle), and of those that are cut short.
REMEMBERED, CUT_SHORT = 0.15, 0.4

#: The share of turns with metadata so large that their journal has it once, and these metadata.
WITH_LARGE_METADATA, LARGE_METADATA = 0.3, {"padding": "x" * 512}

#: The share of ended streams that are replayed, and of turns whose creating request is sent again.
REPLAYED, REPEATED = 0.3, 0.2

#: The final statuses of a response, and the final states of a job.
FINAL = frozenset({"completed", "incomplete", "failed", "cancelled", "dead"})


class FleetClient:
    """One client of an account, on the thread that calls `run`."""

    def __init__(
        self,
        name: str,
        account: str,
        addresses: Sequence[Address],
        token: str,
        seed: int,
        deadline: Deadline,
        tokens: int,
    ) -> None:
        self.name = name
        self.account = account
        self.transcripts: list[ClientTranscript] = []
        self.error: BaseException | None = None
        self.rng = Random(f"{seed} {name}")
        self.seed = seed
        self.tokens = tokens
        self.deadline = deadline
        self.http = RetryingClient(addresses, token, self.rng, deadline)
        self.follower = HttpFollower(self.http, self.rng)

    def run(self) -> None:
        """Do one piece of work after the other, until the fleet ends."""
        try:
            while not self.deadline.is_set:
                self.work()
                self.deadline.pause(self.rng.expovariate(1 / REST))
        except DeadlineExceeded:
            return
        except BaseException as error:
            self.error = error
            raise

    def work(self) -> None:
        """Do one piece of work, to its end."""
        raise NotImplementedError

    def next_key(self) -> str:
        """Return the Idempotency-Key of the next piece of work, which its text contains."""
        return f"{self.seed}-{self.name}-{len(self.transcripts)}"

    def begin(self, kind: WorkKind, request: Mapping[str, Any], length: int = 0) -> ClientTranscript:
        """Start the transcript of a new piece of work."""
        transcript = ClientTranscript(kind, self.name, self.account, self.next_key(), request, time.monotonic(), length)
        self.transcripts.append(transcript)
        return transcript

    def begin_turn(self, *, length: int | None = None, slow: bool = False, **options: Any) -> ClientTranscript:
        """Start the transcript of a turn, as long as the script or cut short, perhaps at the script's slow rate."""
        key = self.next_key()
        random_length = self.rng.randrange(1, self.tokens) if self.rng.random() < CUT_SHORT else None
        memory = {} if self.rng.random() < REMEMBERED else WITHOUT_MEMORY
        how = f" {SLOW_WORD}" if slow else ""
        metadata = {"chaos": key, **(LARGE_METADATA if self.rng.random() < WITH_LARGE_METADATA else {})}
        request = {"input": f"Tell me{how} about {key}.", "metadata": metadata, **memory, **options}
        limit = length or random_length
        if limit is not None:
            request["max_output_tokens"] = limit
        return self.begin("turn", request, limit or self.tokens)

    def create(
        self,
        transcript: ClientTranscript,
        path: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = REPLY_TIMEOUT,
    ) -> Mapping[str, Any]:
        """Create an object, and record its ids. Raises DeadlineExceeded."""
        request = HttpRequest("POST", path, transcript.request, {"Idempotency-Key": transcript.key, **(headers or {})})
        reply = self.http.send(transcript, request, timeout=timeout, record=transcript.replies.append)
        created = reply.json()
        transcript.id = transcript.id or str(created.get("id") or "")
        job_id = reply.headers.get("x-sangha-job-id") or str(created.get("job_id") or "")
        transcript.job_id = job_id or transcript.job_id
        return created

    def read(self, transcript: ClientTranscript, path: str) -> Mapping[str, Any]:
        """Read an object; empty where it is finally refused. Raises DeadlineExceeded."""
        reply = self.http.send(transcript, HttpRequest("GET", path))
        return reply.json() if reply.status == 200 else {}

    def poll(self, transcript: ClientTranscript, path: str, status: str) -> Mapping[str, Any]:
        """Read an object until its `status` field is final. Raises DeadlineExceeded."""
        while current := self.read(transcript, path):
            if not transcript.statuses or transcript.statuses[-1] != current[status]:
                transcript.statuses.append(current[status])
            if current[status] in FINAL:
                break
            self.deadline.check()
            time.sleep(POLL_INTERVAL * self.rng.uniform(0.5, 1.5))
        return current

    def finish_turn(self, transcript: ClientTranscript) -> None:
        """Read the response after the stream of a turn, and sometimes replay the stream. Raises DeadlineExceeded."""
        if not transcript.id:
            return
        transcript.final = self.read(transcript, f"/v1/responses/{transcript.id}")
        if self.rng.random() < REPLAYED:
            for after in replay_positions(transcript, self.rng):
                self.follower.replay(transcript, stream_path(transcript), after)
        if self.rng.random() < REPEATED:
            self.repeat_create(transcript)
        transcript.ended = time.monotonic()

    def repeat_create(self, transcript: ClientTranscript) -> None:
        """Send the creating request again, as a client that lost its reply. Raises DeadlineExceeded."""
        if transcript.request.get("stream"):
            self.follower.repeat_create(transcript)
        elif transcript.exact:  # OpenAI's client sends another body
            self.create(transcript, "/v1/responses")

    def cancel(self, transcript: ClientTranscript) -> None:
        """Cancel a turn. Raises DeadlineExceeded."""
        request = HttpRequest("POST", f"/v1/responses/{transcript.id}/cancel")
        self.http.send(transcript, request, record=transcript.cancels.append)


class Streamer(FleetClient):
    """Streams turns, and disconnects and resumes in mid-answer, once or several times."""

    def work(self) -> None:
        transcript = self.begin_turn(stream=True)
        self.follower.create(transcript, self.disconnects())
        self.finish_turn(transcript)

    def disconnects(self) -> OnEvent:
        """Disconnect after some numbers of events, which are chosen at the start."""
        counts = {self.rng.randrange(1, self.tokens) for _ in range(self.rng.randrange(4))}
        return lambda transcript: len(transcript.events) in counts


class SlowStreamer(Streamer):
    """Streams turns that are slow enough to meet several faults; cancels the last one when the fleet ends."""

    def work(self) -> None:
        transcript = self.begin_turn(stream=True, slow=True, length=self.tokens)
        disconnects = self.disconnects()

        def on_event(turn: ClientTranscript) -> bool:
            if self.deadline.is_set and not turn.cancels:
                self.cancel(turn)
            return disconnects(turn)

        self.follower.create(transcript, on_event)
        self.finish_turn(transcript)


class OpenAIClient(FleetClient):
    """Streams turns with OpenAI's official client, and resumes by `starting_after`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._openai = OpenAIFollower(self.http)

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._openai.close()

    def work(self) -> None:
        transcript = self.begin_turn()
        transcript.exact = False
        count = self.rng.randrange(1, self.tokens)
        on_event: OnEvent = (lambda turn: len(turn.events) == count) if self.rng.random() < 0.5 else stay_connected
        self._openai.create(transcript, on_event)
        self.finish_turn(transcript)


class Poller(FleetClient):
    """Polls background turns until they have ended, and follows their stream afterwards."""

    def work(self) -> None:
        transcript = self.begin_turn(background=True)
        self.create(transcript, "/v1/responses")
        if transcript.id:
            self.poll(transcript, f"/v1/responses/{transcript.id}", "status")
            self.follower.follow(transcript, stream_path(transcript))
            self.finish_turn(transcript)


class Canceller(FleetClient):
    """Cancels turns: before they start, in mid-answer, and as they end."""

    def work(self) -> None:
        self.rng.choice([self._before_start, self._in_mid_answer, self._near_end])()

    def _before_start(self) -> None:
        transcript = self.begin_turn(background=True)
        self.create(transcript, "/v1/responses")
        if transcript.id:
            self.cancel(transcript)
            self.follower.follow(transcript, stream_path(transcript))
            self.finish_turn(transcript)

    def _in_mid_answer(self) -> None:
        self._after_events(self.rng.randrange(2, self.tokens))

    def _near_end(self) -> None:
        self._after_events(self.tokens + self.rng.randrange(-4, 6))

    def _after_events(self, count: int) -> None:
        transcript = self.begin_turn(stream=True)

        def on_event(turn: ClientTranscript) -> bool:
            if len(turn.events) == count and not turn.cancels:
                self.cancel(turn)
            return False

        self.follower.create(transcript, on_event)
        self.finish_turn(transcript)


class ConversationClient(FleetClient):
    """Sends several turns of one conversation at once: they are answered one after the other."""

    def work(self) -> None:
        creation = self.begin("listing", {})
        conversation = self.create(creation, "/v1/conversations")
        if "id" not in conversation:
            return
        creation.ended = time.monotonic()
        turns = [self._create_turn(str(conversation["id"])) for _ in range(self.rng.randrange(2, 5))]
        for transcript in turns:
            if transcript.id:
                self.follower.follow(transcript, stream_path(transcript))
                self.finish_turn(transcript)

    def _create_turn(self, conversation: str) -> ClientTranscript:
        transcript = self.begin_turn(background=True, conversation=conversation)
        self.create(transcript, "/v1/responses")
        return transcript


class Lister(FleetClient):
    """Reads the account's jobs page by page: each is listed once, the newest first."""

    def work(self) -> None:
        transcript = self.begin("listing", {})
        ids: list[str] = []
        page = self.read(transcript, "/v1/jobs?limit=50")
        while page.get("has_more") and len(ids) < 500:
            ids += [job["id"] for job in page["data"]]
            page = self.read(transcript, f"/v1/jobs?limit=50&after={ids[-1]}")
        ids += [job["id"] for job in page.get("data", ())]
        if ids != sorted(set(ids), reverse=True):
            transcript.unexpected.append(f"a listing of jobs has repeats or is out of order: {ids}")
        transcript.ended = time.monotonic()
        self.deadline.pause(self.rng.uniform(0.5, 2))
