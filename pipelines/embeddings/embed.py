"""Embed the texts of a job in batches, and check for cancellation and report progress after each.

An attempt whose worker died starts over: a batch takes seconds, and a part of the vectors is of no use.
"""

import struct
from base64 import b64encode
from collections.abc import Sequence

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import Job
from models.jobs.usage import TokenUsage, UsageSource, bill
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from pipelines.inference.llamacpp.embedder import Embedder, Embeddings, TextTooLong

#: Texts of a batch: about four seconds for the longest ones on a slow core.
BATCH = 32


def run(embedder: Embedder, attempt: Attempt) -> Ending:
    """Embed the texts of the job. Raises the attempt's stop reason, PermanentFailure and EngineError."""
    texts: Sequence[str] = attempt.job.arguments["texts"]
    check_dimensions(embedder, attempt.job.arguments["dimensions"])
    vectors, tokens = bytearray(), 0
    for offset in range(0, len(texts), BATCH):
        if offset:
            attempt.report_progress(offset, len(texts), note="texts embedded")
        embedded = _embed(embedder, texts[offset : offset + BATCH], offset)
        vectors += b"".join(struct.pack(f"<{len(vector)}f", *vector) for vector in embedded.vectors)
        tokens += embedded.tokens
    attempt.check()
    result = {"model": embedder.name, "dimensions": embedder.dimensions, "prompt_tokens": tokens}
    ending = plain_ending(attempt, "completed", result=result)
    # The vectors are stored in the job's row only: they may have megabytes, too much for the journal.
    return Ending(
        "completed",
        ending.events,
        result={**result, "vectors": b64encode(vectors).decode()},
        record=lambda connection: _bill(connection, attempt.job, embedder.name, tokens),
        tokens=tokens,
    )


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
