"""Generate JSON for background work."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.jobs.attempt_context import Attempt
from models.platform import span_names, tracing
from models.platform.tracing import Value
from pipelines.inference.engine import Engine, Finish, Message, OutputFormat, Sampling, Token


def generate_json(
    engine: Engine, attempt: Attempt, prompt: Sequence[Message], schema: Mapping[str, Any], max_tokens: int
) -> tuple[str, Finish]:
    """Generate an answer of at most `max_tokens` tokens: JSON that the schema admits, unless it is cut off.

    Raises PermanentFailure and EngineError. When the attempt is stopped, the result is `Finish("cancelled")`.
    """
    attributes: dict[str, Value] = {span_names.GEN_AI_OPERATION: "chat", span_names.GEN_AI_MODEL: engine.name}
    with tracing.span(span_names.chat(engine.name), "internal", attributes) as span:
        text, finish = _generate(engine, attempt, prompt, schema, max_tokens)
        span.set(span_names.GEN_AI_INPUT_TOKENS, finish.prompt_tokens)
        span.set(span_names.GEN_AI_OUTPUT_TOKENS, finish.generated_tokens)
    return text, finish


def _generate(
    engine: Engine, attempt: Attempt, prompt: Sequence[Message], schema: Mapping[str, Any], max_tokens: int
) -> tuple[str, Finish]:
    text, finish = "", Finish("cancelled", 0, 0, 0)
    for output in engine.generate(
        prompt,
        prefix="",
        sampling=Sampling(max_output_tokens=max_tokens, temperature=0),
        cancelled=attempt.should_stop,
        output_format=OutputFormat(schema=schema),
        cache_owner=attempt.job.account_id,
    ):
        if isinstance(output, Token):
            text += output.text
        elif isinstance(output, Finish):
            finish = output
    return text, finish
