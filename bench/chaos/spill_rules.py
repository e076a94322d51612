"""Rules about the endpoint: which turns may reach it, how often, what its answers became, and what may be spent on it.

The endpoint's own book is the proof: no fault of Sangha affects it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bench.chaos.excuses import Excuses
from bench.chaos.spilling import MONEY, NAME, SHARE
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from bench.harness.endpoint.book import BookedRequest
from bench.harness.sse import marks_of, text_of
from models.platform.database import Connection, fetch_all, fetch_one

TableRow = Mapping[str, Any]

#: The most often that a turn may move between queues.
MOST_MOVES = 4

#: Seconds for which a request may be under way when its account forbids it.
SLACK = 2.0

ROUTES = """
SELECT request -> 'metadata' ->> 'chaos' AS key, arguments -> 'route' AS route, attempt, state
FROM responses JOIN all_jobs AS jobs ON jobs.id = responses.job_id
WHERE request -> 'metadata' ->> 'chaos' IS NOT NULL
"""

DAYS = """
SELECT coalesce(sum(spilled_turns), 0)::int AS spilled, coalesce(sum(reserved_cost), 0) AS reserved,
       coalesce(sum(spent_cost), 0) AS spent,
       (SELECT count(*) FROM all_jobs WHERE kind = 'turn.run')::int
           + (SELECT coalesce(sum(begun_lines), 0) FROM batches)::int AS turns,
       (SELECT coalesce(sum((arguments -> 'route' ->> 'spent')::numeric), 0) FROM all_jobs
        WHERE kind = 'turn.run') AS settled
FROM spill_days WHERE upstream = %(endpoint)s
"""


@dataclass(frozen=True, slots=True)
class SpillDay:
    """The endpoint's rows of `spill_days`, the turns in the table, and the costs that are in their routes.

    The lines of batches were turns, too, and are deleted.
    """

    spilled: int
    reserved: Decimal
    spent: Decimal
    turns: int
    settled: Decimal


def check(
    connection: Connection, transcripts: Sequence[ClientTranscript], book: Sequence[BookedRequest], excuses: Excuses
) -> Iterator[Violation]:
    """Check the book against the turns, and the budget."""
    turns = [transcript for transcript in transcripts if transcript.kind == "turn"]
    asked = requests_by_key(turns, book)
    rows = {row["key"]: row for row in fetch_all(connection, ROUTES)}
    for turn in turns:
        requests = asked.get(turn.key, ())
        yield from check_residency(turn, requests)
        if turn.key not in excuses.lost and turn.key in rows:
            yield from check_requests(turn, requests, rows[turn.key])
            yield from check_words(turn, requests)
    if day := fetch_one(connection, DAYS, {"endpoint": NAME}):
        lost = len(excuses.lost)  # turns that a promoted standby lacks have counted for the share
        yield from check_budget(SpillDay(**{**day, "turns": day["turns"] + lost}))


def requests_by_key(
    turns: Sequence[ClientTranscript], book: Sequence[BookedRequest]
) -> Mapping[str, Sequence[BookedRequest]]:
    """Return the requests whose last text is that of a turn, by its key. Earlier texts are those of a conversation."""
    keys = {str(turn.request["input"]): turn.key for turn in turns}
    by_key: dict[str, list[BookedRequest]] = defaultdict(list)
    for request in book:
        lines = request.text.splitlines()
        if key := next((keys[line] for line in reversed(lines) if line in keys), None):
            by_key[key].append(request)
    return by_key


def check_residency(turn: ClientTranscript, requests: Sequence[BookedRequest]) -> Iterator[Violation]:
    """Check that a turn that may not leave was never sent."""
    since = turn.stays_from
    if since is None:
        return
    for request in requests:
        if request.at > since + (SLACK if since else 0.0):
            yield Violation("residency", turn.subject, f"it may not leave, and was sent as request {request.number}")


def check_requests(turn: ClientTranscript, requests: Sequence[BookedRequest], row: TableRow) -> Iterator[Violation]:
    """Check that a turn was sent at most once an attempt, and that it seldom moved."""
    if len(requests) > row["attempt"]:
        yield Violation("asked once", turn.subject, f"{len(requests)} requests in {row['attempt']} attempts")
    moves = int((row["route"] or {}).get("moves") or 0)
    if moves > MOST_MOVES:
        yield Violation("moves", turn.subject, f"it moved {moves} times: {row['route']}")


def check_words(turn: ClientTranscript, requests: Sequence[BookedRequest]) -> Iterator[Violation]:
    """Check that the endpoint's words in the stream are the first ones that it sent for this turn.

    An answer that it completed, and that is the last of the stream, has all of them.
    """
    by_mark = {request.mark: request for request in requests}
    words = Counter(marks_of(text_of(turn.effective_events())))
    for mark, count in words.items():
        request = by_mark.get(mark)
        if request is not None and count > request.sent:
            yield Violation(
                "text", turn.subject, f"{count} words of request {request.number}, which sent {request.sent}"
            )
    last = list(words)[-1:]
    for mark in last:
        request = by_mark.get(mark)
        if request is not None and turn.complete and request.outcome == "answered" and words[mark] < request.sent:
            if turn.cancels:
                continue
            detail = f"{words[mark]} words of request {request.number}, which sent {request.sent} and ended"
            yield Violation("text", turn.subject, detail)


def check_budget(day: SpillDay) -> Iterator[Violation]:
    """Check that the spilled turns and their cost are within the limits, and that nothing stays reserved."""
    if day.spilled > SHARE * day.turns:
        yield Violation("spill budget", NAME, f"{day.spilled} of {day.turns} turns were moved; {SHARE:.0%} may be")
    if day.spent > MONEY:
        yield Violation("spill budget", NAME, f"{day.spent} was spent; {MONEY} may be")
    if day.reserved:
        yield Violation("spill budget", NAME, f"{day.reserved} is reserved, and no turn is unfinished")
    if day.spent < day.settled:
        yield Violation("spill budget", NAME, f"{day.spent} was spent, and the turns' routes have {day.settled}")
