"""A turn to accept, and one that is accepted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.jobs.cancellation import Cancellation
from models.journal.events import Event
from models.turns.responses import Response
from pipelines.chat.thread import BusyPolicy

#: The ids of a turn: of its response and its job.
TurnIds = tuple[str, str]


@dataclass(frozen=True, slots=True)
class NewTurn:
    """The input of a turn.

    `input` has items of OpenAI's API, and item_reference; they get ids.
    `if_busy` says what to do while an earlier turn of the same conversation or chain is unfinished. The API of chat
    completions shows a turn that `is_completion`. `space` names the end user whose memories the turn recalls and is
    added to (`pipelines.chat.turn_space`). `request` has the keys below; the first eight are always there, the others
    have OpenAI's default where they are missing.

        model, instructions, background, metadata, temperature, top_p, max_output_tokens, user
        tools                the function tools, in the Responses API's form
        tool_choice          "auto", "none", "required", or {"type": "function", "name": …}
        parallel_tool_calls  a boolean
        text                 {"format": {"type": "text" | "json_object" | "json_schema", …}}
        truncation           "auto": drop the oldest turns; "disabled": fail with context_length_exceeded
        context_management   {"compact_threshold": …}: see `pipelines.chat.context_management`
        any_model            True: no model was named, except perhaps by the agent
        store                False: delete the turn once it has been read
        memory               {"recall": …, "remember": …, "limit": …, "space": …}: see `pipelines.chat.memory_prompt`
        sampling_defaults    the engine's temperature, top_p and penalties where the request has none
        seed, stop           of the sampling: an integer; a list of texts
        max_logprobs         log probabilities of the answer, where other answers have the rest of MAX_LOGPROBS
        mcp_credentials      encrypted headers and tokens of the MCP servers in `tools`, by label
        prompt_cache_key     returned, without effect
        residency            `local`: it may not leave the operator's network
        service_tier         see `pipelines.chat.service_tiers`
        safety_identifier    names the end user, as `user` does
    """

    request: Mapping[str, Any]
    input: Sequence[Mapping[str, Any]]
    conversation_id: str | None = None
    previous_id: str | None = None
    if_busy: BusyPolicy = "queue"
    is_completion: bool = False
    space: str = ""


@dataclass(frozen=True, slots=True)
class AcceptedTurn:
    """A turn that is stored: from here on it survives a crash of any process.

    opening_events  what its stream begins with
    interrupted     the turns that were cancelled for it; announce them to the queue
    """

    response: Response
    opening_events: list[Event]
    interrupted: Cancellation | None = None
