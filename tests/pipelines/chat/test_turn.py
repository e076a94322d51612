"""Given a turn and an engine, when it runs, is cut and runs again, then one answer is told, stored and billed."""

from dataclasses import replace

import orjson
import pytest

from models.journal import journal
from models.platform.errors import Cancelled, Fenced, PermanentFailure, Released
from models.platform.ids import new_id
from models.turns import conversations
from pipelines.chat import turn
from pipelines.chat.transcript import ANSWER_RESTARTED, TEXT_DELTA
from pipelines.inference.engine import EngineError, Token


class Worker(BaseException):
    """Dies."""


def dies_at(place):
    def strike(now):
        if now == place:
            raise Worker

    return strike


def events(harness, started):
    """What is told, by type and payload."""
    assert harness.writer.drain()
    told = journal.read_events(harness.client, started.response.job_id)
    return [(event.type.decode(), orjson.loads(event.data)) for event in told]


def text(told):
    return "".join(payload["delta"] for type_, payload in told if type_ == TEXT_DELTA)


def run(harness, engine, started):
    attempt = harness.attempt(started)
    ending = turn.run(engine, attempt)
    harness.settle(attempt, ending)
    return ending


def cut(harness, engine, started, place):
    """An attempt whose worker dies before a token."""
    engine.before_token = dies_at(place)
    attempt = harness.attempt(started)
    with pytest.raises(Worker):
        turn.run(engine, attempt)
    harness.give_back(attempt)
    engine.before_token = lambda now: None


@pytest.mark.parametrize(("reason", "status"), [("stop", "completed"), ("length", "incomplete")])
def test_an_answer_is_told_stored_and_billed(harness, fake_engine, reason, status):
    engine, started = fake_engine("a ", "b ", "c"), harness.start("one two")
    engine.reason = reason

    ending = run(harness, engine, started)

    stored, told = harness.stored(started), events(harness, started)
    assert (ending.state, stored.status, ending.result["status"]) == ("completed", status, status)
    assert stored.output[0]["content"][0]["text"] == text(told) == "a b c"
    assert stored.output[0]["status"] == status
    assert told[-1][0] == f"response.{status}"
    assert [payload["sequence_number"] for _, payload in told] == list(range(len(told)))
    assert harness.billed(started) == [(2, 0, 3)]
    assert told[-1][1]["response"]["usage"]["total_tokens"] == 5


def test_what_an_engine_knows_only_at_its_end_is_billed(harness, fake_engine, monkeypatch):
    """The prompt's tokens where it could only estimate them, and what it has generated beside the text."""
    engine, started = fake_engine("a ", "b"), harness.start("one two")
    generate = engine.generate

    def hosted(*asked, **options):
        *told, finish = generate(*asked, **options)
        yield from [*told, Token("", 5), replace(finish, prompt_tokens=9, generated_tokens=7)]

    monkeypatch.setattr(engine, "generate", hosted)

    run(harness, engine, started)

    assert harness.billed(started) == [(9, 0, 7)]
    assert harness.stored(started).output[0]["content"][0]["text"] == text(events(harness, started)) == "a b"
    assert events(harness, started)[-1][1]["response"]["usage"]["input_tokens"] == 9


def test_what_was_cached_is_told_only_of_what_continues(harness, fake_engine):
    """Of a first turn it would tell whether somebody else has lately sent the same text."""
    first = harness.start("one")
    run(harness, fake_engine("a "), first)
    second = harness.start("two", previous=first.response.id)
    run(harness, fake_engine("b "), second)

    assert [cached for _, cached, _ in [*harness.billed(first), *harness.billed(second)]] == [0, 2]


def test_an_answer_of_nothing_is_an_answer(harness, fake_engine):
    started = harness.start()

    run(harness, fake_engine(), started)

    stored = harness.stored(started)
    assert (stored.status, stored.output[0]["content"][0]["text"]) == ("completed", "")
    assert harness.billed(started) == [(1, 0, 0)]


def test_sampling_reaches_the_engine(harness, fake_engine):
    engine = fake_engine("a ", "b ", "c ")

    run(harness, engine, harness.start(max_output_tokens=2, temperature=0.0, top_p=0.5))

    (sampling,) = engine.samplings
    assert (sampling.max_output_tokens, sampling.temperature, sampling.top_p) == (2, 0.0, 0.5)


def test_nul_characters_of_an_engine_are_replaced(harness, fake_engine):
    started = harness.start()

    run(harness, fake_engine("a\0", "b"), started)

    assert harness.stored(started).output[0]["content"][0]["text"] == text(events(harness, started)) == "a\ufffdb"


def test_another_attempt_goes_on_where_the_first_was_cut(harness, fake_engine):
    first, rest, started = fake_engine("a ", "b ", "c "), fake_engine("c "), harness.start(max_output_tokens=10)

    cut(harness, first, started, 2)
    run(harness, rest, started)

    told = events(harness, started)
    assert rest.prefixes == ["a b "]
    assert rest.samplings[0].max_output_tokens == 8
    assert text(told) == harness.stored(started).output[0]["content"][0]["text"] == "a b c "
    assert [type_ for type_, _ in told].count("response.output_item.added") == 1
    assert harness.billed(started) == [(1, 0, 3)]


