"""A turn runs: prompt, generate, journal, end.

An answer survives its worker: a new attempt reads the text that is journalled, hands it to the engine as the beginning
of the answer, and the stream goes on with the next sequence number. An engine that can't continue a text begins the
answer again, and the stream says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from models import conversations, responses
from models.attempts import Ending
from models.database import Connection
from models.errors import PermanentFailure
from models.responses import Response, Usage
from models.running import Attempt
from pipelines.chat import objects
from pipelines.chat.prompt import Prompt, assemble, fitted
from pipelines.chat.transcript import DELTA, RESTARTED, STARTED, Transcript, read_transcript
from pipelines.inference.engine import Engine, Finish, Sampling, Token

#: Where the one message of an answer stands in its response.
PLACE = {"output_index": 0}
TEXT_PLACE = {**PLACE, "content_index": 0}


@dataclass(slots=True)
class Answer:
    """The answer as it grows."""

    response: Response
    item_id: str
    text: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0

    @property
    def usage(self) -> Usage:
        """What is billed: the tokens that are journalled."""
        return Usage(self.prompt_tokens, self.cached_tokens, self.output_tokens)


def run(engine: Engine, attempt: Attempt) -> Ending:
    """Answer a turn, or go on answering it. Raises the reason to stop, PermanentFailure and EngineError."""
    response = load(attempt)
    transcript = read_transcript(attempt.history, attempt.tokens)
    with attempt.database.connection() as connection:
        messages = assemble(connection, response)
    prompt = fitted(engine, messages, response.request["max_output_tokens"])
    answer = begin(engine, attempt, response, transcript, prompt)
    reason = generate(engine, attempt, answer, prompt)
    attempt.check()
    return complete(attempt, answer, reason)


def load(attempt: Attempt) -> Response:
    """The response that the job is about. Raises PermanentFailure when it has been deleted."""
    with attempt.database.connection() as connection:
        response = responses.read(connection, attempt.job.arguments["response_id"], attempt.job.account_id)
    if response is None:
        raise PermanentFailure("the response was deleted", code="deleted")
    return response


def begin(engine: Engine, attempt: Attempt, response: Response, transcript: Transcript, prompt: Prompt) -> Answer:
    """Journal what comes before the first token, as far as no earlier attempt has; take over what one has said."""
    journal, seen = attempt.journal, transcript.seen
    item_id = objects.output_message(response)
    if "response.in_progress" not in seen:
        journal.write("response.in_progress", {"response": objects.response_object(response, "in_progress")})
    if STARTED not in seen:
        transcript.prompt_tokens = prompt.tokens
        started = {"model": engine.name, "prompt_tokens": prompt.tokens, "dropped_messages": prompt.dropped}
        journal.write(STARTED, {"item_id": item_id, **started})
    if "response.output_item.added" not in seen:
        item = objects.message_item(item_id, None, "in_progress")
        journal.write("response.output_item.added", {**PLACE, "item": item})
    if "response.content_part.added" not in seen:
        part = objects.text_part("")
        journal.write("response.content_part.added", {"item_id": item_id, **TEXT_PLACE, "part": part})
    if transcript.text and not engine.continues:
        journal.write(RESTARTED, {"item_id": item_id, "discarded_tokens": transcript.tokens})
        transcript.text, transcript.tokens = "", 0
    return Answer(response, item_id, transcript.text, transcript.prompt_tokens, transcript.tokens)


def generate(engine: Engine, attempt: Attempt, answer: Answer, prompt: Prompt) -> Literal["stop", "length"]:
    """Journal tokens until the engine has said it all, or is told to stop."""
    response, journal = answer.response, attempt.journal
    request = response.request
    left = prompt.longest - answer.output_tokens
    if left <= 0:
        return "length"
    sampling = Sampling(max_output_tokens=left, temperature=request["temperature"], top_p=request["top_p"])
    place = {"item_id": answer.item_id, **TEXT_PLACE, "logprobs": []}
    pieces: list[str] = [answer.text]
    finish: Finish | None = None
    try:
        for item in engine.generate(prompt.messages, prefix=answer.text, sampling=sampling, cancelled=attempt.stopped):
            if isinstance(item, Token):
                text = item.text.replace("\0", "\ufffd")  # Postgres can't hold it
                pieces.append(text)
                answer.output_tokens += item.count
                journal.write_text(DELTA, place, text, item.count)
            else:
                finish = item
    finally:
        answer.text = "".join(pieces)
    if finish is None or finish.reason == "cancelled":
        return "stop"  # the attempt knows why, and raises it
    if response.conversation_id or response.previous_id:
        # Of a first turn this would tell whether somebody else has lately sent the same text.
        answer.cached_tokens = finish.cached_tokens
    return finish.reason


def complete(attempt: Attempt, answer: Answer, reason: Literal["stop", "length"]) -> Ending:
    """The answer is whole, or as long as it may be."""
    details = {"reason": "max_output_tokens"} if reason == "length" else None
    item = objects.message_item(answer.item_id, answer.text, "incomplete" if details else "completed")
    response = replace(
        answer.response,
        job_state="completed",
        output=[item],
        usage=objects.usage_object(answer.usage),
        incomplete_details=details,
    )
    last = f"response.{response.status}"
    events = [*_item_endings(item), (last, {"response": objects.response_object(response)})]
    return Ending(
        "completed",
        attempt.journal.compose(events),
        result={"response_id": response.id, "status": response.status},
        record=_recorder(response, answer.usage),
        tokens=answer.usage.input_tokens + answer.usage.output_tokens,
    )


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """End a turn that `run` does not: what it has said so far is kept, and billed once."""
    response = load(attempt)
    transcript = read_transcript(
        [*attempt.history, *attempt.journal.written()], attempt.tokens + attempt.journal.tokens
    )
    usage = Usage(transcript.prompt_tokens, 0, transcript.tokens)
    output = []
    if "response.output_item.added" in transcript.seen:
        output = [objects.message_item(objects.output_message(response), transcript.text, "incomplete")]
    response = replace(response, job_state=state, job_error=error, output=output, usage=objects.usage_object(usage))
    shown = {"response": objects.response_object(response)}
    last = ("sangha.job.cancelled", {"job_id": attempt.job.id, **shown}) if state == "cancelled" else (
        "response.failed", shown)  # fmt: skip
    return Ending(
        state,
        attempt.journal.compose([*(_item_endings(output[0]) if output else []), last]),
        result={"response_id": response.id, "status": response.status},
        error=error,
        record=_recorder(response, usage),
        tokens=usage.input_tokens + usage.output_tokens,
    )


def _item_endings(item: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    text = objects.text_of(item)
    place = {"item_id": item["id"], **TEXT_PLACE}
    return [
        ("response.output_text.done", {**place, "text": text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": objects.text_part(text)}),
        ("response.output_item.done", {**PLACE, "item": item}),
    ]


def _recorder(response: Response, usage: Usage) -> Any:
    """Write output, usage and the conversation's items, in the transaction that ends the job."""

    def record(connection: Connection) -> None:
        responses.finish(connection, response)
        responses.bill(connection, response, usage)
        if response.conversation_id:
            items = [*response.input, *response.output]
            conversations.add_items(connection, response.conversation_id, items, response_id=response.id)

    return record
