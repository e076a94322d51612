"""How long clients felt a fault: the longest silence of any running answer that it fell into.

A turn that waits for a slot loses nothing, so only silences within running answers count, and those between a turn's
acceptance and its stream's first event. A silence is counted from when the platform could have gone on: from the strike
where others of its kind stood beside what was struck, else from the moment when what was struck answered again. What
a client does itself (it gives a silent stream up after `STALL` seconds, and pauses between two tries) is part of it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from bench.chaos.faults import Struck, parts_of
from bench.chaos.transcripts import Transcript

#: Parts that have a second one of their kind beside them.
DOUBLED = ("web-", "inference-", "scheduler-")

#: An answer runs from here on.
RUNNING = "response.in_progress"

Silence = tuple[float, float]


def times(transcripts: Sequence[Transcript], struck: Sequence[Struck]) -> Mapping[str, Sequence[float]]:
    """Seconds by kind of fault, one for each time that it fell into some running answer."""
    felt: dict[int, float] = {}
    for silence in (each for transcript in transcripts for each in silences(transcript)):
        if (place := charged(silence, struck)) is not None:
            felt[place] = max(felt.get(place, 0.0), counted(silence, struck[place]))
    by_name: dict[str, list[float]] = defaultdict(list)
    for place, seconds in sorted(felt.items()):
        by_name[struck[place].name].append(seconds)
    return dict(by_name)


def charged(silence: Silence, struck: Sequence[Struck]) -> int | None:
    """The place of the fault that a silence is laid to: of those that stood meanwhile, the one whose strike is nearest
    to its beginning."""
    begin, end = silence
    standing = [place for place, fault in enumerate(struck) if begin < fault.healed_at and end > fault.struck_at]
    return min(standing, key=lambda place: abs(struck[place].struck_at - begin), default=None)


def counted(silence: Silence, fault: Struck) -> float:
    """Seconds of a silence from when it could have ended."""
    begin, end = silence
    since = fault.struck_at if substituted(fault.target) else fault.healed_at
    return max(0.0, end - max(begin, since))


def substituted(target: str) -> bool:
    """Whether another part of its kind stood beside what was struck."""
    part, *others = parts_of(target)
    return not others and part.startswith(DOUBLED) and not part.endswith(("-postgres", "-valkey"))


def silences(transcript: Transcript) -> Iterator[Silence]:
    """From when to when the client of a streamed turn heard nothing that it could expect."""
    if transcript.kind != "turn" or transcript.asked.get("background") or not transcript.events:
        return
    if transcript.accepted_at is not None:
        yield transcript.accepted_at, max(transcript.accepted_at, transcript.events[0].at)
    until = min([answer.at for answer in transcript.cancels], default=float("inf"))
    types = [heard.type for heard in transcript.events]
    running = transcript.events[types.index(RUNNING) :] if RUNNING in types else []
    for earlier, later in pairwise(running):
        if later.at < until:
            yield earlier.at, later.at
