"""Prompts contain the names of messages that are not only roles."""

import pytest

from pipelines.chat.prompt import assemble_messages
from pipelines.chat.speakers import with_prompt_names
from pipelines.inference.engine import Message
from tests.pipelines.chat.conftest import FakeEngine


def prompt_names(*messages):
    return [message.name for message in with_prompt_names(Message(role, "x", name=name) for role, name in messages)]


@pytest.mark.parametrize(
    ("messages", "names"),
    [
        ([("user", "Ann"), ("assistant", None)], ["Ann", None]),
        ([("user", "user"), ("user", "Human")], [None, None]),
        ([("system", "example_user")], ["example_user"]),
        ([("user", None), ("assistant", "researcher"), ("user", "Ann")], [None, None, "Ann"]),
        ([("assistant", "researcher"), ("assistant", "writer")], ["researcher", "writer"]),
        ([("assistant", "researcher"), ("assistant", None)], ["researcher", None]),
        ([("user", "<>")], [None]),
    ],
)
def test_a_prompt_has_names_that_are_not_only_roles(messages, names):
    assert prompt_names(*messages) == names


def test_a_prompt_has_the_names_of_earlier_turns(harness, fake_engine):
    item = {"type": "message", "role": "user", "name": "Ann", "content": [{"type": "input_text", "text": "hi"}]}
    first = harness.start(items=[item])

    second = harness.start("and?", previous=first.response.id)

    with harness.database.connection() as connection:
        messages = assemble_messages(FakeEngine(), connection, second.response)
    assert [(message.name, message.content) for message in messages] == [("Ann", "hi"), (None, "and?")]
