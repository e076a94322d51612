"""The Terraform modules: what is declared, what is used, and what their READMEs say. No provider is needed."""

import re
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

ROOT = Path(__file__).parents[2]
TERRAFORM = ROOT / "terraform"
MODULES = sorted(path for path in (TERRAFORM / "modules").iterdir() if path.is_dir())
ENVIRONMENTS = sorted(path for path in (TERRAFORM / "environments").iterdir() if path.is_dir())
FOLDERS = [*MODULES, *ENVIRONMENTS]


def text(folder: Path) -> str:
    """Return the source of a module without comments."""
    lines = "\n".join(file.read_text() for file in sorted(folder.glob("*.tf"))).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def blocks(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return the blocks of a kind with one label, by that label."""
    parsed = hcl2.loads(text(folder))
    return {name.strip('"'): body for block in parsed.get(kind, []) for name, body in block.items()}


def row(name: str, variable: dict[str, Any]) -> str:
    """Return the row of a variable in its module's README."""
    needed = "" if "default" in variable else "required: "
    return f"| `{name}` | {needed}{str(variable['description']).strip(chr(34))} |"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_variables_have_a_type_and_a_description_and_are_used(folder: Path) -> None:
    for name, variable in blocks(folder, "variable").items():
        assert variable["type"], name
        assert str(variable["description"]).strip('"').endswith("."), name
        assert re.search(rf"\bvar\.{name}\b", text(folder)), f"{name} is not used"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_used_variables_locals_and_resources_are_declared(folder: Path) -> None:
    source = text(folder)
    assert set(re.findall(r"\bvar\.(\w+)", source)) <= blocks(folder, "variable").keys()
    declared = set(re.findall(r'^(?:resource|data) "(\w+)" "(\w+)"', source, re.MULTILINE))
    used = set(re.findall(r"\b((?:aws|random|helm|kubernetes)_\w+)\.(\w+)", source))
    assert used <= declared


@pytest.mark.parametrize("folder", ENVIRONMENTS, ids=lambda folder: folder.name)
def test_environments_pass_the_variables_of_modules_and_read_their_outputs(folder: Path) -> None:
    modules = blocks(folder, "module")
    for name, call in modules.items():
        module = (folder / str(call["source"]).strip('"')).resolve()
        variables = blocks(module, "variable")
        passed = {key for key in call if not key.startswith("__")} - {"source"}
        assert passed <= variables.keys()
        assert {key for key, variable in variables.items() if "default" not in variable} <= passed, name
    for name, output in re.findall(r"\bmodule\.(\w+)\.(\w+)", text(folder)):
        assert output in blocks(TERRAFORM / "modules" / name, "output")


def test_environments_have_the_same_modules_and_variables() -> None:
    first, second = ENVIRONMENTS
    assert blocks(first, "module").keys() == blocks(second, "module").keys()
    assert blocks(first, "variable") == blocks(second, "variable")


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_readme_of_a_module_lists_its_variables(folder: Path) -> None:
    rows = [row(name, variable) for name, variable in blocks(folder, "variable").items()]
    readme = (folder / "README.md").read_text().splitlines()
    assert [line for line in readme if line.startswith("| `")] == rows


def test_release_sets_values_that_the_chart_has() -> None:
    source = text(TERRAFORM / "modules" / "release")
    chart = yaml.safe_load((ROOT / "k8s" / "sangha" / "values.yaml").read_text())
    values = source[source.index("  values = {") : source.index('resource "helm_release"')]
    top = re.findall(r"^    (\w+) +=", values, re.MULTILINE)
    assert {"publicUrl", "existingSecret", "serviceAccount", "image"} <= set(top)
    assert set(top) <= chart.keys()
    for section in ("ingress", "autoscaling", "serviceAccount", "image"):
        body = re.search(rf"^    {section} += \{{\n(.*?)^    \}}", values, re.MULTILINE | re.DOTALL)
        assert body
        assert set(re.findall(r"^      (\w+) +=", body[1], re.MULTILINE)) <= chart[section].keys()


def test_secrets_are_marked_as_sensitive() -> None:
    for folder in FOLDERS:
        for name, block in {**blocks(folder, "variable"), **blocks(folder, "output")}.items():
            secret = name.endswith("url") or name in ("values", "secret_values")
            assert block.get("sensitive", False) is secret, (folder.name, name)


def test_stored_data_is_encrypted() -> None:
    for name, line in {
        "database": "storage_encrypted",
        "cache": "at_rest_encryption_enabled",
    }.items():
        assert re.search(rf"{line} += true", text(TERRAFORM / "modules" / name))
    for name in ("database", "cache", "queue", "secrets"):
        assert "var.kms_key_arn" in text(TERRAFORM / "modules" / name)
