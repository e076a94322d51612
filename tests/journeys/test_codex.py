"""Codex CLI works unmodified: it answers, runs a command that the model asks for, and resumes a session."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from models.platform.ids import new_id
from tests.journeys.clients.environments import javascript_packages, node
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation

#: The first test waits for the installation, of 170 MB.
pytestmark = [ON_REDIS, pytest.mark.timeout(900)]

#: The locked packages.
LOCK = Path(__file__).parent / "codex"

#: Seconds that a session may take.
PATIENCE = 240

#: Words of the scripted engine's context: Codex begins with about 3,000.
CONTEXT = 32_768

TEXT = "".join(f"w{index} " for index in range(20))

CONFIGURATION = """\
model = "default"
model_provider = "sangha"
approval_policy = "never"
check_for_update_on_startup = false
analytics.enabled = false

[model_providers.sangha]
name = "Sangha"
base_url = "{address}/v1"
env_key = "SANGHA_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


class Codex:
    """The `codex` command with a configuration and a working folder of its own."""

    def __init__(self, program: Path, folder: Path, address: str, key: str) -> None:
        self._program = program
        self._work = folder / "work"
        home = folder / "home"
        for each in (self._work, home):
            each.mkdir()
        (home / "config.toml").write_text(CONFIGURATION.format(address=address))
        self._environment = {
            "PATH": f"{node().parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "CODEX_HOME": str(home),
            "SANGHA_KEY": key,
        }

    def __call__(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a session without a sandbox, which few containers allow. Returns its events."""
        options = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        done = subprocess.run(
            [str(self._program), "exec", *options, *arguments],
            cwd=self._work, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return [orjson.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def program() -> Path:
    """The `codex` program, installed once."""
    return javascript_packages(LOCK) / "node_modules" / ".bin" / "codex"


@pytest.fixture(scope="module")
def scripted(installation: Installation) -> Iterator[Installation]:
    """An installation with a scripted engine."""
    installation.start_web("web-a")
    installation.start_scheduler()
    installation.start_worker("tokens=20,rate=0", context=CONTEXT)
    yield installation
    installation.kill_workers()


@pytest.fixture
def codex(program: Path, tmp_path: Path, scripted: Installation) -> Codex:
    """Codex with a key of a new account."""
    user = AccountOwner(scripted)
    created = user.request("POST", "/v1/api_keys", json={"name": new_id("codex"), "scopes": ["inference", "read"]})
    assert created.status_code == 201, created.text
    return Codex(program, tmp_path, scripted.addresses()[0], created.json()["key"])


def items(events: Sequence[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    """Return the completed items of a type."""
    return [
        event["item"]
        for event in events
        if event["type"] == "item.completed" and event["item"]["type"] == type_
    ]  # fmt: skip


def texts(events: Sequence[dict[str, Any]]) -> list[str]:
    """Return the texts that the model answered."""
    return [item["text"] for item in items(events, "agent_message")]


def input_tokens(events: Sequence[dict[str, Any]]) -> int:
    """Return the number of prompt tokens in the usage that Codex reports."""
    return int(events[-1]["usage"]["input_tokens"])


def test_codex_gets_an_answer_and_resumes_the_session(codex: Codex):
    first = codex("hello")
    second = codex("resume", "--last", "hello again")

    assert [text.strip() for text in texts(first) + texts(second)] == [TEXT.strip()] * 2
    assert input_tokens(second) > input_tokens(first) + 20, "the prompt has the first question and its answer"


def test_codex_runs_a_command_that_the_model_calls(codex: Codex):
    events = codex("call exec_command")

    (command,) = items(events, "command_execution")
    assert (command["status"], command["exit_code"]) == ("completed", 0)
    assert [text.strip() for text in texts(events)] == [TEXT.strip()]
