"""The most tokens that a turn can be billed for, where they or their cost are limited."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from models.accounts.plans import Allowance
from models.billing.spending import MostTokens
from models.jobs.quota import max_prompt_tokens
from pipelines.agents import definitions
from pipelines.agents.agent_turns import engine_model
from pipelines.agents.definitions import Definition
from pipelines.chat.input_files import has_files
from pipelines.chat.memory_prompt import memory_token_limit, recall_enabled
from pipelines.chat.service_tiers import service_class


def most_tokens(
    request: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    allowance: Allowance,
    definition: Definition | None,
    *,
    history: bool,
) -> MostTokens:
    """Return the most tokens that a turn can be billed for: those of all generations that it may need."""
    first = _of_first(request, items, allowance, history=history)
    later = _later_steps(request, definition)
    return _of_steps(first, later, allowance.context) if later else first


def reserved_tokens(most: MostTokens, allowance: Allowance) -> int:
    """Return the turn's maximum of billable tokens, where the tokens of a month are limited."""
    if allowance.limits.tokens_per_month is None:
        return 0
    return min(allowance.context, most.input_tokens + most.output_tokens)


def _of_first(
    request: Mapping[str, Any], items: Sequence[Mapping[str, Any]], allowance: Allowance, *, history: bool
) -> MostTokens:
    """Return the most tokens of a turn's first generation."""
    model, context = engine_model(request), allowance.context
    class_ = service_class(request)
    if allowance.limits.tokens_per_month is None and not allowance.billed:
        return MostTokens(model, 0, 0, context, class_)
    input_tokens = context if history else max_input_tokens(request, items, context)
    output = request["max_output_tokens"]
    return MostTokens(model, input_tokens, context if output is None else min(output, context), context, class_)


def _later_steps(request: Mapping[str, Any], definition: Definition | None) -> int:
    """Return how many more generations a turn may need after its first one: each reads the outputs of calls."""
    agents = definition.agents if definition else ()
    if not agents and not any(tool["type"] == "mcp" for tool in request.get("tools") or ()):
        return 0
    steps = definition.limits.steps if definition else definitions.MAX_STEPS
    calls = request.get("max_tool_calls")
    return steps - 1 if calls is None else min(steps - 1, calls)


def _of_steps(first: MostTokens, later: int, context: int) -> MostTokens:
    """Return the most tokens of a turn of several generations, of which each later one may use the whole context."""
    if not first.input_tokens:
        return first
    more = later * context
    return replace(
        first,
        input_tokens=first.input_tokens + more,
        output_tokens=first.output_tokens + later * min(first.output_tokens, context),
        context=(first.context or context) + more,
    )


def max_input_tokens(request: Mapping[str, Any], items: Sequence[Mapping[str, Any]], context: int) -> int:
    """Return the most tokens that a prompt without earlier turns can have, with the memories that it recalls.

    The text of a file may have any length.
    """
    if has_files(items):
        return context
    own_input = orjson.dumps([*items, *(request.get(name) for name in ("instructions", "tools", "text"))])
    memory_tokens = memory_token_limit(request, context) if recall_enabled(request) else 0
    return max_prompt_tokens(len(own_input) + memory_tokens, len(items) + 1, context)
