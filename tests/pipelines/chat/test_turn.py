"""A turn's answer is journalled, stored and billed once, also when it is interrupted and continued."""

from dataclasses import replace

import orjson
import pytest

from models.journal import journal
from models.platform.errors import Cancelled, Fenced, PermanentFailure, Released
from models.platform.ids import new_id
from models.turns import conversations
from pipelines.chat import turn
from pipelines.chat.cancellation import cancel_jobs
from pipelines.chat.response_objects import response_object
from pipelines.chat.transcript import ANSWER_RESTARTED, PROMPT_READ, TEXT_DELTA
from pipelines.inference.engine import EngineError, PromptRead, Token
from pipelines.inference.own_prompts import ANSWER_HEADER_TOKENS, OwnPrompts

ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a guess of more words"}]}


class WorkerCrash(BaseException):
    """Raised in place of a crash of the worker."""


def crash_at(position):
    def crash(token_number):
        if token_number == position:
            raise WorkerCrash

    return crash


def events(harness, started):
    """Return the stream's events as type and payload."""
    assert harness.writer.drain()
    turn_events = journal.read_events(harness.client, started.response.job_id)
    return [(event.type.decode(), orjson.loads(event.data)) for event in turn_events]


def text(turn_events):
    return "".join(payload["delta"] for type_, payload in turn_events if type_ == TEXT_DELTA)


def run(harness, engine, started):
    attempt = harness.attempt(started)
    ending = turn.run(engine, attempt)
    harness.settle(attempt, ending)
    return ending


def crash_before(harness, engine, started, position):
    """Run an attempt whose worker crashes before a token."""
    engine.before_token = crash_at(position)
    attempt = harness.attempt(started)
    with pytest.raises(WorkerCrash):
        turn.run(engine, attempt)
    harness.crash_worker(attempt)
    engine.before_token = lambda token_number: None


@pytest.mark.parametrize(("reason", "status"), [("stop", "completed"), ("length", "incomplete")])
def test_an_answer_is_journalled_stored_and_billed(harness, fake_engine, reason, status):
    engine, started = fake_engine("a ", "b ", "c"), harness.start("one two")
    engine.reason = reason

    ending = run(harness, engine, started)

    stored, turn_events = harness.stored_response(started), events(harness, started)
    assert (ending.state, stored.status, ending.result["status"]) == ("completed", status, status)
    assert stored.output[0]["content"][0]["text"] == text(turn_events) == "a b c"
    assert stored.output[0]["status"] == status
    assert turn_events[-1][0] == f"response.{status}"
    assert [payload["sequence_number"] for _, payload in turn_events] == list(range(len(turn_events)))
    assert harness.billed(started) == [(2, 0, 3)]
    last = turn_events[-1][1]["response"]
    assert last["usage"]["total_tokens"] == 5
    assert (last["completed_at"] is not None) == (status == "completed")
    assert last == response_object(stored)


def test_a_turn_stores_how_long_it_waited_and_how_fast_it_was_answered(harness, fake_engine):
    started = harness.start("two guesses of words")

    run(harness, fake_engine("a ", "b ", "c"), started)

    times = latency(harness, started)
    assert 0 <= times["queue_seconds"] < times["first_token_seconds"]
    assert times["tokens_per_second"] > 0
    assert (times["usage_kind"], times["usage_class"]) == ("turn.run", "standard")


def test_the_first_token_of_a_turn_of_several_attempts_is_that_of_the_attempt_that_generated_it(harness, fake_engine):
    # Given a turn, created a minute ago, whose first worker crashed before a token, and whose second one after some
    started, engine = harness.start("two guesses of words"), fake_engine("a ", "b ", "c")
    age(harness, started, "1 minute")
    crash_before(harness, engine, started, 0)
    crash_before(harness, engine, started, 2)
    first, *others = [payload for type_, payload in events(harness, started) if type_ == TEXT_DELTA]
    # When a third one continues, an hour later
    age(harness, started, "1 hour")
    run(harness, engine, started)
    # Then the turn has the time at which clients received its first token
    assert 60 <= first["sangha"]["first_token_seconds"] < 120
    assert latency(harness, started)["first_token_seconds"] == pytest.approx(first["sangha"]["first_token_seconds"])
    assert all("sangha" not in other for other in others)


