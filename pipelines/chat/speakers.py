"""Which names of messages the model is told.

A user's name is told unless it says no more than the role. That of an assistant is told only where several speak:
otherwise the model would begin its answers with its own name. A user's message is labelled alike in every turn, so that
the engine's cache keeps it.
"""

from collections.abc import Iterable
from dataclasses import replace

from pipelines.inference.engine import Message
from pipelines.inference.speakers import safe_name

#: Names that say no more than a role.
ROLE_NAMES = frozenset({"user", "human", "assistant", "ai", "bot", "system", "developer", "tool"})


def with_prompt_names(messages: Iterable[Message]) -> list[Message]:
    """Return the messages with the names that the model is told, as `safe_name` writes them."""
    messages = list(messages)
    assistants = {message.name for message in messages if message.role == "assistant" and message.content}
    return [
        replace(message, name=_prompt_name(message, assistants)) if message.name else message for message in messages
    ]


def _prompt_name(message: Message, assistants: set[str | None]) -> str | None:
    name = safe_name(message.name or "")
    alone = message.role == "assistant" and len(assistants) < 2
    return None if alone or name.casefold() in ROLE_NAMES else name or None
