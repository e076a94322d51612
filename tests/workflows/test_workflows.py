"""The workflows of GitHub Actions: pinned actions, few rights, and no finding of actionlint and zizmor."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.journeys.clients.environments import javascript_packages, node

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))

#: `owner/action@SHA # v1.2.3`, or a workflow of this repository.
PINNED = re.compile(r"uses: (\./\.github/workflows/[a-z]+\.yaml|[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)")

#: The rights to write of all jobs. Nothing else may be added unseen.
WRITES = {
    ("deliver.yaml", "image", "packages"),
    ("deliver.yaml", "image", "id-token"),
    ("deliver.yaml", "staging", "id-token"),
    ("deliver.yaml", "production", "id-token"),
    ("deploy.yaml", "deploy", "id-token"),
}


def jobs(file: Path) -> dict[str, dict[str, Any]]:
    jobs: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["jobs"]
    return jobs


def step(job: dict[str, Any], name: str) -> int:
    """Return the position of a step in a job."""
    return [each.get("name") for each in job["steps"]].index(name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_actions_are_pinned_by_commit_with_their_version(file: Path) -> None:
    uses = [line for line in file.read_text().splitlines() if "uses:" in line]
    assert uses
    assert not [line for line in uses if not PINNED.fullmatch(line.strip().removeprefix("- "))]


def test_an_action_has_one_version_in_all_workflows() -> None:
    pins = {match for file in FILES for match in re.findall(r"uses: ([\w./-]+)@(\w{40})", file.read_text())}
    assert len(pins) == len({action for action, _ in pins})


def test_jobs_have_only_the_rights_that_are_listed_here() -> None:
    for file in FILES:
        assert yaml.safe_load(file.read_text())["permissions"] == {}
    rights = [
        (file.name, name, scope, access)
        for file in FILES
        for name, job in jobs(file).items()
        for scope, access in job["permissions"].items()
    ]
    assert {(file, job, scope) for file, job, scope, access in rights if access == "write"} == WRITES


def test_workflows_use_no_secret() -> None:
    # AWS is accessed by OpenID Connect, and the key of the smoke test is in AWS Secrets Manager
    assert not [file.name for file in FILES if "secrets." in file.read_text()]


def test_audits_of_zizmor_have_no_finding() -> None:
    zizmor = Path(sys.executable).parent / "zizmor"
    command = [str(zizmor), "--offline", "--no-progress", "--color", "never", ".github/workflows"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(600)
def test_actionlint_has_no_finding() -> None:
    packages = javascript_packages(Path(__file__).parent / "actionlint") / "node_modules"
    program = packages / "@tktco" / "node-actionlint" / "bin" / "node-actionlint.js"
    command = [str(node()), str(program), ".github/workflows/*.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert f"Checking {len(FILES)} workflow file(s)" in done.stdout


def test_production_follows_staging_which_follows_the_tests() -> None:
    deliver = jobs(ROOT / ".github" / "workflows" / "deliver.yaml")
    assert deliver["image"]["needs"] == "ci"
    assert deliver["staging"]["needs"] == "image"
    assert set(deliver["production"]["needs"]) == {"image", "staging"}
    assert deliver["staging"]["with"]["digest"] == deliver["production"]["with"]["digest"]


def test_image_is_scanned_before_it_is_pushed_and_signed() -> None:
    image = jobs(ROOT / ".github" / "workflows" / "deliver.yaml")["image"]
    assert step(image, "Build") < step(image, "Scan") < step(image, "Push") < step(image, "Sign")


def test_failed_deployment_is_rolled_back_to_the_revision_before() -> None:
    deploy = jobs(ROOT / ".github" / "workflows" / "deploy.yaml")["deploy"]
    order = ["Verify the signature", "Read the revision to roll back to", "Deploy", "Smoke test", "Load test"]
    positions = [step(deploy, name) for name in order]
    assert positions == sorted(positions)
    last = deploy["steps"][-1]
    assert last["name"] == "Roll back"
    assert "failure()" in last["if"]
    assert "helm rollback" in last["run"]


def test_deployment_sets_values_of_the_chart() -> None:
    deploy = jobs(ROOT / ".github" / "workflows" / "deploy.yaml")["deploy"]
    command = deploy["steps"][step(deploy, "Deploy")]["run"]
    values = yaml.safe_load((ROOT / "k8s" / "sangha" / "values.yaml").read_text())
    for path in re.findall(r'--set "([\w.]+)=', command):
        section, name = path.split(".")
        assert name in values[section]


def test_images_are_targets_of_the_dockerfile() -> None:
    image = jobs(ROOT / ".github" / "workflows" / "deliver.yaml")["image"]
    targets = [leg["target"] for leg in image["strategy"]["matrix"]["include"]]
    stages = re.findall(r"^FROM .* AS (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(targets) <= set(stages)
