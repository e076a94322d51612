"""Continue a turn whose end Postgres has lost, although its journal in Redis has ended."""

import pytest

from pipelines.chat import turn
from tests.pipelines.chat.test_turn import events, run, text


@pytest.mark.parametrize("further", [(), ("d ",)])
def test_a_turn_whose_end_was_lost_in_a_failover_is_continued_after_a_rewind(harness, fake_engine, further):
    # Given a turn that has ended, and a standby of Postgres that lacks its claim and its end
    started = harness.start()
    attempt = harness.attempt(started)
    ending = turn.run(fake_engine("a ", "b ", "c "), attempt)
    attempt.journal.append_endings(ending.events)
    assert harness.writer.drain()
    with harness.database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'queued', attempt = 0, claim_id = NULL, worker = NULL WHERE id = %s",
            (attempt.job.id,),
        )
    # When another worker runs it
    second = fake_engine(*further)
    run(harness, second, started)
    # Then it continues the answer, and the stream has one ending, after an announced rewind
    turn_events = events(harness, started)
    types = [type_ for type_, _ in turn_events]
    assert second.prefixes == ["a b c "]
    assert text(turn_events) == "".join(["a b c ", *further])
    assert harness.stored_response(started).output[0]["content"][0]["text"] == text(turn_events)
    assert [types.count(type_) for type_ in ("sangha:journal.rewound", "response.output_text.done")] == [1, 1]
    assert types[-1] == "response.completed"
    assert types.index("sangha:journal.rewound") == len(types) - len(ending.events) - 1 - len(further)
    assert [payload["sequence_number"] for _, payload in turn_events] == list(range(len(types)))
    assert harness.billed(started) == [(1, 0, 3 + len(further))]