def test_an_attempt_that_was_cut_at_its_last_token_is_only_ended(harness, fake_engine):
    first, rest, started = fake_engine("a ", "b ", "c "), fake_engine("never"), harness.start(max_output_tokens=2)
    first.texts = ("a ", "b ")
    first.error = Worker()

    attempt = harness.attempt(started)
    with pytest.raises(Worker):
        turn.run(first, attempt)
    harness.give_back(attempt)
    run(harness, rest, started)

    assert rest.prompts == []
    assert (harness.stored(started).status, text(events(harness, started))) == ("incomplete", "a b ")


def test_an_engine_that_can_not_continue_begins_again_and_says_so(harness, fake_engine):
    first, again = fake_engine("x ", "y ", continues=False), fake_engine("a ", "b ", "c ", continues=False)
    started = harness.start()

    cut(harness, first, started, 1)
    cut(harness, first, started, 0)
    run(harness, again, started)

    told = events(harness, started)
    restarts = [payload["discarded_tokens"] for type_, payload in told if type_ == ANSWER_RESTARTED]
    assert restarts == [1]
    assert harness.stored(started).output[0]["content"][0]["text"] == "a b c "
    assert harness.billed(started) == [(1, 0, 3)]


def test_what_both_have_lost_is_told_as_a_rewind(harness, fake_engine):
    first, again, started = fake_engine("a ", "b ", "c "), fake_engine("a ", "b ", "c "), harness.start()

    cut(harness, first, started, 2)
    journal.delete(harness.client, started.response.job_id)
    run(harness, again, started)

    told = events(harness, started)
    assert again.prefixes == [""]
    assert [type_ for type_, _ in told][:3] == ["response.created", "response.queued", "sangha:journal.rewound"]
    assert harness.stored(started).rewound_at == 2
    assert harness.billed(started) == [(1, 0, 3)]


@pytest.mark.parametrize(("why", "error"), [("cancelled", Cancelled), ("released", Released), ("overtaken", Fenced)])
def test_an_attempt_that_is_stopped_raises_why(harness, fake_engine, why, error):
    engine, attempt = fake_engine("a ", "b ", "c "), harness.attempt(harness.start())
    engine.before_token = lambda place: attempt.stop(why) if place == 2 else None

    with pytest.raises(error):
        turn.run(engine, attempt)


@pytest.mark.parametrize("state", ["cancelled", "failed", "dead"])
def test_an_answer_that_ends_early_is_kept_and_billed(harness, fake_engine, state):
    engine, started = fake_engine("a ", "b ", "c "), harness.start("one two")
    engine.error = EngineError("it broke")
    attempt = harness.attempt(started)
    with pytest.raises(EngineError):
        turn.run(engine, attempt)

    error = None if state == "cancelled" else {"code": "server_error", "message": "it broke"}
    harness.settle(attempt, turn.end(attempt, state, error))

    stored, told = harness.stored(started), events(harness, started)
    assert stored.status == ("cancelled" if state == "cancelled" else "failed")
    assert (stored.output[0]["status"], stored.output[0]["content"][0]["text"]) == ("incomplete", "a b c ")
    assert told[-1][0] == ("sangha:job.cancelled" if state == "cancelled" else "response.failed")
    assert harness.billed(started) == [(2, 0, 3)]
    if error:
        assert told[-1][1]["response"]["error"]["message"] == "it broke"


def test_a_turn_that_ends_before_it_began_has_no_output(harness):
    started = harness.start()
    attempt = harness.attempt(started)

    harness.settle(attempt, turn.end(attempt, "dead", {"code": "worker_lost", "message": "Its workers died."}))

    assert list(harness.stored(started).output) == []
    assert harness.billed(started) == [(0, 0, 0)]


def test_a_conversation_gets_the_items_of_a_turn_that_has_ended(harness, fake_engine):
    conversation = new_id("conv")
    with harness.database.transaction() as connection:
        conversations.create(connection, conversation, harness.caller.account_id, {})

    run(harness, fake_engine("a "), harness.start("one", conversation=conversation))

    with harness.database.connection() as connection:
        items = conversations.last_items(connection, conversation, harness.caller.account_id, 10)
    assert [(item["role"], item["content"][0]["text"]) for item in items] == [("user", "one"), ("assistant", "a ")]


def test_a_turn_whose_response_was_deleted_fails_for_good(harness, fake_engine):
    started = harness.start()
    attempt = harness.attempt(started)
    with harness.database.connection() as connection:
        connection.execute("DELETE FROM responses WHERE id = %s", (started.response.id,))

    with pytest.raises(PermanentFailure) as failure:
        turn.run(fake_engine("a "), attempt)

    assert failure.value.code == "deleted"
