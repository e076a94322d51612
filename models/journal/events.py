"""The events of a job's stream.

An event is kept as the bytes that are sent to clients, `{"type":…,"sequence_number":…,…}` with these two keys first, so
that neither workers nor web processes parse it on the way.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

#: Extension event → its meaning and its fields besides `type` and `sequence_number`.
EXTENSION_EVENTS: Mapping[str, str] = {
    "sangha:job.progress": "Progress of a job. `job_id`; `progress` with `done`, `total` (or null) and `note`.",
    "sangha:job.completed": "Last event of a job that completed. `job_id`; `result`; `error`, which is null.",
    "sangha:job.failed": "Last event of a job that failed. `job_id`; `error` with `code` and `message`; `result`.",
    "sangha:job.cancelled": "Last event of a cancelled job. `job_id`; of a turn `response`, else `error`, `result`.",
    "sangha:job.dead": "Last event of a job that failed in all its attempts. `job_id`; `error`; `result`.",
    "sangha:job.replayed": "An operator replayed a dead job: its stream continues. `job_id`.",
    "sangha:journal.rewound": "Events were lost. Discard events received earlier whose sequence number is this event's "
    "or greater. `job_id`; `attempt`, the number of the attempt that continues.",
    "sangha:memory.recalled": "Memories that were added to the prompt. `item_id`; `memories`, each with `id`, `kind` "
    "and `score`.",
    "sangha:engine.started": "Generation begins. `item_id`; `model`; `endpoint` that serves it, or null for a local "
    "model; `prompt_tokens`; `dropped_messages`, the number of earlier messages that did not fit the context; `step`, "
    "from the second generation of a turn on.",
    "sangha:engine.prompt_read": "The engine has read the prompt and has begun to generate; only local models "
    "that run in llama.cpp report it. `item_id`; `prompt_tokens`; `cached_tokens`, how many of them were cached from "
    "earlier turns of the conversation.",
    "sangha:engine.changed": "Another engine continues the answer, or begins it again. `item_id`; `model`; `endpoint`; "
    "`from_model`; `from_endpoint`; `reason`, why the turn was moved, or null; `tokens` of the generation so far; "
    "`prompt_tokens` as the new engine counts them.",
    "sangha:step.generated": "A generation has ended whose calls the server runs. `step`; `usage`, its tokens.",
    "sangha:tool_call.started": "The server begins a call. `item_id`; `job_id`; `server_label`; `name`.",
    "sangha:tool_call.completed": "A call has its output. `item_id`; `job_id`; `status`.",
    "sangha:agent.started": "The turn delegates to an agent. `item_id`; `job_id`; `response_id` of its turn; `agent` "
    "with `id`, `name` and `version`.",
    "sangha:agent.completed": "The agent has answered, or failed. `item_id`; `job_id`; `response_id`; `status`.",
    "sangha:agent.handed_off": "Another agent continues the turn. `item_id`; `agent` with `id`, `name` and `version`.",
    "sangha:approval.requested": "A call needs a person's approval. `item_id`, the id of the approval; `job_id` that "
    "the turn waits for, or null; `reason`; `expires_at`, in Unix seconds; `call_id` of a call that may have been "
    "executed already; `tool_digest` of the tool's definition.",
    "sangha:approval.decided": "`item_id`, the id of the approval; `status`: approved, denied or expired; `reason`, "
    "the person's text.",
    "sangha:answer.restarted": "The engine cannot continue the answer and begins it again: discard its text so far. "
    "`item_id`; `discarded_tokens`; `since`, the sequence number from which on it is discarded, where a turn has "
    "several generations.",
}

#: An event of streams that is in no journal: it has neither `sequence_number` nor id.
WAITING = "sangha:engine.waiting"
STREAM_EVENTS: Mapping[str, str] = {
    WAITING: "A turn waits for a worker, first after about a second, then at most every three seconds while something "
    "changes. `position`, from 1 on, or null; `predicted_wait`, in seconds, or null where it is unknown; `reason`: "
    "busy, no_worker, conversation_busy, breaker_open, endpoint_saturated or retrying.",
}

#: Types of a journal's last event.
ENDINGS: frozenset[bytes] = frozenset(
    {
        b"response.completed",
        b"response.failed",
        b"response.incomplete",
        b"sangha:job.completed",
        b"sangha:job.failed",
        b"sangha:job.cancelled",
        b"sangha:job.dead",
    }
)

REWOUND = b"sangha:journal.rewound"

#: What the types of extension events begin with.
EXTENSION = b"sangha:"

_START = len(b'{"type":"')

_PRESENT_NAME, _OLD_NAME = b'{"type":"sangha:', b'{"type":"sangha.'


@dataclass(frozen=True, slots=True)
class Event:
    """An event.

    tokens  the number of generated tokens that it carries
    ending  it was composed with the job's ending, and is valid only if that was committed
    """

    sequence: int
    data: bytes
    tokens: int = 0
    ending: bool = field(default=False, compare=False)

    @property
    def type(self) -> bytes:
        """The value of `type`, the first key."""
        return self.data[_START : self.data.index(b'"', _START)]

    @property
    def ends(self) -> bool:
        """Whether this is the last event of its journal."""
        return self.type in ENDINGS


def event(sequence: int, type_: str, payload: Mapping[str, Any], tokens: int = 0) -> Event:
    """Serialise an event."""
    return Event(sequence, orjson.dumps({"type": type_, "sequence_number": sequence, **payload}), tokens)


def with_current_type(data: bytes) -> bytes:
    """Return an event's JSON with the present name of its type, `sangha:subject.verb` for `sangha.subject.verb`.

    Journals that an earlier version wrote, in Redis and in the archive, have the old names. They are not rewritten:
    the archive may be large, and web processes of the earlier version still read it during a rolling deploy.
    """
    return _PRESENT_NAME + data[len(_OLD_NAME) :] if data.startswith(_OLD_NAME) else data


def to_lines(events: Iterable[Event]) -> bytes:
    """Join events, one JSON object per line. JSON has no raw line breaks, so `from_lines` restores them exactly."""
    return b"\n".join(event.data for event in events)


def from_lines(first: int, lines: bytes) -> list[Event]:
    """Split the result of `to_lines`; the first event has the sequence number `first`."""
    return [Event(first + index, with_current_type(line)) for index, line in enumerate(lines.split(b"\n"))]
