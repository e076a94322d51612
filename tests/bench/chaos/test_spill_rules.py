"""Given the endpoint's book, when it differs from what a turn's client saw, then the violated rule is reported."""

from collections.abc import Callable, Sequence
from decimal import Decimal

import orjson
import pytest

from bench.chaos.breaker_rules import MOST_BEFORE_OPEN, check_openings
from bench.chaos.fault import InjectedFault
from bench.chaos.spill_rules import (
    MOST_MOVES,
    SLACK,
    SpillDay,
    check_budget,
    check_requests,
    check_residency,
    check_words,
    requests_by_key,
)
from bench.chaos.spilling import MONEY
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from bench.chaos.window_watch import IN_FLIGHT, THREADS, WindowWatch
from bench.harness.endpoint.book import BookedRequest
from bench.harness.sse import DELTA, ReceivedEvent
from models.jobs.windows import SMALLEST_WINDOW

ENOUGH = 100


def turn(text: str = "", *, stays_from: float | None = None, key: str = "k") -> ClientTranscript:
    transcript = ClientTranscript("turn", "streamer", "acct", key, {"input": f"Tell me about {key}."}, 0.0)
    transcript.stays_from = stays_from
    data = [orjson.dumps({"delta": f"{word} "}) for word in text.split()]
    transcript.events = [ReceivedEvent(0.0, number, DELTA, each) for number, each in enumerate(data)]
    transcript.events.append(ReceivedEvent(0.0, len(data), "response.completed", b"{}"))
    return transcript


def request(number: int = 1, *, at: float = 50.0, mark: str = "", sent: int = 0) -> BookedRequest:
    text = "Be kind.\nTell me about k."
    return BookedRequest(number, at, f"key-{number}", "cloud-1", text, 0, mark, 200, sent, "answered")


def rules(violations: Sequence[Violation]) -> list[str]:
    return [violation.rule for violation in violations]


def test_a_request_belongs_to_the_turn_of_its_last_text():
    early, late = turn(key="k"), turn(key="k2")
    follow_up = BookedRequest(2, 0.0, "b", "cloud-1", "Tell me about k.\nw0 w1 \nTell me about k2.")
    unknown = BookedRequest(3, 0.0, "c", "cloud-1", "Say all.")

    assert requests_by_key([early, late], [request(), follow_up, unknown]) == {"k": [request()], "k2": [follow_up]}


@pytest.mark.parametrize(
    ("stays_from", "sent_at", "reported"),
    [(None, 50.0, False), (0.0, 50.0, True), (60.0, 50.0, False), (50.0, 50.0 + SLACK + 1, True)],
)
def test_a_turn_that_was_sent_although_it_may_not_leave_is_reported(
    stays_from: float | None, sent_at: float, reported: bool
):
    violations = list(check_residency(turn(stays_from=stays_from), [request(at=sent_at)]))

    assert rules(violations) == ["residency"] * reported


def test_more_requests_than_attempts_are_reported():
    requests = [request(1), request(2)]

    assert rules(list(check_requests(turn(), requests, {"attempt": 1, "route": None}))) == ["asked once"]
    assert list(check_requests(turn(), requests, {"attempt": 2, "route": None})) == []


def test_a_turn_that_moved_too_often_is_reported():
    row = {"attempt": 9, "route": {"moves": MOST_MOVES + 1}}

    assert rules(list(check_requests(turn(), [], row))) == ["moves"]


@pytest.mark.parametrize(("sent", "reported"), [(2, False), (1, True), (3, True)])
def test_words_that_the_endpoint_did_not_send_and_words_that_are_missing_are_reported(sent: int, reported: bool):
    violations = list(check_words(turn("w0.aaaa w1.aaaa"), [request(mark="aaaa", sent=sent)]))

    assert rules(violations) == ["text"] * reported


def test_an_answer_that_another_engine_continued_need_not_have_all_words():
    interrupted = request(mark="aaaa", sent=5)

    assert list(check_words(turn("w0.aaaa w1.aaaa w2.bbbb"), [interrupted])) == []


@pytest.mark.parametrize(
    "day",
    [
        SpillDay(60, Decimal(0), Decimal(1), ENOUGH, Decimal(1)),
        SpillDay(10, Decimal(0), MONEY + 1, ENOUGH, Decimal(1)),
        SpillDay(10, Decimal("0.1"), Decimal(1), ENOUGH, Decimal(1)),
        SpillDay(10, Decimal(0), Decimal(1), ENOUGH, Decimal(2)),
    ],
    ids=["share", "money", "reserved", "settled"],
)
def test_a_budget_that_was_exceeded_or_not_settled_is_reported(day: SpillDay):
    assert rules(list(check_budget(day))) == ["spill budget"]
    assert list(check_budget(SpillDay(25, Decimal(0), Decimal(1), ENOUGH, Decimal(1)))) == []


@pytest.mark.parametrize(
    ("count", "other", "reported"), [(9, "web-a", False), (30, "web-a", True), (30, "postgres", False)]
)
def test_more_failures_than_open_a_breaker_are_reported_unless_its_row_was_away(count: int, other: str, reported: bool):
    failed = [request(number) for number in range(count)]
    for each in failed:
        each.fault = "drop"
    faults = [InjectedFault("endpoint", "endpoint-drops", 40.0, 44.0), InjectedFault("other", other, 41.0, 42.0)]
    for each in failed:
        each.at = 42.0

    assert MOST_BEFORE_OPEN < 30
    assert rules(list(check_openings(failed, faults, 0.0))) == ["breaker"] * reported


def test_a_lane_with_more_jobs_in_flight_than_its_window_is_reported(monkeypatch: pytest.MonkeyPatch):
    look = watched(monkeypatch, threads=8, jobs=SMALLEST_WINDOW + 5)
    assert rules(list(look().check())) == ["window"]

    look = watched(monkeypatch, threads=8, jobs=8)
    assert list(look().check()) == []


def test_a_window_of_lost_marks_is_excused(monkeypatch: pytest.MonkeyPatch):
    watch = watched(monkeypatch, threads=8, jobs=16)()
    assert list(watch.check(lost_marks=True)) == []
    assert rules(list(watch.check())) == ["window"]

    watch = watched(monkeypatch, threads=8, jobs=17)()
    assert rules(list(watch.check(lost_marks=True))) == ["window"]


def test_the_threads_of_a_queue_count_also_while_it_has_no_job(monkeypatch: pytest.MonkeyPatch):
    # Given a worker and its successor, which are both registered while no job is in flight
    watch = watched(monkeypatch, threads=8, jobs=0)()

    # When the relay has published by what it had read then
    watched(monkeypatch, threads=4, jobs=8)
    watch.read(None)  # type: ignore[arg-type]

    # Then no window was exceeded
    assert list(watch.check()) == []


def watched(monkeypatch: pytest.MonkeyPatch, *, threads: int, jobs: int) -> Callable[[], WindowWatch]:
    """Have a watch read so many threads of a queue, and jobs of a lane."""
    found = {
        THREADS: [{"queue": "inference", "threads": threads}],
        IN_FLIGHT: [{"queue": "inference", "lane": "a", "jobs": jobs}] if jobs else [],
    }
    monkeypatch.setattr("bench.chaos.window_watch.fetch_all", lambda _, statement: found[statement])

    def look() -> WindowWatch:
        watch = WindowWatch(None)  # type: ignore[arg-type]
        watch.read(None)  # type: ignore[arg-type]
        return watch

    return look
