"""Given turns that have ended, when they are remembered, then each is, once, in few jobs, through kills and deletes."""

import threading

import pytest

from models.memory import memories
from models.platform.errors import Fenced
from models.platform.settings import Settings
from pipelines.chat import turn
from pipelines.chat.cancellation import cancel_jobs
from pipelines.memory import remember_turns
from pipelines.memory.follow_ups import remember_turn_job
from pipelines.memory.forget_memories import delete_memory
from pipelines.memory.memory_input import MAX_TEXT_LENGTH
from tests.pipelines.chat.conftest import FakeEngine, TurnHarness
from tests.pipelines.memory.job_helpers import flat, next_job, remembered, waiting


@pytest.fixture
def harness(database, redis_client):
    harness = TurnHarness(database, redis_client)
    yield harness
    harness.close()


def say(harness, *texts, context=1000, **options):
    started = harness.start(*texts, **options)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(FakeEngine("fine", context=context), attempt))
    return started


def remember(harness, embed=flat):
    attempt = next_job(harness, "memory.remember")
    harness.settle(attempt, remember_turns.run(embed, Settings(), attempt))


def rows(harness):
    with harness.database.connection() as connection:
        return connection.execute(
            "SELECT speaker, conversation_id, response_id, unique_key FROM memories "
            "WHERE account_id = %s ORDER BY ordinal",
            (harness.caller.account_id,),
        ).fetchall()


def test_a_turn_is_remembered_word_by_word(harness):
    started = say(harness, "I have a cat.\n  Her name is Miso.")

    remember(harness)

    assert remembered(harness) == ["I have a cat.\n  Her name is Miso.", "fine"]
    asked, answered = rows(harness)
    assert (asked["speaker"], answered["speaker"]) == ("user", "assistant")
    assert {asked["response_id"], asked["conversation_id"]} == {started.response.id}
    assert asked["unique_key"] == started.response.input[0]["id"]


def test_a_burst_of_turns_makes_one_job(harness):
    for number in range(remember_turns.BATCH + 2):
        say(harness, f"turn {number}")
    (job,) = waiting(harness, "memory.remember")

    remember(harness)

    assert job["delay"].total_seconds() <= 0  # the first of them found nothing else going on
    assert remembered(harness)[::2] == [f"turn {number}" for number in range(remember_turns.BATCH + 2)]
    assert waiting(harness, "memory.remember") == []


def test_a_busy_account_waits_for_more(harness):
    say(harness, "one")
    remember(harness)
    say(harness, "two")

    (job,) = waiting(harness, "memory.remember")

    assert job["delay"].total_seconds() == pytest.approx(1, abs=0.1)


def test_what_was_said_in_a_turn_that_is_cancelled_before_it_begins_is_remembered(harness):
    """No worker ever ends it."""
    started = harness.start("I have a dog.")
    with harness.database.transaction() as connection:
        assert cancel_jobs(connection, [started.response.job_id], harness.caller.account_id).ended

    remember(harness)

    assert remembered(harness) == ["I have a dog."]
    assert waiting(harness, "memory.remember") == []


def test_a_turn_that_ends_while_others_are_remembered_has_a_job_of_its_own(harness):
    say(harness, "one")

    def meanwhile(texts):
        if "one" in texts:
            say(harness, "two")
        return flat(texts)

    remember(harness, meanwhile)
    assert "two" not in remembered(harness)
    remember(harness)

    assert remembered(harness)[::2] == ["one", "two"]


def test_a_turn_whose_end_is_not_committed_is_waited_for(harness):
    """It found a queued job and left its work to that, which then must not look before it can see the turn."""
    say(harness, "one")
    with harness.database.transaction() as connection:
        attempt = next_job(harness, "memory.remember")
        late = remember_turn_job(harness.stored(say(harness, "two")))
        connection.execute(  # as the end of a third turn does that is frozen before its commit
            "SELECT pg_advisory_xact_lock_shared(hashtextextended('gather ' || %s, 0))", (late.serial_key,)
        )
        worker = threading.Thread(target=remember_turns.run, args=(flat, Settings(), attempt))
        worker.start()
        worker.join(0.2)
        assert worker.is_alive()
        assert remembered(harness) == []
    worker.join()

    assert remembered(harness)[::2] == ["one", "two"]


def test_an_attempt_that_was_overtaken_writes_nothing_and_the_next_one_everything_once(harness):
    say(harness, "one")
    attempt = next_job(harness, "memory.remember")

    def frozen(texts):
        harness.give_back(attempt)
        remember(harness)
        return flat(texts)

    with pytest.raises(Fenced):
        remember_turns.run(frozen, Settings(), attempt)

    assert remembered(harness) == ["one", "fine"]


@pytest.mark.parametrize("options", [{"store": False}, {"memory": {"remember": False}}])
def test_what_is_not_to_be_remembered_makes_no_job(harness, options):
    say(harness, "a secret", **options)

    assert waiting(harness, "memory.remember") == []


def test_of_a_cancelled_turn_only_the_question_is_remembered(harness):
    started = harness.start("I have a cat")
    attempt = harness.attempt(started)
    turn.run(FakeEngine("half an ans"), attempt)
    harness.settle(attempt, turn.end(attempt, "cancelled", None))

    remember(harness)

    assert remembered(harness) == ["I have a cat"]


def test_of_what_a_stateless_client_sends_again_only_the_last_is_new(harness):
    def message(role, text):
        kind = "output_text" if role == "assistant" else "input_text"
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    told = [
        message("system", "Be kind."),
        message("user", "one"),
        message("assistant", "first"),
        message("user", "two"),
    ]
    say(harness, items=told)

    remember(harness)

    assert remembered(harness) == ["two", "fine"]


def test_a_message_longer_than_a_memory_is_remembered_in_pieces(harness):
    text = "word " * MAX_TEXT_LENGTH

    say(harness, text, context=1_000_000)
    remember(harness)

    *pieces, _ = remembered(harness)
    assert "".join(pieces) == text
    assert len(pieces) == 6
    assert all(len(piece) <= MAX_TEXT_LENGTH for piece in pieces)


def answered_by(harness, text, memory_id):
    """A turn whose answer was given a memory."""
    started = say(harness, text)
    with harness.database.connection() as connection:
        connection.execute(
            "UPDATE responses SET recalled = jsonb_build_array(jsonb_build_object('id', %s::text)) WHERE id = %s",
            (memory_id, started.response.id),
        )


def memory_of(harness, text):
    with harness.database.connection() as connection:
        row = connection.execute(
            "SELECT id FROM memories WHERE account_id = %s AND text = %s", (harness.caller.account_id, text)
        ).fetchone()
        return memories.read(connection, row["id"], harness.caller.account_id, harness.caller.user_id)


def test_an_answer_that_may_repeat_a_memory_goes_with_it(harness):
    say(harness, "My dog is called Rex.")
    remember(harness)
    source = memory_of(harness, "My dog is called Rex.")
    answered_by(harness, "What is my dog called?", source.id)
    remember(harness)

    delete_memory(harness.database, source)

    assert remembered(harness) == ["fine", "What is my dog called?", ""]


def test_an_answer_is_not_remembered_once_what_it_may_repeat_is_forgotten(harness):
    answered_by(harness, "What is my dog called?", "mem_forgotten")

    remember(harness)

    assert remembered(harness) == ["What is my dog called?"]
