"""What the chart renders, as files to review: `SANGHA_UPDATE_SNAPSHOTS=1 python -m pytest tests/k8s/test_snapshots.py`.

Labels that all objects have and checksums are left out, and of dashboards and alerts everything but their names.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.k8s.helm import CHART, Manifest, Rendered

SNAPSHOTS = Path(__file__).parent / "snapshots"

#: Installations whose objects are kept: the smallest one, the one with everything, and of that with servers of its own
#: the objects that the others lack.
KEPT = ("minimal", "production", "in-chart-dependencies")

LEFT_OUT = (
    "helm.sh/chart",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/part-of",
    "checksum/settings",
    "checksum/secrets",
)

#: The rules of yamllint for the files that people write.
STYLE = """
extends: default
rules:
  line-length: {max: 125}
  document-start: disable
  braces: {max-spaces-inside: 0}
  comments: {min-spaces-from-content: 1}
"""


def without_common(value: Any) -> Any:
    """Return a value without the labels and annotations that are left out."""
    if isinstance(value, dict):
        return {name: without_common(each) for name, each in value.items() if name not in LEFT_OUT}
    return [without_common(each) for each in value] if isinstance(value, list) else value


def without_observability(manifest: Manifest) -> Manifest:
    """Return an object without the content of dashboards and of alerts, whose files are in `observability/`."""
    if manifest["kind"] == "ConfigMap":
        data = {name: "…" if name.endswith(".json") else text for name, text in manifest.get("data", {}).items()}
        return manifest | ({"data": data} if data else {})
    if manifest["kind"] == "PrometheusRule":
        return manifest | {"spec": {"groups": [group["name"] for group in manifest["spec"]["groups"]]}}
    return manifest


def identity(manifest: Manifest) -> tuple[str, str]:
    """Return the kind and the name of an object."""
    return manifest["kind"], manifest["metadata"]["name"]


def snapshot(rendered: Rendered, known: Collection[tuple[str, str]]) -> str:
    """Return the objects that are not known as text, sorted by kind and name."""
    kept = [without_observability(each) for each in rendered.manifests if identity(each) not in known]
    ordered = sorted(kept, key=identity)
    return yaml.safe_dump_all(without_common(ordered), default_flow_style=None, width=150, sort_keys=True)


@pytest.mark.parametrize("name", KEPT)
def test_objects_are_those_of_the_snapshot(examples, name):
    known = map(identity, examples["production"].manifests) if name == "in-chart-dependencies" else ()
    file, text = SNAPSHOTS / f"{name}.yaml", snapshot(examples[name], set(known))
    if os.environ.get("SANGHA_UPDATE_SNAPSHOTS"):
        file.write_text(text)

    assert text == file.read_text(), "if that is intended: SANGHA_UPDATE_SNAPSHOTS=1"


@pytest.mark.parametrize(
    "file",
    [CHART / "Chart.yaml", CHART / "values.yaml", CHART / "files" / "pools.yaml", *CHART.glob("ci/*.yaml")],
    ids=lambda file: file.name,
)
def test_files_satisfy_yamllint(file):
    problems = linter.run(file.read_text(), YamlLintConfig(STYLE))

    assert [f"{each.line}: {each.desc}" for each in problems] == []
