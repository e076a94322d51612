"""Render the chart with Helm's library, in a process of its own: the runtime of Go stays out of the tests' process.

`python -m tests.k8s.helm` reads a JSON list of requests and writes a JSON list of results.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "k8s" / "sangha"

#: What all tests render: the name of the release, and its namespace.
RELEASE, NAMESPACE = "sangha", "ai"

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Rendered:
    """The objects of a rendered chart, or the error that refused its values."""

    manifests: Sequence[Manifest] = ()
    notes: str = ""
    error: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def of(self, kind: str) -> dict[str, Manifest]:
        """Return the objects of a kind by name."""
        return {each["metadata"]["name"]: each for each in self.manifests if each["kind"] == kind}


def example_values() -> dict[str, Any]:
    """Return the values of the files in `ci`, by the files' names without their ending."""
    files = sorted((CHART / "ci").glob("*-values.yaml"))
    return {file.name.removesuffix("-values.yaml"): yaml.safe_load(file.read_text()) for file in files}


def render_all(values: Sequence[Mapping[str, Any]], chart: Path = CHART, **options: Any) -> list[Rendered]:
    """Render the chart with each of the values."""
    results = _ask(
        {"chart": str(chart), "values": values, "options": {"name": RELEASE, "namespace": NAMESPACE, **options}}
    )
    return [_rendered(each, given) for each, given in zip(results, values, strict=True)]


def render(values: Mapping[str, Any], chart: Path = CHART, **options: Any) -> Rendered:
    """Render the chart. Raises AssertionError if its values are refused."""
    (rendered,) = render_all([values], chart, **options)
    assert not rendered.error, rendered.error
    return rendered


def lint(values: Mapping[str, Any]) -> list[str]:
    """Return what Helm's linter says about the chart, except recommendations."""
    (result,) = _ask({"chart": str(CHART), "lint": values})
    return [each["error"] for each in result["messages"] if each["severity"] > 1] + list(result["errors"])


def parse_set(flags: Sequence[str]) -> dict[str, Any]:
    """Return the values of flags `--set`."""
    (values,) = _ask({"set": ",".join(flags)})
    return dict(values)


def _rendered(result: Mapping[str, Any], values: Mapping[str, Any]) -> Rendered:
    files = result.get("files", {})
    texts = [text for name, text in sorted(files.items()) if name.endswith(".yaml")]
    manifests = [each for text in texts for each in yaml.safe_load_all(text) if each]
    notes = next((text for name, text in files.items() if name.endswith("NOTES.txt")), "")
    return Rendered(manifests, notes, result.get("error", ""), values)


def _ask(request: Mapping[str, Any]) -> list[Any]:
    command = [sys.executable, "-m", "tests.k8s.helm"]
    done = subprocess.run(
        command, cwd=ROOT, input=json.dumps(request), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    results: list[Any] = json.loads(done.stdout)
    return results


def _answer(request: Mapping[str, Any]) -> list[Any]:
    import helm_python as helm

    if "lint" in request:
        return [helm.lint(request["chart"], request["lint"], strict=True, namespace=NAMESPACE)]
    if "set" in request:
        return [helm.parse_set_string(request["set"])]
    results = []
    with helm.Chart.load(request["chart"]) as chart:
        for values in request["values"]:
            try:
                chart.validate_schema(values)
                results.append({"files": chart.render(values, **request["options"])})
            except helm.HelmError as error:
                results.append({"error": str(error)})
    return results


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
