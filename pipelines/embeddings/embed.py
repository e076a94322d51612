"""Embed the texts of a job in small batches; after each, check for cancellation and for jobs of other accounts.

An attempt that yields its thread to others stores its vectors for the next one. One whose worker died starts over: it
loses seconds of work, and storing the vectors after each batch would write megabytes again and again.
"""

import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import Job
from models.jobs.usage import TokenUsage, UsageSource, bill
from models.platform.database import Connection
from models.platform.errors import PermanentFailure, Released
from pipelines.inference.llamacpp.embedder import Embedder, Embeddings, TextTooLong
from pipelines.time_slice import TimeSlice

#: Texts of a batch at most, and their characters unless a single text has more. It takes up to half a second on a
#: slow core, during which a cancellation has no effect.
BATCH, BATCH_CHARACTERS = 8, 2048

#: Texts between two reports of progress, and their note.
REPORT_INTERVAL, NOTE = 32, "texts embedded"


@dataclass(slots=True)
class Embedded:
    """The first texts of a job that have been embedded: their number, tokens, and vectors as little-endian float32."""

    texts: int = 0
    tokens: int = 0
    vectors: bytearray = field(default_factory=bytearray)

    def add(self, embeddings: Embeddings) -> None:
        """Append the vectors of the next texts."""
        self.vectors += b"".join(struct.pack(f"<{len(vector)}f", *vector) for vector in embeddings.vectors)
        self.texts += len(embeddings.vectors)
        self.tokens += embeddings.tokens

    def resume(self, model: str) -> Mapping[str, Any]:
        """Return what the next attempt needs to continue."""
        vectors = b64encode(self.vectors).decode()
        return {"model": model, "texts": self.texts, "tokens": self.tokens, "vectors": vectors}

    @classmethod
    def of_earlier_attempt(cls, job: Job, model: str) -> "Embedded":
        """Return what an earlier attempt stored; nothing if it used another model."""
        resume = (job.progress or {}).get("resume")
        if resume is None or resume["model"] != model:
            return cls()
        return cls(resume["texts"], resume["tokens"], bytearray(b64decode(resume["vectors"])))


def run(embedder: Embedder, attempt: Attempt) -> Ending:
    """Embed the texts of the job.

    Raises the attempt's stop reason, Released to yield to jobs of others, PermanentFailure and EngineError.
    """
    check_dimensions(embedder, attempt.job.arguments["dimensions"])
    embedded = Embedded.of_earlier_attempt(attempt.job, embedder.name)
    try:
        _embed_rest(embedder, attempt, embedded)
    except Released:
        _store(attempt, embedded, embedder.name)
        raise
    result = {"model": embedder.name, "dimensions": embedder.dimensions, "prompt_tokens": embedded.tokens}
    ending = plain_ending(attempt, "completed", result=result)
    # The vectors are stored in the job's row only: they may have megabytes, too much for the journal.
    return Ending(
        "completed",
        ending.events,
        result={**result, "vectors": b64encode(embedded.vectors).decode()},
        record=lambda connection: _bill(connection, attempt.job, embedder.name, embedded.tokens),
        tokens=embedded.tokens,
    )


def _embed_rest(embedder: Embedder, attempt: Attempt, embedded: Embedded) -> None:
    texts: Sequence[str] = attempt.job.arguments["texts"]
    time_slice, next_report = TimeSlice(attempt), embedded.texts + REPORT_INTERVAL
    while embedded.texts < len(texts):
        time_slice.check()
        embedded.add(_embed(embedder, next_batch(texts, embedded.texts), embedded.texts))
        if next_report <= embedded.texts < len(texts):
            attempt.report_progress(embedded.texts, len(texts), note=NOTE)
            next_report += REPORT_INTERVAL
    attempt.check()


def _store(attempt: Attempt, embedded: Embedded, model: str) -> None:
    """Store the vectors for the next attempt, unless the worker is stopping: then the next attempt starts over."""
    if attempt.stop_reason() is None:
        total = len(attempt.job.arguments["texts"])
        attempt.report_progress(embedded.texts, total, note=NOTE, resume=embedded.resume(model))


def next_batch(texts: Sequence[str], start: int) -> Sequence[str]:
    """Return the texts to embed together, beginning with the one at `start`."""
    end, characters = start + 1, len(texts[start])
    while end < min(len(texts), start + BATCH) and characters + len(texts[end]) <= BATCH_CHARACTERS:
        characters += len(texts[end])
        end += 1
    return texts[start:end]


def check_dimensions(embedder: Embedder, dimensions: int | None) -> None:
    """Raise PermanentFailure for a number of dimensions that the model does not have."""
    if dimensions not in (None, embedder.dimensions):
        message = f"Unsupported number of dimensions: {dimensions}. The model has {embedder.dimensions}."
        raise PermanentFailure(message, code="unsupported_dimensions")


def _embed(embedder: Embedder, texts: Sequence[str], offset: int) -> Embeddings:
    try:
        return embedder.embed_untruncated(texts)
    except TextTooLong as error:
        index = offset + error.position
        message = f"The text at index {index} is too long: the limit of the model is {error.max_tokens} tokens."
        raise PermanentFailure(message, code="context_length_exceeded") from None


def _bill(connection: Connection, job: Job, model: str, tokens: int) -> None:
    usage, source = TokenUsage(tokens, 0, 0), UsageSource.of_job(job)
    bill(connection, usage, job_id=job.id, account_id=job.account_id, model=model, source=source)
