"""The Dockerfile: clean by hadolint, copies what exists, and keeps the image's contract."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    checked = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE)
    return [source for line in lines for source in line.split()]


@pytest.mark.parametrize("source", copied())
def test_every_copied_source_exists_and_is_sent_to_the_build(source: str) -> None:
    assert (ROOT / source).exists()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{source}", f"!{Path(source).parent}/*{Path(source).suffix}"} & set(ignored)


def test_every_package_is_in_the_image() -> None:
    packages = re.search(r"\[options.packages.find\]\ninclude =\n((?:    .*\n)+)", (ROOT / "setup.cfg").read_text())
    assert packages
    assert {name.strip().rstrip("*") for name in packages[1].splitlines()} <= set(copied())


def test_the_contract_with_compose_and_kubernetes_holds() -> None:
    for line in ("USER 10001:10001", 'ENTRYPOINT ["sangha"]', "VOLUME /data", "EXPOSE 8000 9000", "WORKDIR /app"):
        assert f"\n{line}\n" in TEXT
    assert set(re.findall(r"^FROM \S+ AS (sangha\S*)$", TEXT, re.MULTILINE)) == {
        "sangha",
        "sangha-models",
        "sangha-gpu",
    }
