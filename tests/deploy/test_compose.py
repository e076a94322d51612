"""compose.yaml: valid by the Compose Specification, mounts files that exist, and has secrets from outside."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from compose_spec import PyCompose

from models.jobs.catalogue import POOLS
from models.platform.settings import Settings, variable_name
from ops.cli import main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
OWN = [name for name, service in SERVICES.items() if str(service["image"]).startswith("sangha:")]


def test_it_is_valid_by_the_specification() -> None:
    # Given the file with its aliases and variables resolved
    variable = r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}"
    text = re.sub(variable, lambda match: match[1] or "secret", yaml.safe_dump(COMPOSE, width=1000))
    # When it is read by the rules of the specification
    compose = PyCompose.from_yaml(text)
    compose.validate()
    assert set(compose.service_names()) == SERVICES.keys()


def test_an_unknown_field_would_be_found() -> None:
    with pytest.raises(ValueError, match="replica"):
        PyCompose.from_yaml("services: {web: {image: sangha:local, replica: 2}}").validate()


def test_every_mounted_file_exists() -> None:
    sources = [str(mount).split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())]
    files = [source for source in sources if source.startswith("./") and Path(source).suffix]
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_every_dependency_and_volume_is_defined() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= SERVICES.keys()
        named = {str(mount).split(":")[0] for mount in service.get("volumes", ()) if not str(mount).startswith("./")}
        assert named <= COMPOSE["volumes"].keys()


@pytest.mark.parametrize("name", OWN)
def test_own_processes_have_valid_commands_and_settings(name: str) -> None:
    service = SERVICES[name]
    arguments = service["command"]
    result = CliRunner().invoke(main, [arguments[0], "--help"])
    assert result.exit_code == 0
    known = {variable_name(field) for field in Settings.model_fields}
    assert {variable for variable in service["environment"] if variable.startswith("SANGHA_")} <= known
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_every_pool_has_a_worker() -> None:
    served = {pool for service in SERVICES.values() for pool in service.get("command", [])[1:] if pool in POOLS}
    assert served == set(POOLS) - {"upstream"}


def test_no_password_is_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASS" in name or "SECRET" in name:
                assert str(value).startswith("${"), name


def test_images_have_versions() -> None:
    for service in SERVICES.values():
        tag = str(service["image"]).partition(":")[2]
        assert tag
        assert tag != "latest"


def test_the_setup_writes_every_required_secret_once(tmp_path: Path) -> None:
    # Given a copy of the folder
    (tmp_path / "deploy").mkdir()
    script = tmp_path / "deploy" / "compose-setup.sh"
    script.write_text((ROOT / "deploy" / "compose-setup.sh").read_text())
    # When the setup runs twice
    for _ in range(2):
        subprocess.run(["sh", str(script)], check=True, env={"PATH": os.environ["PATH"]})
        texts = (tmp_path / ".env").read_text(), (tmp_path / "deploy" / "tls" / "tls.crt").read_text()
    # Then every variable that compose.yaml requires has a value, and nothing was replaced
    names = {line.partition("=")[0] for line in texts[0].splitlines()}
    required = {part.partition(":?")[0] for part in TEXT.split("${")[1:] if ":?" in part.partition("}")[0]}
    assert required == names
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert ((tmp_path / ".env").read_text(), (tmp_path / "deploy" / "tls" / "tls.crt").read_text()) == texts
