"""Given a turn and an engine, when it runs, is cut and runs again, then one answer is told, stored and billed."""

from dataclasses import replace

import orjson
import pytest

from models.journal import journal
from models.platform.errors import Cancelled, Fenced, PermanentFailure, Released
from models.platform.ids import new_id
from models.turns import conversations
from pipelines.chat import turn
from pipelines.chat.transcript import DELTA, RESTARTED
from pipelines.inference.engine import EngineError, Token


class Worker(BaseException):
    """Dies."""


def dies_at(place):
    def strike(now):
        if now == place:
            raise Worker

    return strike


def events(room, started):
    """What is told, by type and payload."""
    assert room.writer.drain()
    told = journal.read_events(room.client, started.response.job_id)
    return [(event.type.decode(), orjson.loads(event.data)) for event in told]


def text(told):
    return "".join(payload["delta"] for type_, payload in told if type_ == DELTA)


def run(room, engine, started):
    attempt = room.attempt(started)
    ending = turn.run(engine, attempt)
    room.settle(attempt, ending)
    return ending


def cut(room, engine, started, place):
    """An attempt whose worker dies before a token."""
    engine.before_token = dies_at(place)
    attempt = room.attempt(started)
    with pytest.raises(Worker):
        turn.run(engine, attempt)
    room.give_back(attempt)
    engine.before_token = lambda now: None


@pytest.mark.parametrize(("reason", "status"), [("stop", "completed"), ("length", "incomplete")])
def test_an_answer_is_told_stored_and_billed(room, fake, reason, status):
    engine, started = fake("a ", "b ", "c"), room.start("one two")
    engine.reason = reason

    ending = run(room, engine, started)

    stored, told = room.stored(started), events(room, started)
    assert (ending.state, stored.status, ending.result["status"]) == ("completed", status, status)
    assert stored.output[0]["content"][0]["text"] == text(told) == "a b c"
    assert stored.output[0]["status"] == status
    assert told[-1][0] == f"response.{status}"
    assert [payload["sequence_number"] for _, payload in told] == list(range(len(told)))
    assert room.billed(started) == [(2, 0, 3)]
    assert told[-1][1]["response"]["usage"]["total_tokens"] == 5


def test_what_an_engine_knows_only_at_its_end_is_billed(room, fake, monkeypatch):
    """The prompt's tokens where it could only estimate them, and what it has generated beside the text."""
    engine, started = fake("a ", "b"), room.start("one two")
    generate = engine.generate

    def hosted(*asked, **options):
        *told, finish = generate(*asked, **options)
        yield from [*told, Token("", 5), replace(finish, prompt_tokens=9, generated_tokens=7)]

    monkeypatch.setattr(engine, "generate", hosted)

    run(room, engine, started)

    assert room.billed(started) == [(9, 0, 7)]
    assert room.stored(started).output[0]["content"][0]["text"] == text(events(room, started)) == "a b"
    assert events(room, started)[-1][1]["response"]["usage"]["input_tokens"] == 9


def test_what_was_cached_is_told_only_of_what_continues(room, fake):
    """Of a first turn it would tell whether somebody else has lately sent the same text."""
    first = room.start("one")
    run(room, fake("a "), first)
    second = room.start("two", previous=first.response.id)
    run(room, fake("b "), second)

    assert [cached for _, cached, _ in [*room.billed(first), *room.billed(second)]] == [0, 2]


def test_an_answer_of_nothing_is_an_answer(room, fake):
    started = room.start()

    run(room, fake(), started)

    stored = room.stored(started)
    assert (stored.status, stored.output[0]["content"][0]["text"]) == ("completed", "")
    assert room.billed(started) == [(1, 0, 0)]


def test_sampling_reaches_the_engine(room, fake):
    engine = fake("a ", "b ", "c ")

    run(room, engine, room.start(max_output_tokens=2, temperature=0.0, top_p=0.5))

    (sampling,) = engine.samplings
    assert (sampling.max_output_tokens, sampling.temperature, sampling.top_p) == (2, 0.0, 0.5)


def test_nul_characters_of_an_engine_are_replaced(room, fake):
    started = room.start()

    run(room, fake("a\0", "b"), started)

    assert room.stored(started).output[0]["content"][0]["text"] == text(events(room, started)) == "a\ufffdb"


def test_another_attempt_goes_on_where_the_first_was_cut(room, fake):
    first, rest, started = fake("a ", "b ", "c "), fake("c "), room.start(max_output_tokens=10)

    cut(room, first, started, 2)
    run(room, rest, started)

    told = events(room, started)
    assert rest.prefixes == ["a b "]
    assert rest.samplings[0].max_output_tokens == 8
    assert text(told) == room.stored(started).output[0]["content"][0]["text"] == "a b c "
    assert [type_ for type_, _ in told].count("response.output_item.added") == 1
    assert room.billed(started) == [(1, 0, 3)]


