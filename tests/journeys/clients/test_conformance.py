"""`llm-comply`, an independent test of the protocols, passes."""

import subprocess

import orjson
import pytest

from tests.journeys.clients.environments import python_environment
from tests.journeys.clients.runs import PATIENCE, clean_environment

#: The tests that have to pass. Not among them: images, which no engine here reads, and reasoning, which the suite asks
#: only of models that it knows by name.
MUST_PASS = {
    "open-responses": {
        "assistant-phase",
        "basic-response",
        "compact-missing-model",
        "compact-response",
        "error-handling",
        "multi-turn",
        "response-output-phase-schema",
        "streaming-response",
        "streaming-usage",
        "system-prompt",
        "tool-calling",
    },
    "openai-chat": {
        "chat-basic-response",
        "chat-error-handling",
        "chat-multi-turn",
        "chat-streaming-response",
        "chat-streaming-usage",
        "chat-system-prompt",
        "chat-tool-calling",
    },
}


@pytest.mark.timeout(PATIENCE + 600)
@pytest.mark.parametrize("suite", MUST_PASS)
def test_suite_passes(suite: str, address: str, key: str):
    errors = run_suite(suite, address, key)

    assert set(errors) >= MUST_PASS[suite]
    assert not {name: errors[name] for name in MUST_PASS[suite] if errors[name]}
    images = next(errors[name] for name in errors if name.endswith("image-input"))
    assert any("HTTP 400" in error for error in images), "an image is refused, not ignored"


def run_suite(suite: str, address: str, key: str) -> dict[str, list[str]]:
    """Return the errors of each test of a suite; a test that was skipped has one.

    The requests are strict: otherwise one without a model gets the default one.
    """
    program = python_environment("conformance").parent / "llm-comply"
    command = [str(program), "run", "--json", "--format", suite, "--base-url", address, "--model", "default"]
    command += ["--header", "X-Sangha-Strict:1"]
    done = subprocess.run(
        [*command, "--api-key", key],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout, done.stderr
    results = orjson.loads(done.stdout)["results"]
    return {
        result["id"]: [] if result["status"] == "passed" else result.get("errors", [result["status"]])
        for result in results
    }
