"""One question to the engine whose answer is JSON, for work in the background."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.jobs.attempt_context import Attempt
from pipelines.inference.engine import Engine, Finish, Message, OutputFormat, Sampling, Token


def generate_json(
    engine: Engine, attempt: Attempt, prompt: Sequence[Message], schema: Mapping[str, Any], most: int
) -> tuple[str, Finish]:
    """The answer, of at most so many tokens: JSON that the schema admits, unless it is cut off.

    Raises PermanentFailure and EngineError; of a reason to stop the attempt knows.
    """
    text, finish = "", Finish("cancelled", 0, 0, 0)
    for piece in engine.generate(
        prompt,
        prefix="",
        sampling=Sampling(max_output_tokens=most, temperature=0),
        cancelled=attempt.should_stop,
        output_format=OutputFormat(schema=schema),
    ):
        if isinstance(piece, Token):
            text += piece.text
        elif isinstance(piece, Finish):
            finish = piece
    return text, finish
