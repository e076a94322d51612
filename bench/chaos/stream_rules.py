"""Rules about what a client received, which need nothing but its transcript."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from bench.chaos.transcripts import EXTENSION, ClientTranscript
from bench.chaos.violations import Violation
from bench.harness.sse import DELTA, REWOUND, ReceivedEvent, marks_of, scripted_text, text_of, without_marks
from pipelines.chat.recalled_memories import references
from pipelines.chat.transcript import ANSWER_RESTARTED

#: The order of a response's statuses.
ORDER = {"queued": 0, "in_progress": 1, "completed": 2, "incomplete": 2, "failed": 2, "cancelled": 2}

#: The events that may occur several times in a stream.
REPEATABLE = frozenset(
    {DELTA, REWOUND, ANSWER_RESTARTED, "sangha:job.progress", "sangha:engine.changed", "response.output_item.added"}
)


def check(
    transcript: ClientTranscript, *, journal_lost: bool, excused: bool = False, mixed: bool = False
) -> Iterator[Violation]:
    """Check a transcript.

    journal_lost  Valkey lost data during the run
    excused       Postgres may have lost rows of this work: only the received events are checked, not later reads
    mixed         processes of two versions may have built its objects: one has fields that the other lacks
    """
    if excused and was_lost(transcript):
        return
    yield from check_end(transcript)
    if excused:
        yield from check_received(transcript, journal_lost=True)
        return
    yield from check_statuses(transcript)
    yield from check_replies(transcript)
    yield from check_received(transcript, journal_lost=journal_lost)
    if transcript.events:
        yield from check_replays(transcript)
    if transcript.kind == "turn" and transcript.complete:
        yield from check_response(transcript, mixed=mixed)


def check_received(transcript: ClientTranscript, *, journal_lost: bool) -> Iterator[Violation]:
    """Check the events and the text that a client received."""
    if transcript.events:
        yield from check_numbers(transcript, journal_lost=journal_lost)
        yield from check_single_events(transcript)
    if transcript.kind == "turn":
        yield from check_marks(transcript.subject, text_of(transcript.effective_events()))
    if transcript.kind == "turn" and transcript.complete:
        yield from check_text(transcript)


def was_lost(transcript: ClientTranscript) -> bool:
    """Return whether the work does not exist any more, so that no end can follow."""
    replies = sorted([*transcript.replies, *transcript.rejections], key=lambda reply: reply.at)
    return transcript.ended is None and bool(replies) and replies[-1].status == 404


def check_end(transcript: ClientTranscript) -> Iterator[Violation]:
    """Check that all work ended, and that its client received the end."""
    if transcript.ended is None:
        last = transcript.events[-1].type if transcript.events else "no event"
        tries = [reply.status for reply in transcript.replies[-5:]]
        detail = f"last received {last}, states {transcript.statuses}, replies {tries}"
        yield Violation("ends", transcript.subject, detail)


def check_statuses(transcript: ClientTranscript) -> Iterator[Violation]:
    """Check that the status of a turn never regressed."""
    order = [ORDER.get(status, 0) for status in transcript.statuses]
    if transcript.kind == "turn" and order != sorted(order):
        yield Violation("ends", transcript.subject, f"its status went back: {transcript.statuses}")


def check_replies(transcript: ClientTranscript) -> Iterator[Violation]:
    """Check that no reply was unexpected, and that all requests with one key created one object."""
    for reply in transcript.unexpected:
        yield Violation("answers", transcript.subject, reply)
    created = {reply.id for reply in transcript.replies if reply.accepted and reply.id}
    if len(created) > 1:
        yield Violation("once a key", transcript.subject, f"{transcript.key} created {sorted(created)}")


def check_numbers(transcript: ClientTranscript, *, journal_lost: bool) -> Iterator[Violation]:
    """Check that numbers increase by one from 0 over all connections, except that a rewind goes back.

    A rewind may only replace received events where the journal was lost, or for a client that resumes after a rewind
    which it has received already.
    """
    if not transcript.exact:
        yield from _check_rising(transcript)
        return
    known: list[ReceivedEvent] = []
    for event in transcript.events:
        if event.type == REWOUND and event.sequence < len(known):
            if not journal_lost and known[event.sequence].data != event.data:
                yield _wrong_number(transcript, event, f"replaces events to {len(known) - 1}, though nothing was lost")
            del known[event.sequence :]
        elif event.sequence != len(known):
            yield _wrong_number(transcript, event, f"follows {len(known) - 1}")
            return
        known.append(event)


def _check_rising(transcript: ClientTranscript) -> Iterator[Violation]:
    """Check the numbers of OpenAI's types, which lack those of other events."""
    events = transcript.effective_events()
    for earlier, later in pairwise(events):
        if later.sequence <= earlier.sequence:
            yield _wrong_number(transcript, later, f"follows {earlier.sequence}")


