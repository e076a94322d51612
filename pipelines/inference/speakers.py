"""Tell the model who wrote a message.

Chat templates have no place for a name, so it is written before the text: `Ann: hello`. Hosted endpoints have a field
for names of some characters.
"""

import re

from pipelines.inference.engine import Message

#: Characters of a name that is told.
MAX_NAME = 64

#: What is left out of a name: control tokens of a template and line breaks could write another message.
UNSAFE = re.compile(r"[^\w .'@+-]+")

#: Names that endpoints accept in a field of their own.
FIELD_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def safe_name(name: str) -> str:
    """Return the name in one line without markup; empty where nothing is left of it."""
    return " ".join(UNSAFE.sub(" ", name).split())[:MAX_NAME].rstrip()


def labelled_text(message: Message) -> str:
    """Return the text of a message, after the name of who wrote it."""
    return f"{message.name}: {message.content}" if message.name and message.content else message.content
