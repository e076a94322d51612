"""Embeddings are made: batch by batch, so that a cancel is heard and whoever waits hears that the work goes on.

An attempt that dies begins again: a batch takes seconds, and half a list is of no use to anybody.
"""

import struct
from base64 import b64encode
from collections.abc import Sequence

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import Job
from models.jobs.usage import TokenUsage, bill
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from pipelines.inference.llamacpp.embedder import Embeddings, Embedder, TextTooLong

#: Texts between two looks at whether to go on: about four seconds of the longest ones on a slow core.
BATCH = 32


def run(embedder: Embedder, attempt: Attempt) -> Ending:
    """Make the vectors of the job's texts. Raises the reason to stop, PermanentFailure and EngineError."""
    texts: Sequence[str] = attempt.job.arguments["texts"]
    check_dimensions(embedder, attempt.job.arguments["dimensions"])
    vectors, tokens = bytearray(), 0
    for begin in range(0, len(texts), BATCH):
        if begin:
            attempt.report_progress(begin, len(texts), note="texts embedded")
        embedded = _embed(embedder, texts[begin : begin + BATCH], begin)
        vectors += b"".join(struct.pack(f"<{len(vector)}f", *vector) for vector in embedded.vectors)
        tokens += embedded.tokens
    attempt.check()
    result = {"model": embedder.name, "dimensions": embedder.dimensions, "prompt_tokens": tokens}
    ending = plain_ending(attempt, "completed", result=result)
    # The vectors stand in the row only: megabytes are nothing for a journal.
    return Ending(
        "completed",
        ending.events,
        result={**result, "vectors": b64encode(vectors).decode()},
        record=lambda connection: _bill(connection, attempt.job, embedder.name, tokens),
        tokens=tokens,
    )


def check_dimensions(embedder: Embedder, asked: int | None) -> None:
    """Raise PermanentFailure for vectors of a length that the model does not make."""
    if asked not in (None, embedder.dimensions):
        message = f"The model makes vectors of {embedder.dimensions} dimensions, and no others."
        raise PermanentFailure(message, code="unsupported_dimensions")


def _embed(embedder: Embedder, texts: Sequence[str], begin: int) -> Embeddings:
    try:
        return embedder.embed_whole(texts)
    except TextTooLong as error:
        message = (
            f"The text at place {begin + error.position} is too long: this model takes {error.max_tokens} tokens a text."
        )
        raise PermanentFailure(message, code="context_length_exceeded") from None


def _bill(connection: Connection, job: Job, model: str, tokens: int) -> None:
    bill(connection, TokenUsage(tokens, 0, 0), job_id=job.id, account_id=job.account_id, model=model)
