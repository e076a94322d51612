"""The record of one piece of work, as its client observed it: the input of the checker.

Times are of `time.monotonic`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.harness.sse import ReceivedEvent, effective_events
from models.journal.events import ENDINGS
from models.journal.events import EXTENSION as EXTENSION_BYTES
from pipelines.inference.scripted.engine import SLOW_WORD

WorkKind = Literal["turn", "tree", "memories", "meditation", "embeddings", "listing", "batch", "file", "report"]

#: How a connection requests its position in the stream.
ResumedBy = Literal["create", "Last-Event-ID", "starting_after", "openai"]

#: What the types of events begin with that OpenAI's API does not have.
EXTENSION = EXTENSION_BYTES.decode()

#: The tokens of a whole answer, and how many the engine generates a second; slow answers take 40 seconds.
TOKENS, RATE, SLOW_RATE = 40, 40, 1

#: `SANGHA_SCRIPT` of the workers: each attempt marks its words.
SCRIPT = f"tokens={TOKENS},rate={RATE},slow={SLOW_RATE},nonce=1"


@dataclass(frozen=True, slots=True)
class Period:
    """A period by time.monotonic."""

    began: float
    ended: float

    def overlaps(self, began: float, ended: float | None) -> bool:
        """Return whether it overlaps with another period; None: that has not ended."""
        return began <= self.ended and (ended is None or ended >= self.began)


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """The reply to one request; the status 0 is a connection that broke or timed out before it."""

    at: float
    status: int
    code: str = ""
    id: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the platform accepted the work."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class StreamConnection:
    """A connection that carried events: since when, to which web process, after which number, and how requested."""

    at: float
    web: int
    after: int
    resumed_by: ResumedBy


@dataclass(frozen=True, slots=True)
class Replay:
    """A second reading of an ended stream, after a number."""

    after: int
    events: Sequence[ReceivedEvent]


@dataclass(slots=True)
class ClientTranscript:
    """One piece of work.

    key         the Idempotency-Key of all requests that create it; the turn's metadata has it as `chaos`
    request     the body of the creating request
    exact       whether the bytes of all events are known: OpenAI's client returns the content of its own types
    length      the tokens that the script has for it
    replies     to all creating requests
    cancels     to all cancelling requests
    statuses    of all polls, in order
    rejections  of connections to its stream that broke or were not opened: `code` has the web process and the error
    final       the object after the client knew that it had ended
    unexpected  replies that no fault explains
    stays_from  time.time from which it may not leave the installation; None: it may
    """

    kind: WorkKind
    client: str
    account: str
    key: str
    request: Mapping[str, Any]
    began: float
    length: int = 0
    exact: bool = True
    id: str = ""
    job_id: str = ""
    replies: list[RecordedReply] = field(default_factory=list)
    connections: list[StreamConnection] = field(default_factory=list)
    events: list[ReceivedEvent] = field(default_factory=list)
    cancels: list[RecordedReply] = field(default_factory=list)
    rejections: list[RecordedReply] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    replays: list[Replay] = field(default_factory=list)
    final: Mapping[str, Any] | None = None
    ended: float | None = None
    unexpected: list[str] = field(default_factory=list)
    stays_from: float | None = None

    @property
    def subject(self) -> str:
        """Its name in a report."""
        return f"{self.client} {self.kind} {self.id or self.job_id or self.key}"

    @property
    def slow(self) -> bool:
        """Whether its answer is generated at the script's slow rate."""
        return SLOW_WORD in str(self.request.get("input"))

    @property
    def accepted_at(self) -> float | None:
        """When its client first knew that it was accepted; None if it never did."""
        return next((reply.at for reply in self.replies if reply.accepted), None)

    @property
    def last(self) -> int:
        """The last sequence number received, from where to resume; -1 before the first."""
        return self.events[-1].sequence if self.events else -1

    @property
    def complete(self) -> bool:
        """Whether the last event was received."""
        return bool(self.events) and self.events[-1].is_last

    def effective_events(self) -> list[ReceivedEvent]:
        """Return the events without those that a later rewind replaced.

        Those of OpenAI's client have types of OpenAI's API only, unless it met a web process of the previous version.
        """
        events = effective_events(self.events)
        return events if self.exact else [event for event in events if not event.type.startswith(EXTENSION)]


@dataclass(frozen=True, slots=True)
class TreeEvent:
    """An event of a merged stream: its cursor, its job, and the event as the job's own journal has it."""

    at: float
    id: str
    job: str
    sequence: int
    type: str
    data: bytes


@dataclass(slots=True)
class TreeTranscript(ClientTranscript):
    """A turn of an agent that delegates to others.

    tool_keys    the addresses of the tool server by the name of the agent that uses it
    tree_events  of the merged stream, if the client follows that one; `events` has those of the root
    """

    tool_keys: Mapping[str, str] = field(default_factory=dict)
    tree_events: list[TreeEvent] = field(default_factory=list)

    @property
    def tree_complete(self) -> bool:
        """Whether every journal of which an event was received has ended."""
        ended = {event.job for event in self.tree_events if event.type.encode() in ENDINGS}
        return self.complete and ended == {event.job for event in self.tree_events}


@dataclass(slots=True)
class BatchTranscript(ClientTranscript):
    """A batch.

    lines   the custom_ids of its file, in order
    output  the lines of the output file; `errors` are those of the error file
    """

    lines: Sequence[str] = ()
    output: list[Mapping[str, Any]] = field(default_factory=list)
    errors: list[Mapping[str, Any]] = field(default_factory=list)
