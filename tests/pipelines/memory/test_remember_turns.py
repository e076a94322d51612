"""Ended turns are remembered once each, in few jobs, also after crashes, cancellations and deletions."""

import threading

import pytest

from models.memory import memories, spaces
from models.memory.memories import Filters
from models.memory.spaces import SpaceKey
from models.platform.errors import Fenced, Released
from models.platform.settings import Settings
from pipelines.chat import turn
from pipelines.chat.cancellation import cancel_jobs
from pipelines.memory import remember_turns
from pipelines.memory.follow_ups import remember_turn_job
from pipelines.memory.forget_memories import delete_memory
from pipelines.memory.memory_input import MAX_TEXT_LENGTH
from tests.pipelines.chat.conftest import FakeEngine, TurnHarness
from tests.pipelines.memory.job_helpers import claim_next, embed_alike, memory_texts, unfinished_jobs

SETTINGS = Settings()


@pytest.fixture
def harness(database, redis_client):
    harness = TurnHarness(database, redis_client)
    yield harness
    harness.close()


def run_turn(harness, *texts, context=1000, **options):
    started = harness.start(*texts, **options)
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(FakeEngine("fine", context=context), attempt))
    return started


def run_remember_job(harness, embed=embed_alike, settings=SETTINGS):
    attempt = claim_next(harness, "memory.remember")
    harness.settle(attempt, remember_turns.run(embed, settings, attempt))


def memory_rows(harness):
    with harness.database.connection() as connection:
        return connection.execute(
            "SELECT speaker, conversation_id, response_id, unique_key FROM memories "
            "WHERE account_id = %s ORDER BY ordinal",
            (harness.caller.account_id,),
        ).fetchall()


def test_turn_is_remembered_verbatim(harness):
    started = run_turn(harness, "I have a cat.\n  Her name is Miso.")

    run_remember_job(harness)

    assert memory_texts(harness) == ["I have a cat.\n  Her name is Miso.", "fine"]
    question, answer = memory_rows(harness)
    assert (question["speaker"], answer["speaker"]) == ("user", "assistant")
    assert {question["response_id"], question["conversation_id"]} == {started.response.id}
    assert question["unique_key"] == started.response.input[0]["id"]


def test_many_turns_share_one_job(harness):
    for number in range(remember_turns.BATCH + 2):
        run_turn(harness, f"turn {number}")
    (job,) = unfinished_jobs(harness, "memory.remember")

    run_remember_job(harness)

    assert job["delay"].total_seconds() <= 0  # the account had no such job before
    assert memory_texts(harness)[::2] == [f"turn {number}" for number in range(remember_turns.BATCH + 2)]
    assert unfinished_jobs(harness, "memory.remember") == []


def test_job_is_delayed_if_the_account_had_one_recently(harness):
    run_turn(harness, "one")
    run_remember_job(harness)
    run_turn(harness, "two")

    (job,) = unfinished_jobs(harness, "memory.remember")

    assert job["delay"].total_seconds() == pytest.approx(1, abs=0.1)


def test_message_of_a_turn_that_is_cancelled_before_its_start_is_remembered(harness):
    """No worker ends such a turn."""
    started = harness.start("I have a dog.")
    with harness.database.transaction() as connection:
        assert cancel_jobs(connection, [started.response.job_id], harness.caller.account_id).ended

    run_remember_job(harness)

    assert memory_texts(harness) == ["I have a dog."]
    assert unfinished_jobs(harness, "memory.remember") == []


def test_turn_that_ends_during_a_running_job_gets_a_job_of_its_own(harness):
    run_turn(harness, "one")

    def embed_and_run_turn(texts):
        if "one" in texts:
            run_turn(harness, "two")
        return embed_alike(texts)

    run_remember_job(harness, embed_and_run_turn)
    assert "two" not in memory_texts(harness)
    run_remember_job(harness)

    assert memory_texts(harness)[::2] == ["one", "two"]


def test_job_waits_for_turns_whose_end_is_not_committed(harness):
    """Such a turn found the queued job and enqueued none, so the job must not read before the turn is visible."""
    run_turn(harness, "one")
    with harness.database.transaction() as connection:
        attempt = claim_next(harness, "memory.remember")
        job = remember_turn_job(harness.stored_response(run_turn(harness, "two")))
        connection.execute(  # the lock of a third turn that is about to commit
            "SELECT pg_advisory_xact_lock_shared(hashtextextended('gather ' || %s, 0))", (job.serial_key,)
        )
        worker = threading.Thread(target=remember_turns.run, args=(embed_alike, Settings(), attempt))
        worker.start()
        worker.join(0.2)
        assert worker.is_alive()
        assert memory_texts(harness) == []
    worker.join()

    assert memory_texts(harness)[::2] == ["one", "two"]


