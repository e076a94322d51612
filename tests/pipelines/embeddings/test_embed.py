"""A long embedding stops soon after its cancellation, and yields its thread to jobs of other accounts."""

import struct
from base64 import b64decode

import pytest

from models.jobs.jobs import NewJob, enqueue
from models.platform.errors import Cancelled, Released
from models.platform.ids import new_id
from pipelines import time_slice
from pipelines.embeddings import embed
from pipelines.inference.llamacpp.embedder import Embeddings

#: A text that fills half a batch.
LONG = "x" * (embed.BATCH_CHARACTERS // 2)


class FakeEmbedder:
    """Embeds each text as its length, and calls `after_batch` then."""

    name, dimensions = "a-model", 1

    def __init__(self, after_batch=lambda: None):
        self.batches = []
        self._after_batch = after_batch

    def embed_untruncated(self, texts):
        self.batches.append(list(texts))
        self._after_batch()
        return Embeddings([[float(len(text))] for text in texts], 2 * len(texts))


def embedding_job(account, texts):
    return NewJob("embedding.create", account, {"texts": texts, "dimensions": None})


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (["short"] * (embed.BATCH + 1), embed.BATCH),
        ([LONG] * 3, 2),
        ([LONG, LONG + "x", "short"], 1),
        ([3 * LONG, "short"], 1),
        (["short"], 1),
    ],
)
def test_batch_is_limited_by_texts_and_characters(texts, count):
    assert embed.next_batch(texts, 0) == texts[:count]


def test_cancellation_takes_effect_after_the_current_batch(begin, account):
    # Given an embedding of 16 batches that is cancelled in the first
    attempt = begin(embedding_job(account, [LONG] * 32))
    embedder = FakeEmbedder(lambda: attempt.stop("cancelled"))

    # When it runs
    with pytest.raises(Cancelled):
        embed.run(embedder, attempt)

    # Then no other batch is embedded
    assert embedder.batches == [[LONG] * 2]


def test_long_embedding_yields_to_another_account_and_continues(database, begin, account, monkeypatch):
    # Given a job of another account that waits for the thread
    monkeypatch.setattr(time_slice.TimeSlice.__init__, "__defaults__", (time_slice.SECONDS, 0))
    monkeypatch.setattr(time_slice, "INTERVAL", 0)
    waiting = embedding_job(new_id("acct"), ["hello"])
    texts = ["x" * length for length in range(1, 2 * embed.BATCH + 2)]
    job, embedder = embedding_job(account, texts), FakeEmbedder()

    # When it begins to wait during the first batch
    first = FakeEmbedder(lambda: enqueue_published(database, waiting))
    with pytest.raises(Released):
        embed.run(first, begin(job))

    # Then the attempt ends after this batch, and the next one continues behind it
    assert first.batches == [texts[: embed.BATCH]]
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (waiting.id,))
    ending = embed.run(embedder, begin(job))
    assert embedder.batches == [texts[embed.BATCH : 2 * embed.BATCH], texts[2 * embed.BATCH :]]
    assert vectors_of(ending) == [float(len(text)) for text in texts]
    assert ending.result["prompt_tokens"] == 2 * len(texts)


def test_vectors_of_another_model_are_not_continued(begin, account):
    attempt = begin(embedding_job(account, ["a", "bc"]))
    resume = {"model": "another-model", "texts": 1, "tokens": 2, "vectors": "AAAA"}
    attempt.report_progress(1, 2, resume=resume)

    ending = embed.run(FakeEmbedder(), begin(attempt.job))

    assert vectors_of(ending) == [1.0, 2.0]


def enqueue_published(database, job):
    """Enqueue a job of a new account, and mark it published: it waits for a thread."""
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'another')", (job.account_id,))
        enqueue(connection, job)
        connection.execute("UPDATE jobs SET published_at = now() - interval '1 second' WHERE id = %s", (job.id,))


def vectors_of(ending):
    packed = b64decode(ending.result["vectors"])
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))
