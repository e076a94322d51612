"""Assemble the engine's input: instructions, the conversation so far, and the turn's own input."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from models.turns import conversations, responses
from models.turns.responses import Response
from pipelines.chat.call_items import CALLS, OUTPUTS, SERVER_CALLS, output_text, tool_call
from pipelines.chat.client_tools import ClientTool, chosen_function, chosen_tools, client_tools
from pipelines.chat.compaction import expand_compaction, quote_selector
from pipelines.chat.mcp_items import with_outputs
from pipelines.chat.response_objects import item_text, reasoning_text
from pipelines.chat.speakers import with_prompt_names
from pipelines.inference.context import fit_messages
from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import PLAIN_TEXT, Engine, Message, OutputFormat, Sampling

#: The most items of a conversation, or turns of a chain, in a prompt. The context rarely fits more.
MAX_HISTORY = 500

#: Tokens reserved for an answer without `max_output_tokens`.
DEFAULT_ANSWER_TOKENS = 512

#: The default threshold of compaction, as a share of the context.
DEFAULT_THRESHOLD = 0.75

#: Most log probabilities of the answers to one request, alternatives included. The journal, the row and the processes
#: that convert them have each about four times: 100,000 took 30 MB.
MAX_LOGPROBS = 20_000

ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def assemble_messages(engine: Engine, connection: Connection, response: Response) -> list[Message]:
    """Read the conversation up to this turn, of any length; quotes replace the part before a compaction."""
    return messages_of(engine, response.request, thread_items(connection, response))


def thread_items(connection: Connection, response: Response) -> list[Mapping[str, Any]]:
    """Read the items of the conversation up to this turn, and of its input."""
    return [*_history(connection, response), *response.input]


def messages_of(engine: Engine, request: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Convert a request's instructions and items to messages."""
    select = quote_selector(engine, compaction_threshold(engine, request))
    instructions = request["instructions"]
    system = [Message("system", instructions)] if instructions else []
    return [*system, *with_prompt_names(_messages([*with_outputs(expand_compaction(items, select))]))]


def compaction_threshold(engine: Engine, request: Mapping[str, Any]) -> float | None:
    """Return the number of tokens above which the request has its conversation compacted; None for never."""
    options = request.get("context_management")
    if options is None:
        return None
    return min(options.get("compact_threshold") or engine.context * DEFAULT_THRESHOLD, engine.context)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of a generation.

    tokens             of the messages, with the chat template applied
    dropped            messages that do not fit into the engine's context
    max_output_tokens  the most tokens that the answer may have
    """

    messages: list[Message]
    output_format: OutputFormat
    tokens: int
    dropped: int
    max_output_tokens: int


def fit_prompt(engine: Engine, messages: list[Message], request: Mapping[str, Any]) -> Prompt:
    """Drop turns until the conversation fits. Raises PermanentFailure("context_length_exceeded")."""
    limit, output_format = _answer_limit(request), output_format_of(request)
    reserve = min(limit or DEFAULT_ANSWER_TOKENS, DEFAULT_ANSWER_TOKENS, engine.context // 4)
    fitting = fit_messages(engine, messages, reserve, output_format, truncate=request.get("truncation") != "disabled")
    free = engine.context - fitting.tokens
    dropped = len(messages) - len(fitting.messages)
    return Prompt(fitting.messages, output_format, fitting.tokens, dropped, min(limit or free, free))


def fit_with_outputs(engine: Engine, messages: list[Message], request: Mapping[str, Any]) -> Prompt:
    """Fit a prompt that has outputs of the server's tools: long ones are shortened where all of it does not fit.

    The caller can neither shorten them nor choose how long they are. Raises as `fit_prompt` does.
    """
    lengths = [] if request.get("truncation") == "disabled" else [engine.context * 4 // part for part in (2, 4, 8, 16)]
    for length in lengths:
        try:
            return fit_prompt(engine, messages, request)
        except PermanentFailure as failure:
            if failure.code != "context_length_exceeded":
                raise
            messages = [_shortened(message, length) for message in messages]
    return fit_prompt(engine, messages, request)


def _shortened(message: Message, length: int) -> Message:
    """Shorten the output of a call to about `length` characters of its beginning and its end."""
    if message.role != "tool" or len(message.content) <= length:
        return message
    left_out = f"\n[… {len(message.content) - length} characters are left out …]\n"
    return replace(message, content=message.content[: length * 3 // 4] + left_out + message.content[-length // 4 :])


def max_logprob_tokens(request: Mapping[str, Any]) -> int:
    """Return the most tokens of an answer with log probabilities."""
    most: int = request.get("max_logprobs", MAX_LOGPROBS) // (1 + request["top_logprobs"])
    return most


def _answer_limit(request: Mapping[str, Any]) -> int | None:
    """Return the limit of the answer's tokens: lower with log probabilities."""
    limit: int | None = request["max_output_tokens"]
    if not request.get("logprobs"):
        return limit
    most = max_logprob_tokens(request)
    return min(limit or most, most)


