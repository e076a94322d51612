"""Run the script of a client, and read the result of each step."""

import os
import subprocess
from collections.abc import Mapping

import orjson

from tests.journeys.clients.catalogue import Client
from tests.journeys.clients.environments import PYTHON, javascript_folder, node, python_environment

#: Seconds that a client may take: most import for seconds, several times that on a busy machine, but Open WebUI for two
#: minutes.
PATIENCE = 480

#: Reports and look-ups over the network that clients make by default.
QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "PYTHONWARNINGS": "ignore",
    "NODE_NO_WARNINGS": "1",
}


def run_steps(client: Client, address: str, key: str, mcp_url: str) -> dict[str, str | None]:
    """Return the error of each step of a client, None where it passed. Raises AssertionError if the script fails."""
    command = command_of(client)
    access = {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": key, "SHOP_URL": mcp_url}
    environment = {**clean_environment(), **QUIET, **access}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False, encoding="utf-8"
    )
    results = [orjson.loads(line) for line in done.stdout.splitlines() if line.startswith('{"step":')]
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return {result["step"]: result["error"] for result in results}


def command_of(client: Client) -> list[str]:
    """Return the command that runs a client's script; installs its environment on first use."""
    if client.environment == "javascript":
        return [str(node()), str(javascript_folder() / client.script)]
    return [str(python_environment(client.environment)), str(PYTHON / client.script)]


def clean_environment() -> Mapping[str, str]:
    """Return the caller's environment without settings of Sangha, of Python's path and of the clients."""
    prefixes = ("SANGHA_", "OPENAI_", "PYTHON", "LANGCHAIN_", "LANGSMITH_", "NODE_", "npm_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
