"""The `llm` command, with the configuration that its documentation names for compatible APIs."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from steps import KEY, MODEL, URL, check_text, run

FOLDER = Path(tempfile.mkdtemp(prefix="sangha-llm-"))
CONFIGURATION = f"""\
- model_id: sangha
  model_name: {MODEL}
  api_base: {URL}
  api_key_name: sangha
  supports_schema: true
  supports_tools: true
"""
WEATHER = "def weather(city: str) -> str:\n    'Tells the weather of a city.'\n    return 'It rains in ' + city"


def llm(*arguments: str) -> str:
    """Run the command and return its output."""
    command = [str(Path(sys.executable).parent / "llm"), *arguments]
    environment = {**os.environ, "LLM_USER_PATH": str(FOLDER)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def hello() -> None:
    """Read an answer at once."""
    check_text(llm("prompt", "-m", "sangha", "--no-stream", "hello"))


def stream() -> None:
    """Read an answer as it is streamed, and continue its conversation."""
    check_text(llm("prompt", "-m", "sangha", "hello"))
    check_text(llm("prompt", "-m", "sangha", "-c", "again"))


def tools() -> None:
    """Let the command call a function and print the answer."""
    check_text(llm("prompt", "-m", "sangha", "--functions", WEATHER, "Please call weather."))
    (logged,) = json.loads(llm("logs", "--json", "-n", "1"))
    assert [result["output"] for result in logged["tool_results"]] == ["It rains in "]


def schema() -> None:
    """Get JSON by a schema."""
    assert json.loads(llm("prompt", "-m", "sangha", "--schema", "animal, count int", "hello")) == {
        "animal": "",
        "count": 0,
    }


if __name__ == "__main__":
    (FOLDER / "extra-openai-models.yaml").write_text(CONFIGURATION)
    (FOLDER / "keys.json").write_text(json.dumps({"sangha": KEY}))
    run(hello, stream, tools, schema)