def age(harness, started, interval):
    """Let a turn's job have been created earlier."""
    with harness.database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET created_at = created_at - %s::interval WHERE id = %s", (interval, started.response.job_id)
        )


def latency(harness, started):
    columns = "usage_kind, usage_class, queue_seconds, first_token_seconds, tokens_per_second"
    statement = f"SELECT {columns} FROM usage_records WHERE job_id = %s"
    with harness.database.connection() as connection:
        return connection.execute(statement, (started.response.job_id,)).fetchone()


def test_counts_reported_at_the_end_are_billed(harness, fake_engine, monkeypatch):
    """The prompt's tokens, which some engines can only estimate, and tokens beyond the text."""
    engine, started = fake_engine("a ", "b"), harness.start("one two")
    generate = engine.generate

    def generate_with_final_counts(*arguments, **options):
        *outputs, finish = generate(*arguments, **options)
        yield from [*outputs, Token("", 5), replace(finish, prompt_tokens=9, generated_tokens=7)]

    monkeypatch.setattr(engine, "generate", generate_with_final_counts)

    run(harness, engine, started)

    assert harness.billed(started) == [(9, 0, 7)]
    assert harness.stored_response(started).output[0]["content"][0]["text"] == text(events(harness, started)) == "a b"
    assert events(harness, started)[-1][1]["response"]["usage"]["input_tokens"] == 9


def test_cached_tokens_are_reported_up_to_those_of_earlier_turns_of_the_thread(harness, fake_engine):
    """Others would reveal whether another account has recently sent the same text."""
    # Given an engine that has cached all of each prompt
    engine, own = fake_engine("word " * 10), ("word " * 20).strip()
    engine.cached_tokens = 1000
    own_prompts = OwnPrompts(engine)

    def billed(text, **options):
        started = harness.start(text, **options)
        attempt = harness.attempt(started)
        harness.settle(attempt, turn.run(engine, attempt, own_prompts=own_prompts))
        return started.response.id, harness.billed(started)[0][1]

    with harness.database.connection() as connection:
        for conversation in (ids := [new_id("conv"), new_id("conv")]):
            conversations.create(connection, conversation, harness.caller.account_id, harness.caller.user_id, {})
        conversations.add_items(connection, ids[1], [{**ITEM, "id": new_id("msg")}])

    # When threads begin and continue
    first, of_first = billed(own)
    _, of_second = billed("a guess", previous=first)
    _, of_changed = billed("a guess", previous=first, instructions="another guess " * 20)
    _, of_empty_conversation = billed("a guess", conversation=ids[0])
    _, of_conversation_with_items = billed("a guess", conversation=ids[1])

    # Then what others may have sent is not counted
    assert of_second == 20 + 10 - ANSWER_HEADER_TOKENS
    assert (of_first, of_changed, of_empty_conversation, of_conversation_with_items) == (0, 0, 0, 0)