def test_fenced_attempt_writes_nothing_and_the_next_one_writes_everything_once(harness):
    run_turn(harness, "one")
    attempt = claim_next(harness, "memory.remember")

    def embed_after_takeover(texts):
        harness.crash_worker(attempt)
        run_remember_job(harness)
        return embed_alike(texts)

    with pytest.raises(Fenced):
        remember_turns.run(embed_after_takeover, Settings(), attempt)

    assert memory_texts(harness) == ["one", "fine"]


@pytest.mark.parametrize("options", [{"store": False}, {"memory": {"remember": False}}])
def test_turn_that_opts_out_enqueues_no_job(harness, options):
    run_turn(harness, "a secret", **options)

    assert unfinished_jobs(harness, "memory.remember") == []


def test_only_the_question_of_a_cancelled_turn_is_remembered(harness):
    started = harness.start("I have a cat")
    attempt = harness.attempt(started)
    turn.run(FakeEngine("half an ans"), attempt)
    harness.settle(attempt, turn.end(attempt, "cancelled", None))

    run_remember_job(harness)

    assert memory_texts(harness) == ["I have a cat"]


def test_items_that_a_stateless_client_sends_again_are_not_remembered_again(harness):
    def message(role, text):
        kind = "output_text" if role == "assistant" else "input_text"
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    items = [
        message("system", "Be kind."),
        message("user", "one"),
        message("assistant", "first"),
        message("user", "two"),
    ]
    run_turn(harness, items=items)

    run_remember_job(harness)

    assert memory_texts(harness) == ["two", "fine"]


def test_message_longer_than_a_memory_is_split(harness):
    text = "word " * MAX_TEXT_LENGTH

    run_turn(harness, text, context=1_000_000)
    run_remember_job(harness)

    *pieces, _ = memory_texts(harness)
    assert "".join(pieces) == text
    assert len(pieces) == 6
    assert all(len(piece) <= MAX_TEXT_LENGTH for piece in pieces)


def run_turn_with_recalled(harness, text, memory_id):
    """Run a turn for whose answer a memory was recalled."""
    started = run_turn(harness, text)
    with harness.database.connection() as connection:
        connection.execute(
            "UPDATE responses SET recalled = jsonb_build_array(jsonb_build_object('id', %s::text)) WHERE id = %s",
            (memory_id, started.response.id),
        )


def read_memory(harness, text):
    with harness.database.connection() as connection:
        row = connection.execute(
            "SELECT id FROM memories WHERE account_id = %s AND text = %s", (harness.caller.account_id, text)
        ).fetchone()
        return memories.read(connection, row["id"], SpaceKey(harness.caller.account_id, harness.caller.user_id))


def test_answer_is_erased_with_a_memory_that_was_recalled_for_it(harness):
    run_turn(harness, "My dog is called Rex.")
    run_remember_job(harness)
    source = read_memory(harness, "My dog is called Rex.")
    run_turn_with_recalled(harness, "What is my dog called?", source.id)
    run_remember_job(harness)

    delete_memory(harness.database, source)

    assert memory_texts(harness) == ["fine", "What is my dog called?", ""]


def test_answer_is_not_remembered_if_a_memory_recalled_for_it_was_deleted(harness):
    run_turn_with_recalled(harness, "What is my dog called?", "mem_deleted")

    run_remember_job(harness)

    assert memory_texts(harness) == ["What is my dog called?"]


def texts_of(harness, end_user):
    with harness.database.connection() as connection:
        key = SpaceKey(harness.caller.account_id, harness.caller.user_id, end_user)
        return {memory.text for memory in memories.page(connection, key, Filters(speaker="user"))}


def test_one_job_remembers_the_turns_of_each_end_user_in_their_space(harness):
    for end_user in ("alice", "bob", "", "alice"):
        run_turn(harness, f"{end_user or 'the user'} spoke", space=end_user)

    run_remember_job(harness, settings=Settings(reflection="on"))

    assert {name: texts_of(harness, name) for name in ("alice", "bob", "", "carol")} == {
        "alice": {"alice spoke"}, "bob": {"bob spoke"}, "": {"the user spoke"}, "carol": set()
    }  # fmt: skip
    assert len(unfinished_jobs(harness, "memory.extract")) == 3


def test_turns_of_a_space_that_is_deleted_meanwhile_are_remembered_in_a_new_one(harness):
    # Given a space that is deleted while a turn of it is remembered
    run_turn(harness, "I have a cat", space="alice")

    def delete_space(texts):
        with harness.database.connection() as connection:
            key = SpaceKey(harness.caller.account_id, harness.caller.user_id, "alice")
            assert spaces.delete_if_empty(connection, spaces.find(connection, key).id)
        return embed_alike(texts)

    attempt = claim_next(harness, "memory.remember")
    with pytest.raises(Released):
        remember_turns.run(delete_space, Settings(), attempt)

    # When the released job runs again
    harness.settle(attempt, remember_turns.run(embed_alike, Settings(), attempt))

    # Then the turn is remembered
    assert texts_of(harness, "alice") == {"I have a cat"}
