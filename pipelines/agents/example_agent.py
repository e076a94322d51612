"""The agent of a new account: an example that its owner can talk to, change and delete."""

from collections.abc import Mapping
from typing import Any

from models.agents import agents
from models.platform.database import Connection
from models.platform.ids import new_id
from pipelines.agents.servers import PLATFORM_LABEL

NAME = "assistant"

INSTRUCTIONS = """\
You are the assistant of this account: an agent of Sangha, a self-hosted backend for AI assistants. Sangha stores your \
answers as durable jobs, so that a crash loses nothing, and remembers conversations.

Answer briefly, in plain language. If you do not know something, say so.

You have two tools. Use memory_search if the user asks about something that they may have told you in an earlier \
conversation. Use memory_write only if the user asks you to remember something, with one plain sentence."""

DEFINITION: Mapping[str, Any] = {
    "description": "Answers questions, and searches and writes the user's memories.",
    "instructions": INSTRUCTIONS,
    "tools": [
        {
            "type": "mcp",
            "server_label": PLATFORM_LABEL,
            "allowed_tools": ["memory_search", "memory_write"],
            "require_approval": "never",
        }
    ],
    "limits": {"steps": 6},
    "max_output_tokens": 500,  # a small model may not end by itself
}


def create(connection: Connection, account_id: str, user_id: str) -> None:
    """Create the agent in the transaction that creates the account."""
    agents.insert(
        connection,
        agent_id=new_id("agent"),
        account_id=account_id,
        name=NAME,
        definition=DEFINITION,
        metadata={},
        user_id=user_id,
    )
