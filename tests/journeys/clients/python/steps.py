"""Run the steps of a client's script: each prints a line of JSON with its name and, where it failed, the error.

A client gets the base URL and the key, and the URL of an MCP server with the tool `buy`, which the agent `buyer` has
as well. The model is scripted: it answers `w0 w1 w2 …`,
calls the function NAME for a question with `call NAME` in it, and fills a schema with the smallest values.
"""

import asyncio
import inspect
import json
import os
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

URL = os.environ["OPENAI_BASE_URL"]
KEY = os.environ["OPENAI_API_KEY"]
MODEL = "default"
AGENT = "agent/buyer"
EMBEDDER = "all-minilm-l6-v2"
DIMENSIONS = 384
TEXT = "".join(f"w{number} " for number in range(20))

#: The tool of a request, and what its call returns.
SHOP = {
    "type": "mcp",
    "server_label": "shop",
    "server_url": os.environ["SHOP_URL"],
    "require_approval": "never",
}
BOUGHT = "bought"

#: The question for which the model calls it.
BUY = "Please call shop__buy."

Step = Callable[[], Coroutine[Any, Any, None]] | Callable[[], None]


def run(*steps: Step) -> None:
    """Run each step, whether or not the one before it has failed."""
    asyncio.run(run_async(*steps))


async def run_async(*steps: Step) -> None:
    """Do the same for a caller that has an event loop."""
    for step in steps:
        print(json.dumps({"step": step.__name__, "error": await _error_of(step)}), flush=True)


async def _error_of(step: Step) -> str | None:
    try:
        result = step()
        if inspect.isawaitable(result):
            await result
    except Exception:  # noqa: BLE001 - any error is the result
        return traceback.format_exc(limit=-6)
    return None


def check_text(text: str | None) -> None:
    """Raise AssertionError unless the text is the scripted answer; some clients strip it."""
    assert (text or "").strip() == TEXT.strip(), text


def check_history(input_tokens: int) -> None:
    """Raise AssertionError unless a second question came with the first one and its answer: words count as tokens."""
    assert input_tokens == 1 + 20 + 1, input_tokens
