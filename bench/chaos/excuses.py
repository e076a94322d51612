"""Which work may have lost what its client was told: a promoted standby lacks the primary's last commits."""

from collections.abc import Sequence

from bench.chaos.standby import LostCommits
from bench.chaos.transcripts import ClientTranscript


def excused_keys(transcripts: Sequence[ClientTranscript], lost: Sequence[LostCommits]) -> frozenset[str]:
    """Return the keys of the work that was under way while commits were lost, or belongs to a lost conversation.

    Everything else, and whatever the new primary has, keeps all guarantees.
    """
    under_way = [
        transcript for transcript in transcripts
        if any(period.overlaps(transcript.began, transcript.ended) for period in lost)
    ]  # fmt: skip
    conversations = {transcript.id for transcript in under_way if transcript.kind == "listing" and transcript.id}
    dependent = [each for each in transcripts if each.request.get("conversation") in conversations]
    return frozenset(transcript.key for transcript in [*under_way, *dependent])