def test_the_stream_shows_cached_tokens_once_the_engine_generates(harness, fake_engine):
    # Given an engine that knows that it has cached all of each prompt
    engine, own = fake_engine(PromptRead(1000, 1000), "a ", "b"), ("word " * 20).strip()
    engine.cached_tokens = 1000
    own_prompts = OwnPrompts(engine)

    def stream(text, **options):
        started = harness.start(text, **options)
        attempt = harness.attempt(started)
        harness.settle(attempt, turn.run(engine, attempt, own_prompts=own_prompts))
        return started.response.id, events(harness, started)

    # When a thread begins and continues
    first, of_first = stream(own)
    _, of_second = stream("more", previous=first)

    # Then the event has what may be reported, as the usage does
    shown = [[payload for type_, payload in each if type_ == PROMPT_READ] for each in (of_first, of_second)]
    assert [[payload["cached_tokens"] for payload in each] for each in shown] == [[0], [20 + 2 - ANSWER_HEADER_TOKENS]]
    types = [type_ for type_, _ in of_second]
    assert types.index(TEXT_DELTA) < types.index(PROMPT_READ) < len(types) - types[::-1].index(TEXT_DELTA) - 1
    usage = of_second[-1][1]["response"]["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] == shown[1][0]["cached_tokens"]


def test_an_empty_answer_is_completed(harness, fake_engine):
    started = harness.start()

    run(harness, fake_engine(), started)

    stored = harness.stored_response(started)
    assert (stored.status, stored.output[0]["content"][0]["text"]) == ("completed", "")
    assert harness.billed(started) == [(1, 0, 0)]


def test_the_engine_gets_the_sampling(harness, fake_engine):
    engine = fake_engine("a ", "b ", "c ")

    run(harness, engine, harness.start(max_output_tokens=2, temperature=0.0, top_p=0.5))

    (sampling,) = engine.samplings
    assert (sampling.max_output_tokens, sampling.temperature, sampling.top_p) == (2, 0.0, 0.5)


def test_nul_characters_of_an_engine_are_replaced(harness, fake_engine):
    started = harness.start()

    run(harness, fake_engine("a\0", "b"), started)

    assert (
        harness.stored_response(started).output[0]["content"][0]["text"] == text(events(harness, started)) == "a\ufffdb"
    )


def test_the_next_attempt_continues_where_the_first_was_interrupted(harness, fake_engine):
    first, second, started = fake_engine("a ", "b ", "c "), fake_engine("c "), harness.start(max_output_tokens=10)

    crash_before(harness, first, started, 2)
    run(harness, second, started)

    turn_events = events(harness, started)
    assert second.prefixes == ["a b "]
    assert second.samplings[0].max_output_tokens == 8
    assert text(turn_events) == harness.stored_response(started).output[0]["content"][0]["text"] == "a b c "
    assert [type_ for type_, _ in turn_events].count("response.output_item.added") == 1
    assert harness.billed(started) == [(1, 0, 3)]


def test_a_complete_answer_is_ended_without_the_engine(harness, fake_engine):
    first, second, started = fake_engine("a ", "b ", "c "), fake_engine("never"), harness.start(max_output_tokens=2)
    first.outputs = ("a ", "b ")
    first.error = WorkerCrash()

    attempt = harness.attempt(started)
    with pytest.raises(WorkerCrash):
        turn.run(first, attempt)
    harness.crash_worker(attempt)
    run(harness, second, started)

    assert second.prompts == []
    assert (harness.stored_response(started).status, text(events(harness, started))) == ("incomplete", "a b ")


def test_an_engine_that_cannot_continue_restarts_the_answer(harness, fake_engine):
    first, second = fake_engine("x ", "y ", continues=False), fake_engine("a ", "b ", "c ", continues=False)
    started = harness.start()

    crash_before(harness, first, started, 1)
    crash_before(harness, first, started, 0)
    run(harness, second, started)

    turn_events = events(harness, started)
    restarts = [payload["discarded_tokens"] for type_, payload in turn_events if type_ == ANSWER_RESTARTED]
    assert restarts == [1]
    assert harness.stored_response(started).output[0]["content"][0]["text"] == "a b c "
    assert harness.billed(started) == [(1, 0, 3)]


def test_events_lost_everywhere_are_reported_as_a_rewind(harness, fake_engine):
    first, second, started = fake_engine("a ", "b ", "c "), fake_engine("a ", "b ", "c "), harness.start()

    crash_before(harness, first, started, 2)
    journal.delete(harness.client, started.response.job_id)
    run(harness, second, started)

    turn_events = events(harness, started)
    assert second.prefixes == [""]
    assert [type_ for type_, _ in turn_events][:3] == [
        "response.created",
        "response.queued",
        "sangha:journal.rewound",
    ]
    assert harness.stored_response(started).rewound_at == 2
    assert harness.billed(started) == [(1, 0, 3)]


@pytest.mark.parametrize(("reason", "error"), [("cancelled", Cancelled), ("released", Released), ("overtaken", Fenced)])
def test_a_stopped_attempt_raises_the_reason(harness, fake_engine, reason, error):
    engine, attempt = fake_engine("a ", "b ", "c "), harness.attempt(harness.start())
    engine.before_token = lambda position: attempt.stop(reason) if position == 2 else None

    with pytest.raises(error):
        turn.run(engine, attempt)


@pytest.mark.parametrize("state", ["cancelled", "failed", "dead"])
def test_an_answer_that_ends_early_is_stored_and_billed(harness, fake_engine, state):
    engine, started = fake_engine("a ", "b ", "c "), harness.start("one two")
    engine.error = EngineError("it broke")
    attempt = harness.attempt(started)
    with pytest.raises(EngineError):
        turn.run(engine, attempt)

    error = None if state == "cancelled" else {"code": "server_error", "message": "it broke"}
    harness.settle(attempt, turn.end(attempt, state, error))

    stored, turn_events = harness.stored_response(started), events(harness, started)
    assert stored.status == ("cancelled" if state == "cancelled" else "failed")
    assert (stored.output[0]["status"], stored.output[0]["content"][0]["text"]) == ("incomplete", "a b c ")
    assert turn_events[-1][0] == ("sangha:job.cancelled" if state == "cancelled" else "response.failed")
    assert harness.billed(started) == [(2, 0, 3)]
    if error:
        assert turn_events[-1][1]["response"]["error"]["message"] == "it broke"


def test_a_turn_that_never_ran_has_no_output(harness):
    started = harness.start()
    attempt = harness.attempt(started)

    harness.settle(attempt, turn.end(attempt, "dead", {"code": "worker_lost", "message": "Its workers died."}))

    assert list(harness.stored_response(started).output) == []
    assert harness.billed(started) == [(0, 0, 0)]


def test_the_items_of_an_ended_turn_are_added_to_its_conversation(harness, fake_engine):
    conversation = new_id("conv")
    with harness.database.transaction() as connection:
        conversations.create(connection, conversation, harness.caller.account_id, harness.caller.user_id, {})

    run(harness, fake_engine("a "), harness.start("one", conversation=conversation))

    with harness.database.connection() as connection:
        items = conversations.last_items(connection, conversation, harness.caller.account_id, 10)
    assert [(item["role"], item["content"][0]["text"]) for item in items] == [("user", "one"), ("assistant", "a ")]


def test_a_turn_whose_response_was_deleted_fails_permanently(harness, fake_engine):
    started = harness.start()
    attempt = harness.attempt(started)
    with harness.database.connection() as connection:
        connection.execute("DELETE FROM responses WHERE id = %s", (started.response.id,))

    with pytest.raises(PermanentFailure) as failure:
        turn.run(fake_engine("a "), attempt)

    assert failure.value.code == "deleted"


@pytest.mark.parametrize(("reason", "status"), [("stop", "completed"), ("length", "incomplete")])
def test_only_responses_in_the_background_have_an_event(harness, fake_engine, events_of, reason, status):
    # Given a turn that a client waits for, and one in the background
    for background in (False, True):
        engine, started = fake_engine("a"), harness.start(background=background)
        engine.reason = reason
        # When both end
        run(harness, engine, started)
    # Then there is one event, of the second one
    assert events_of(harness.caller.account_id) == [(f"response.{status}", {"id": started.response.id})]


@pytest.mark.parametrize(("state", "status"), [("cancelled", "cancelled"), ("failed", "failed"), ("dead", "failed")])
def test_a_background_response_without_an_answer_has_an_event(harness, events_of, state, status):
    started = harness.start(background=True)
    attempt = harness.attempt(started)

    harness.settle(attempt, turn.end(attempt, state, {"code": "server_error", "message": "x"}))

    assert events_of(harness.caller.account_id) == [(f"response.{status}", {"id": started.response.id})]


def test_an_ending_that_is_refused_has_no_event(harness, fake_engine, events_of):
    # Given an attempt that another one has superseded
    started = harness.start(background=True)
    superseded = harness.attempt(started)
    ending = turn.run(fake_engine("a"), superseded)
    harness.crash_worker(superseded)
    attempt = harness.attempt(started)
    # When it ends its job
    with pytest.raises(Fenced):
        harness.settle(superseded, ending)
    assert events_of(harness.caller.account_id) == []
    # Then only the ending of the other one is an event
    harness.settle(attempt, turn.run(fake_engine("a"), attempt))
    assert [type for type, _ in events_of(harness.caller.account_id)] == ["response.completed"]


def test_a_background_response_that_is_cancelled_before_its_first_attempt_has_an_event(harness, events_of):
    # Given a turn in the background and one that a client waits for, both queued
    background, streamed = harness.start(background=True), harness.start()
    # When they are cancelled, twice
    for _ in range(2):
        with harness.database.transaction() as connection:
            ids = [background.response.job_id, streamed.response.job_id]
            cancel_jobs(connection, ids, harness.caller.account_id)
    # Then the first one has an event
    assert events_of(harness.caller.account_id) == [("response.cancelled", {"id": background.response.id})]
