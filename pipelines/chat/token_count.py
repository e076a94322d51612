"""Count the tokens of a turn's prompt without running it."""

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from pipelines.chat.file_texts import FileTexts
from pipelines.chat.prompt import messages_of, output_format_of, thread_items
from pipelines.chat.prompt_jobs import hypothetical_turn
from pipelines.inference.context import count_tokens
from pipelines.inference.engine import Engine

KIND = "tokens.count"


def run(engine: Engine, attempt: Attempt, file_texts: FileTexts | None = None) -> Ending:
    """Assemble the prompt as a turn would, and count all of it, whether or not it fits into the context.

    Raises PermanentFailure(code="context_length_exceeded") for one that is longer by far.
    """
    response = hypothetical_turn(attempt)
    with attempt.database.connection() as connection:
        items = thread_items(connection, response)
    if file_texts is not None:
        items = list(file_texts.expand(attempt, items, len(response.input)))
    attempt.check()
    messages = messages_of(engine, response.request, items)
    tokens = count_tokens(engine, messages, output_format_of(response.request))
    return plain_ending(attempt, "completed", result={"input_tokens": tokens})
