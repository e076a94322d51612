"""The official suite of the Model Context Protocol, `@modelcontextprotocol/conformance`, passes at `/mcp`.

Most of its scenarios call tools, prompts and resources of its authors' reference server, such as `test_simple_text`,
which are no part of a product. So the test names the scenarios that apply to a server with tools alone, and of those
that mix both the checks that cannot pass.
"""

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from tests.journeys.clients.environments import HERE, javascript_packages, node
from tests.journeys.clients.key_proxy import key_proxy
from tests.journeys.clients.runs import PATIENCE, clean_environment

#: The scenarios that apply, by revision.
SCENARIOS = {
    "2025-11-25": [
        "server-initialize",
        "server-session-lifecycle",
        "ping",
        "tools-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
    ],
    "2026-07-28": [
        "server-stateless",
        "tools-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "caching",
        "http-header-validation",
        "input-required-result-unsupported-methods",
        "sep-2164-resource-not-found",
    ],
}

#: Checks that need a tool, prompts or resources of the reference server.
NEED_FIXTURES = {
    "sep-2575-server-rejects-undeclared-capability",
    "sep-2575-missing-capability-http-400",
    "sep-2575-http-server-no-independent-requests-on-stream",
    "sep-2575-server-no-log-without-loglevel",
    "sep-2549-prompts-list-caching-hints",
    "sep-2549-resources-list-caching-hints",
    "sep-2549-resources-templates-list-caching-hints",
}


@pytest.mark.timeout(PATIENCE + 600)
@pytest.mark.parametrize("revision", SCENARIOS)
def test_scenarios_pass(revision: str, address: str, key: str, tmp_path: Path):
    folder, port = javascript_packages(HERE / "mcp_conformance"), urlsplit(address).port
    assert port is not None

    with key_proxy(port, key) as proxy:
        checks = {name: run_scenario(folder, name, revision, proxy, tmp_path) for name in SCENARIOS[revision]}

    failed = {name: [each for each in found if each["status"] == "FAILURE"] for name, found in checks.items()}
    reasons = {each["id"]: each.get("errorMessage") for found in failed.values() for each in found}
    assert {check: reason for check, reason in reasons.items() if check not in NEED_FIXTURES} == {}
    assert all(any(each["status"] == "SUCCESS" for each in found) for found in checks.values())


def run_scenario(folder: Path, name: str, revision: str, port: int, results: Path) -> list[dict[str, str]]:
    """Run a scenario and return its checks."""
    program = folder / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    options = ["--url", f"http://localhost:{port}/mcp", "--scenario", name, "--spec-version", revision]
    done = subprocess.run(
        [str(node()), str(program), "server", *options, "--output-dir", str(results / name)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    files = list((results / name).rglob("checks.json"))
    assert len(files) == 1, done.stdout + done.stderr
    checks: list[dict[str, str]] = orjson.loads(files[0].read_bytes())
    return checks
