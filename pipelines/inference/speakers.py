"""Format the name of a message's author for the prompt.

Chat templates have no field for a name, so it is written before the text: `Ann: hello`. Hosted endpoints have a field
for names, which restricts their characters.
"""

import re

from pipelines.inference.engine import Message

#: Most characters of a name in a prompt.
MAX_NAME = 64

#: Characters that are removed from a name: with control tokens and line breaks it could imitate another message.
UNSAFE = re.compile(r"[^\w .'@+-]+")

#: Names that endpoints accept in a field of their own.
FIELD_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def safe_name(name: str) -> str:
    """Return the name in one line without markup; empty if it has no other characters."""
    return " ".join(UNSAFE.sub(" ", name).split())[:MAX_NAME].rstrip()


def labelled_text(message: Message) -> str:
    """Return the text of a message, after its author's name if there is one."""
    return f"{message.name}: {message.content}" if message.name and message.content else message.content
