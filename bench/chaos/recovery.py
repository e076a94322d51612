"""Measure how long clients felt a fault: the longest silence of any running answer during the fault.

A turn that waits for a slot loses nothing, so only silences within running answers count, and those between a turn's
acceptance and its stream's first event. A silence counts from when the platform could have continued: from the
beginning of the fault where another process of the same kind was running, else from when the target worked again. The
client's own delays (STALL_TIMEOUT, and pauses between retries) are part of it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from bench.chaos.fault import InjectedFault, names_in
from bench.chaos.transcripts import ClientTranscript

#: Prefixes of processes that have a second one of their kind.
REDUNDANT = ("web-", "inference-", "scheduler-")

#: The event with which an answer starts to run.
RUNNING = "response.in_progress"

#: The beginning and the end of a silence.
Silence = tuple[float, float]


def recovery_times(
    transcripts: Sequence[ClientTranscript], injected: Sequence[InjectedFault]
) -> Mapping[str, Sequence[float]]:
    """Return the seconds by kind of fault, one for each fault during which an answer was running."""
    longest: dict[int, float] = {}
    for silence in (each for transcript in transcripts for each in silences(transcript)):
        if (index := cause_of(silence, injected)) is not None:
            longest[index] = max(longest.get(index, 0.0), recovery_seconds(silence, injected[index]))
    by_name: dict[str, list[float]] = defaultdict(list)
    for index, seconds in sorted(longest.items()):
        by_name[injected[index].name].append(seconds)
    return dict(by_name)


def cause_of(silence: Silence, injected: Sequence[InjectedFault]) -> int | None:
    """Return the index of the fault that caused a silence: the active one that began nearest to it."""
    begin, end = silence
    active = [index for index, fault in enumerate(injected) if begin < fault.healed_at and end > fault.struck_at]
    return min(active, key=lambda index: abs(injected[index].struck_at - begin), default=None)


def recovery_seconds(silence: Silence, fault: InjectedFault) -> float:
    """Return the seconds of a silence from when the platform could have continued."""
    begin, end = silence
    possible_at = fault.struck_at if has_substitute(fault.target) else fault.healed_at
    return max(0.0, end - max(begin, possible_at))


def has_substitute(target: str) -> bool:
    """Return whether another process of the same kind was running."""
    name, *others = names_in(target)
    return not others and name.startswith(REDUNDANT) and not name.endswith(("-postgres", "-valkey"))


def silences(transcript: ClientTranscript) -> Iterator[Silence]:
    """Yield the silences of a streamed turn: intervals in which its client received nothing although it should have."""
    if transcript.kind != "turn" or transcript.request.get("background") or not transcript.events:
        return
    if transcript.slow:  # silent for a second between any two tokens
        return
    if transcript.accepted_at is not None:
        yield transcript.accepted_at, max(transcript.accepted_at, transcript.events[0].at)
    cancelled_at = min([reply.at for reply in transcript.cancels], default=float("inf"))
    types = [event.type for event in transcript.events]
    running = transcript.events[types.index(RUNNING) :] if RUNNING in types else []
    for earlier, later in pairwise(running):
        if later.at < cancelled_at:
            yield earlier.at, later.at
