"""Select the names of messages that the prompt contains.

A user's name is in the prompt unless it is only a role, such as `user`. An assistant's name is in the prompt only if
several assistants have written messages: otherwise the model would begin its answers with its own name. A user's
message has the same label in every turn, so that it stays in the engine's cache.
"""

from collections.abc import Iterable
from dataclasses import replace

from pipelines.inference.engine import Message
from pipelines.inference.speakers import safe_name

#: Names that are only a role.
ROLE_NAMES = frozenset({"user", "human", "assistant", "ai", "bot", "system", "developer", "tool"})


def with_prompt_names(messages: Iterable[Message]) -> list[Message]:
    """Return the messages with the names that the prompt contains, converted by `safe_name`."""
    messages = list(messages)
    assistants = {message.name for message in messages if message.role == "assistant" and message.content}
    return [
        replace(message, name=_prompt_name(message, assistants)) if message.name else message for message in messages
    ]


def _prompt_name(message: Message, assistants: set[str | None]) -> str | None:
    name = safe_name(message.name or "")
    alone = message.role == "assistant" and len(assistants) < 2
    return None if alone or name.casefold() in ROLE_NAMES else name or None