def output_format_of(request: Mapping[str, Any]) -> OutputFormat:
    """Return the output format that a request asks for."""
    tools = client_tools(request.get("tools") or ())
    tools, choice = _chosen(tools, request.get("tool_choice") or "auto")
    format_ = (request.get("text") or {}).get("format") or {}
    schema = {"json_object": {}, "json_schema": format_.get("schema", {})}.get(format_.get("type", "text"))
    effort, template = (request.get("reasoning") or {}).get("effort"), request.get("chat_template_kwargs") or {}
    if not tools and schema is None and effort is None and not template:
        return PLAIN_TEXT
    return OutputFormat(
        tools=tuple(tool.function for tool in tools),
        tool_choice=choice,
        parallel=request.get("parallel_tool_calls") is not False,
        schema=schema,
        effort=effort,
        template={name: break_control_tokens(value) if isinstance(value, str) else value
                  for name, value in template.items()},
    )  # fmt: skip


def _chosen(tools: list[ClientTool], choice: Any) -> tuple[list[ClientTool], Any]:
    """Return the tools that are offered and the choice among them, as engines know it.

    The tools of an MCP server that cannot be asked are unknown: then the model may answer without them.
    """
    if isinstance(choice, str):
        return tools, choice
    if choice["type"] != "mcp":
        return tools, ("function", chosen_function(tools, choice))
    of_server = chosen_tools(tools, choice)
    return (of_server, "required") if of_server else (tools, "auto")


def sampling_of(request: Mapping[str, Any], max_tokens: int, generated: int = 0) -> Sampling:
    """Return the sampling of a request for `max_tokens` more tokens, after the `generated` ones."""
    return Sampling(
        max_output_tokens=max_tokens,
        temperature=request["temperature"],
        top_p=request["top_p"],
        seed=request.get("seed"),
        stop=tuple(request.get("stop") or ()),
        top_k=request.get("top_k"),
        min_p=request.get("min_p"),
        typical_p=request.get("typical_p"),
        presence_penalty=request.get("presence_penalty"),
        frequency_penalty=request.get("frequency_penalty"),
        repetition_penalty=request.get("repetition_penalty"),
        logit_bias=tuple((int(token), bias) for token, bias in (request.get("logit_bias") or {}).items()),
        min_tokens=max(0, (request.get("min_tokens") or 0) - generated),
        ignore_eos=bool(request.get("ignore_eos")),
        top_logprobs=request.get("top_logprobs") if request.get("logprobs") else None,
    )


def _history(connection: Connection, response: Response) -> list[dict[str, Any]]:
    if response.conversation_id:
        # Excludes the items of this turn, which are there when its dead job is run again.
        return conversations.last_items(
            connection, response.conversation_id, response.account_id, MAX_HISTORY, except_response_id=response.id
        )
    if response.previous_id:
        return responses.chain_items(connection, response.previous_id, response.account_id, MAX_HISTORY)
    return []


def _messages(items: Sequence[Mapping[str, Any]]) -> Iterator[Message]:
    """Convert items to messages. Calls that follow an assistant's text, or each other, are merged into one message."""
    pending: Message | None = None
    for message in _unmerged_messages(items):
        if pending is not None and pending.role == "assistant" and message.calls and not message.reasoning:
            pending = replace(pending, calls=(*pending.calls, *message.calls))
            continue
        if pending is not None:
            yield pending
        pending = message
    if pending is not None:
        yield pending


def _unmerged_messages(items: Sequence[Mapping[str, Any]]) -> Iterator[Message]:
    """Convert each item to a message. Reasoning belongs to the assistant's message after it.

    Reasoning of earlier turns is left out, as models' templates do.
    """
    call_ids: dict[str, str] = {}
    reasoning = ""
    last_question = max((number for number, item in enumerate(items) if item.get("role") == "user"), default=-1)
    for number, item in enumerate(items):
        if item["type"] == "reasoning" and number > last_question:
            reasoning = reasoning_text(item)
        call_ids |= _call_ids(item)
        if (message := _message(item, call_ids)) is None:
            continue
        if message.role == "assistant":
            message, reasoning = replace(message, reasoning=reasoning), ""
        yield message


def _call_ids(item: Mapping[str, Any]) -> dict[str, str]:
    """Return the id of a call by the ids that its output may have: that of the local shell may name the item."""
    if item["type"] == "mcp_call":
        return {item["id"]: item["id"]}
    if item["type"] not in CALLS:
        return {}
    call_id = item["call_id"]
    return {call_id: call_id, item.get("id", call_id): call_id}


def _message(item: Mapping[str, Any], call_ids: Mapping[str, str]) -> Message | None:
    """Convert an item to a message; None for an output whose call is too far back, and for reasoning."""
    match item["type"]:
        case "message":
            return Message(ROLES[item["role"]], item_text(item), name=item.get("name"))
        case type_ if type_ in CALLS or type_ in SERVER_CALLS:
            return Message("assistant", "", (tool_call(item),))
        case type_ if type_ in OUTPUTS and item["call_id"] in call_ids:
            return Message("tool", output_text(item), call_id=call_ids[item["call_id"]])
        case _:
            return None
