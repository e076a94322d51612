"""Which work is excused from some guarantees, because of what happened while it was under way.

A promoted standby lacks the primary's last commits, so replies that clients received may describe lost rows. Processes
of the previous version lack new rules and new fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.chaos.transcripts import ClientTranscript, Period


@dataclass(frozen=True, slots=True)
class Excuses:
    """Keys of excused work: its commits may be lost, or two versions may have worked on it."""

    lost: frozenset[str] = frozenset()
    mixed: frozenset[str] = frozenset()


def keys_during(transcripts: Sequence[ClientTranscript], periods: Sequence[Period]) -> frozenset[str]:
    """Return the keys of the work that was under way during a period, or belongs to a conversation created then."""
    under_way = [
        transcript for transcript in transcripts
        if any(period.overlaps(transcript.began, transcript.ended) for period in periods)
    ]  # fmt: skip
    conversations = {transcript.id for transcript in under_way if transcript.kind == "listing" and transcript.id}
    dependent = [each for each in transcripts if each.request.get("conversation") in conversations]
    return frozenset(transcript.key for transcript in [*under_way, *dependent])
