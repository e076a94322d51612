"""Count the tokens of a turn's prompt without running it."""

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from pipelines.chat.prompt import assemble_messages, output_format_of
from pipelines.chat.prompt_jobs import hypothetical_turn
from pipelines.inference.context import count_tokens
from pipelines.inference.engine import Engine

KIND = "tokens.count"


def run(engine: Engine, attempt: Attempt) -> Ending:
    """Assemble the prompt as a turn would, and count all of it, whether or not it fits into the context.

    Raises PermanentFailure(code="context_length_exceeded") for one that is longer by far.
    """
    response = hypothetical_turn(attempt)
    with attempt.database.connection() as connection:
        messages = assemble_messages(engine, connection, response)
    attempt.check()
    tokens = count_tokens(engine, messages, output_format_of(response.request))
    return plain_ending(attempt, "completed", result={"input_tokens": tokens})
