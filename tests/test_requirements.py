"""The lock files pin what setup.cfg asks for, with hashes, and name no index."""

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
CLIENTS = ROOT / "tests" / "journeys" / "clients" / "python"
STALE = "run `make lock`"


def pins(file: Path) -> dict[str, set[str]]:
    """Return the versions of each package in a lock file, of which markers may choose one."""
    versions: dict[str, set[str]] = {}
    for line in file.read_text().splitlines():
        if match := re.match(r"([a-z0-9.-]+)(?:\[.*\])?==(\S+)", line):
            versions.setdefault(match[1], set()).add(match[2])
    return versions


def declared(option: str) -> Iterator[Requirement]:
    """Yield the requirements of setup.cfg: `install_requires`, or those of an extra."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    section = "options" if option == "install_requires" else "options.extras_require"
    lines = (line.strip() for line in config[section][option].splitlines())
    yield from (Requirement(line) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("install_requires", "runtime.txt"),
        ("install_requires", "dev.txt"),
        ("dev", "dev.txt"),
        ("ctransformers", "ctransformers.txt"),
        ("ctransformers", "dev.txt"),
    ],
)
def test_every_requirement_is_pinned_at_a_version_that_satisfies_it(option: str, name: str):
    locked = pins(REQUIREMENTS / name)

    for requirement in declared(option):
        versions = locked.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement} is not in {name}: {STALE}"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: {STALE}"


def test_development_has_the_versions_of_production():
    development = pins(REQUIREMENTS / "dev.txt")

    for name, versions in pins(REQUIREMENTS / "runtime.txt").items():
        assert development.get(name) == versions, f"{name}: {STALE}"


@pytest.mark.parametrize("file", [*REQUIREMENTS.glob("*.txt"), *CLIENTS.glob("*.txt")], ids=lambda file: file.name)
def test_every_pin_has_hashes_and_no_index(file: Path):
    text = file.read_text()

    assert "://" not in text
    blocks = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert len(blocks) >= len(pins(file)) > 0
    assert all("--hash=sha256:" in block for block in blocks)
