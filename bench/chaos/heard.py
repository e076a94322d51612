"""Rules about what a client heard: they need nothing but its transcript."""

from collections import Counter
from collections.abc import Iterator, Sequence

import orjson

from bench.chaos.transcripts import DELTA, RESTARTED, REWOUND, Heard, Transcript, text_of
from bench.chaos.violations import Violation
from bench.client import script

#: How far a response has come, by its status: it never goes back.
PROGRESS = {"queued": 0, "in_progress": 1, "completed": 2, "incomplete": 2, "failed": 2, "cancelled": 2}

#: The events that a stream may have more than one of.
REPEATABLE = frozenset({DELTA, REWOUND, RESTARTED, "sangha:job.progress", "response.output_item.added"})


def judged(transcript: Transcript, *, forgot: bool) -> Iterator[Violation]:
    """What is wrong with what a client heard. `forgot` says that the journal's store has lost what it held."""
    yield from ended(transcript)
    yield from answered(transcript)
    if transcript.events:
        yield from numbered(transcript, forgot=forgot)
        yield from told_once(transcript)
        yield from replayed(transcript)
    if transcript.kind == "turn" and transcript.over:
        yield from spoken(transcript)
        yield from shown(transcript)


def ended(transcript: Transcript) -> Iterator[Violation]:
    """What a client began has come to its end, and it knows."""
    if transcript.ended is None:
        last = transcript.events[-1].type if transcript.events else "no event"
        tries = [answer.status for answer in transcript.answers[-5:]]
        yield Violation("ends", transcript.subject, f"heard {last} last, states {transcript.statuses}, tries {tries}")
    stages = [PROGRESS.get(status, 0) for status in transcript.statuses]
    if transcript.kind == "turn" and stages != sorted(stages):
        yield Violation("ends", transcript.subject, f"its status went back: {transcript.statuses}")


def answered(transcript: Transcript) -> Iterator[Violation]:
    """No answer was out of place, and all tries under one key made one thing."""
    for strange in transcript.strange:
        yield Violation("answers", transcript.subject, strange)
    made = {answer.id for answer in transcript.answers if answer.accepted and answer.id}
    if len(made) > 1:
        yield Violation("once a key", transcript.subject, f"{transcript.key} made {sorted(made)}")


def numbered(transcript: Transcript, *, forgot: bool) -> Iterator[Violation]:
    """Numbers go up by one from 0, over all connections; only a rewind takes some back, and it says so.

    A rewind takes back what was heard only where the journal's store has forgotten, or for a client that comes back
    behind a rewind that it has heard already.
    """
    known: list[Heard] = []
    for heard in transcript.events:
        if heard.type == REWOUND and heard.sequence < len(known):
            if not forgot and known[heard.sequence].data != heard.data:
                yield _misnumbered(transcript, heard, f"taken back from {len(known) - 1}, though nothing was lost")
            del known[heard.sequence :]
        elif heard.sequence != len(known):
            yield _misnumbered(transcript, heard, f"follows {len(known) - 1}")
            return
        known.append(heard)


def _misnumbered(transcript: Transcript, heard: Heard, why: str) -> Violation:
    over = transcript.connections[heard.connection] if heard.connection < len(transcript.connections) else None
    return Violation("numbers", transcript.subject, f"{heard.sequence} ({heard.type}) {why}, over {over}")


def told_once(transcript: Transcript) -> Iterator[Violation]:
    """The end comes once, and last; so does everything that happens once."""
    standing = transcript.standing()
    ends = [heard.sequence for heard in standing if heard.ends]
    if ends and ends != [standing[-1].sequence]:
        yield Violation("ends", transcript.subject, f"ends at {ends}, and its last event is {standing[-1].sequence}")
    counts = Counter(heard.type for heard in standing)
    for type_, count in counts.items():
        if count > 1 and type_ not in REPEATABLE:
            yield Violation("told once", transcript.subject, f"{type_} was told {count} times")


def replayed(transcript: Transcript) -> Iterator[Violation]:
    """A stream that is asked for again tells the same, to the byte; behind a rewind it begins with that."""
    standing = transcript.standing()
    rewinds = [heard.sequence - 1 for heard in standing if heard.type == REWOUND]
    for replay in transcript.replays:
        begins = {replay.after, min([replay.after, *rewinds])}
        wanted = [_told([heard for heard in standing if heard.sequence > begin], transcript) for begin in begins]
        if _told(replay.events, transcript) not in wanted:
            first = replay.events[0].sequence if replay.events else None
            detail = f"behind {replay.after} it began with {first} and told {len(replay.events)} other events"
            yield Violation("replay", transcript.subject, detail)


def _told(events: Sequence[Heard], transcript: Transcript) -> list[object]:
    return [heard.data if transcript.exact else orjson.loads(heard.data) for heard in events]


def spoken(transcript: Transcript) -> Iterator[Violation]:
    """The text is the script's: whole, as long as it was to be, or for a cancelled one as far as it came."""
    text, end = text_of(transcript.standing()), transcript.events[-1].type
    wanted = script(transcript.length)
    if end in ("response.completed", "response.incomplete"):
        good = text == wanted
    else:
        good = wanted.startswith(text) and (not text or text.endswith(" "))
    if not good:
        yield Violation("text", transcript.subject, f"{end} after {difference(text, wanted)}")


def difference(text: str, wanted: str) -> str:
    """Where a text leaves the one that was wanted."""
    words, right = text.split(" "), wanted.split(" ")
    pairs = enumerate(zip(words, right, strict=False))
    place = next((place for place, (said, due) in pairs if said != due), min(len(words), len(right)))
    around = " ".join(words[max(0, place - 3) : place + 5])
    return f"{len(words) - 1} words of {len(right) - 1}; around word {place}: {around!r}"


def shown(transcript: Transcript) -> Iterator[Violation]:
    """The response that can be read is the one that the last event tells, with the text that was heard."""
    last = transcript.standing()[-1].json()
    response = last.get("response") or {}
    if transcript.final is not None and transcript.final != response and transcript.final != {}:
        unequal = sorted(key for key in response if response[key] != transcript.final.get(key))
        yield Violation("shown", transcript.subject, f"stream and response differ in {unequal}")
    said = "".join(
        part["text"] for item in response.get("output", ()) for part in item.get("content", ()) if "text" in part
    )
    if said != text_of(transcript.standing()):
        yield Violation("shown", transcript.subject, f"its output is {said[:80]!r}")