def test_an_attempt_that_was_cut_at_its_last_token_is_only_ended(room, fake):
    first, rest, started = fake("a ", "b ", "c "), fake("never"), room.start(max_output_tokens=2)
    first.texts = ("a ", "b ")
    first.error = Worker()

    attempt = room.attempt(started)
    with pytest.raises(Worker):
        turn.run(first, attempt)
    room.give_back(attempt)
    run(room, rest, started)

    assert rest.prompts == []
    assert (room.stored(started).status, text(events(room, started))) == ("incomplete", "a b ")


def test_an_engine_that_can_not_continue_begins_again_and_says_so(room, fake):
    first, again = fake("x ", "y ", continues=False), fake("a ", "b ", "c ", continues=False)
    started = room.start()

    cut(room, first, started, 1)
    cut(room, first, started, 0)
    run(room, again, started)

    told = events(room, started)
    restarts = [payload["discarded_tokens"] for type_, payload in told if type_ == RESTARTED]
    assert restarts == [1]
    assert room.stored(started).output[0]["content"][0]["text"] == "a b c "
    assert room.billed(started) == [(1, 0, 3)]


def test_what_both_have_lost_is_told_as_a_rewind(room, fake):
    first, again, started = fake("a ", "b ", "c "), fake("a ", "b ", "c "), room.start()

    cut(room, first, started, 2)
    journal.delete(room.client, started.response.job_id)
    run(room, again, started)

    told = events(room, started)
    assert again.prefixes == [""]
    assert [type_ for type_, _ in told][:3] == ["response.created", "response.queued", "sangha:journal.rewound"]
    assert room.stored(started).rewound_at == 2
    assert room.billed(started) == [(1, 0, 3)]


@pytest.mark.parametrize(("why", "error"), [("cancelled", Cancelled), ("released", Released), ("overtaken", Fenced)])
def test_an_attempt_that_is_stopped_raises_why(room, fake, why, error):
    engine, attempt = fake("a ", "b ", "c "), room.attempt(room.start())
    engine.before_token = lambda place: attempt.stop(why) if place == 2 else None

    with pytest.raises(error):
        turn.run(engine, attempt)


@pytest.mark.parametrize("state", ["cancelled", "failed", "dead"])
def test_an_answer_that_ends_early_is_kept_and_billed(room, fake, state):
    engine, started = fake("a ", "b ", "c "), room.start("one two")
    engine.error = EngineError("it broke")
    attempt = room.attempt(started)
    with pytest.raises(EngineError):
        turn.run(engine, attempt)

    error = None if state == "cancelled" else {"code": "server_error", "message": "it broke"}
    room.settle(attempt, turn.end(attempt, state, error))

    stored, told = room.stored(started), events(room, started)
    assert stored.status == ("cancelled" if state == "cancelled" else "failed")
    assert (stored.output[0]["status"], stored.output[0]["content"][0]["text"]) == ("incomplete", "a b c ")
    assert told[-1][0] == ("sangha:job.cancelled" if state == "cancelled" else "response.failed")
    assert room.billed(started) == [(2, 0, 3)]
    if error:
        assert told[-1][1]["response"]["error"]["message"] == "it broke"


def test_a_turn_that_ends_before_it_began_has_no_output(room):
    started = room.start()
    attempt = room.attempt(started)

    room.settle(attempt, turn.end(attempt, "dead", {"code": "worker_lost", "message": "Its workers died."}))

    assert list(room.stored(started).output) == []
    assert room.billed(started) == [(0, 0, 0)]


def test_a_conversation_gets_the_items_of_a_turn_that_has_ended(room, fake):
    conversation = new_id("conv")
    with room.database.transaction() as connection:
        conversations.create(connection, conversation, room.caller.account_id, {})

    run(room, fake("a "), room.start("one", conversation=conversation))

    with room.database.connection() as connection:
        items = conversations.last_items(connection, conversation, room.caller.account_id, 10)
    assert [(item["role"], item["content"][0]["text"]) for item in items] == [("user", "one"), ("assistant", "a ")]


def test_a_turn_whose_response_was_deleted_fails_for_good(room, fake):
    started = room.start()
    attempt = room.attempt(started)
    with room.database.connection() as connection:
        connection.execute("DELETE FROM responses WHERE id = %s", (started.response.id,))

    with pytest.raises(PermanentFailure) as failure:
        turn.run(fake("a "), attempt)

    assert failure.value.code == "deleted"