def _wrong_number(transcript: ClientTranscript, event: ReceivedEvent, problem: str) -> Violation:
    connections = transcript.connections
    connection = connections[event.connection] if event.connection < len(connections) else None
    return Violation("numbers", transcript.subject, f"{event.sequence} ({event.type}) {problem}, over {connection}")


def check_single_events(transcript: ClientTranscript) -> Iterator[Violation]:
    """Check that the last event occurs once and at the end, and that no other unique event is repeated."""
    effective = transcript.effective_events()
    ends = [event.sequence for event in effective if event.is_last]
    if ends and ends != [effective[-1].sequence]:
        yield Violation("ends", transcript.subject, f"ends at {ends}, and its last event is {effective[-1].sequence}")
    counts = Counter(event.type for event in effective)
    for type_, count in counts.items():
        if count > 1 and type_ not in REPEATABLE:
            yield Violation("emitted once", transcript.subject, f"{type_} occurs {count} times")


def check_replays(transcript: ClientTranscript) -> Iterator[Violation]:
    """Check that a replay has the same events, byte by byte; after a rewind's number it begins with the rewind."""
    effective = transcript.effective_events()
    rewinds = [event.sequence - 1 for event in effective if event.type == REWOUND]
    for replay in transcript.replays:
        positions = {replay.after, min([replay.after, *rewinds])}
        expected = [
            _contents([event for event in effective if event.sequence > position], transcript) for position in positions
        ]
        if _contents(replay.events, transcript) not in expected:
            first = replay.events[0].sequence if replay.events else None
            detail = f"after {replay.after} it began with {first} and had {len(replay.events)} other events"
            yield Violation("replay", transcript.subject, detail)


def _contents(events: Sequence[ReceivedEvent], transcript: ClientTranscript) -> list[object]:
    if transcript.exact:
        return [event.data for event in events]
    return [event.json() for event in events if not event.type.startswith(EXTENSION)]


def check_text(transcript: ClientTranscript) -> Iterator[Violation]:
    """Check that the text is the script's, in the requested length; a cancelled turn has a prefix of it."""
    text, end = without_marks(text_of(transcript.effective_events())), transcript.events[-1].type
    expected = scripted_text(transcript.length)
    if end in ("response.completed", "response.incomplete"):
        correct = text == expected
    else:
        correct = expected.startswith(text) and (not text or text.endswith(" "))
    if not correct:
        yield Violation("text", transcript.subject, f"{end} after {difference(text, expected)}")


def check_marks(subject: str, text: str) -> Iterator[Violation]:
    """Check that no attempt wrote on after another one had continued its text: the words of each follow one another.

    The words of a version that does not mark them have no mark.
    """
    sections = [mark for mark, _ in groupby(marks_of(text)) if mark]
    repeated = [mark for mark, count in Counter(sections).items() if count > 1]
    if repeated:
        yield Violation("mixed", subject, f"{repeated} wrote after other attempts: {text!r}")


def difference(text: str, expected: str) -> str:
    """Describe where a text first differs from the expected one."""
    words, expected_words = text.split(" "), expected.split(" ")
    pairs = enumerate(zip(words, expected_words, strict=False))
    index = next((index for index, (word, wanted) in pairs if word != wanted), min(len(words), len(expected_words)))
    around = " ".join(words[max(0, index - 3) : index + 5])
    return f"{len(words) - 1} words of {len(expected_words) - 1}; around word {index}: {around!r}"


def without_recalled_texts(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return a response without the texts of recalled memories, which its events do not have."""
    if not response.get("recalled"):
        return dict(response)
    return {**response, "recalled": references(response["recalled"])}


def unequal_fields(left: Mapping[str, Any], right: Mapping[str, Any], *, mixed: bool) -> list[str]:
    """Return the fields in which two objects differ, sorted; of two versions, only those that both have."""
    names = sorted(left.keys() | right.keys())
    pairs = {name: (left.get(name), right.get(name)) for name in names}
    return [name for name, pair in pairs.items() if pair[0] != pair[1] and not (mixed and None in pair)]


def check_response(transcript: ClientTranscript, *, mixed: bool = False) -> Iterator[Violation]:
    """Check that the stored response equals that of the last event and has the text of the stream."""
    response = without_recalled_texts(transcript.effective_events()[-1].json().get("response") or {})
    final = without_recalled_texts(transcript.final or {})
    unequal = unequal_fields(response, final, mixed=mixed) if final else []
    if unequal:
        yield Violation("response", transcript.subject, f"stream and response differ in {unequal}")
    output = "".join(
        part["text"] for item in response.get("output", ()) for part in item.get("content", ()) if "text" in part
    )
    if output != text_of(transcript.effective_events()):
        yield Violation("response", transcript.subject, f"its output is {output[:80]!r}")
