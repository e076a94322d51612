"""Archive chunks of a journal and read them back."""

from models.journal.archive import archive, read_archive
from models.journal.events import event, to_lines


def events(first, last, tokens=0):
    return [event(sequence, "test.said", {"n": sequence}, tokens) for sequence in range(first, last + 1)]


def test_chunks_replay_the_whole_journal_from_any_sequence_number(job_store, account):
    job_id = job_store.enqueue(account, opening=events(0, 1))
    with job_store.database.connection() as connection:
        archive(connection, job_id, events(2, 6, tokens=2))
        archive(connection, job_id, events(7, 7, tokens=1))

        whole = read_archive(connection, job_id)

        assert [event.data for event in whole.events] == [event.data for event in events(0, 7)]
        assert (whole.last, whole.tokens) == (7, 11)
        for after in range(-1, 9):
            rest = read_archive(connection, job_id, after).events
            assert [event.sequence for event in rest] == list(range(after + 1, 8))


def test_extension_events_of_an_earlier_version_are_read_by_their_present_names(job_store, account):
    # Given
    job_id = job_store.enqueue(account)
    stored = [
        event(0, "response.created", {"text": 'a "sangha.job.dead"\nof {"type":"sangha.job.dead"}'}),
        event(1, "sangha.engine.started", {}),
        event(2, "sangha.job.cancelled", {"was": "sangha.engine.started"}),
    ]
    expected = [
        stored[0],
        event(1, "sangha:engine.started", {}),
        event(2, "sangha:job.cancelled", {"was": "sangha.engine.started"}),
    ]
    with job_store.database.connection() as connection:
        # When
        archive(connection, job_id, stored)

        # Then
        assert to_lines(read_archive(connection, job_id).events) == to_lines(expected)


def test_an_unknown_job_has_no_events(job_store):
    with job_store.database.connection() as connection:
        nothing = read_archive(connection, "job_nobody")

    assert (nothing.events, nothing.last, nothing.tokens) == ([], -1, 0)


def test_an_unconfirmed_chunk_is_extended_but_never_shortened(job_store, account):
    job_id = job_store.enqueue(account, opening=events(0, 1))
    with job_store.database.connection() as connection:
        archive(connection, job_id, events(2, 4, tokens=1))
        archive(connection, job_id, events(2, 9, tokens=1))
        archive(connection, job_id, events(2, 4, tokens=1))

        assert [event.sequence for event in read_archive(connection, job_id).events] == list(range(10))
        assert read_archive(connection, job_id).tokens == 8


def test_any_text_is_kept_exactly(job_store, account):
    said = [event(0, "test.said", {"delta": 'nul \0, break \n\r\u2028, quote " and 🦜'})]
    job_id = job_store.enqueue(account, opening=said)

    with job_store.database.connection() as connection:
        assert read_archive(connection, job_id).events == said
