"""All objects satisfy the schemas of Kubernetes and of the operators, which know no other fields."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.k8s.helm import CHART, Rendered, render

SCHEMAS = Path(__file__).parent / "schemas"

#: The oldest version that the chart supports, the newest, and two between them.
VERSIONS = ("1.30", "1.33", "1.36", "1.37")


def is_custom(manifest: Any) -> bool:
    """Return whether an operator defines the kind of an object."""
    return not kubernetes_group(manifest["apiVersion"])


def kubernetes_group(version: str) -> bool:
    """Return whether a version of an API is of Kubernetes itself."""
    group = version.partition("/")[0] if "/" in version else ""
    return "." not in group or (group.endswith(".k8s.io") and not group.startswith("gateway."))


def errors(manifests: Any, version: str) -> Iterator[str]:
    """Yield what a version of Kubernetes rejects."""
    for each in manifests:
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{each['kind']} {each['metadata']['name']}: {list(error.path)}: {error.message}"


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_satisfy_the_schemas_of_kubernetes(example, version):
    manifests = [each for each in example.manifests if not is_custom(each)]

    assert len(manifests) > 10
    assert list(errors(manifests, version)) == []


def test_objects_of_operators_satisfy_their_schemas(example):
    for each in example.manifests:
        if is_custom(each):
            jsonschema.validate(each, json.loads((SCHEMAS / f"{each['kind']}.json").read_text()))


def test_the_examples_have_every_kind_of_object(examples):
    kinds = {each["kind"] for example in examples.values() for each in example.manifests}

    operators = {file.stem for file in SCHEMAS.glob("*.json")} - {"PrometheusRule"}
    assert kinds >= operators | {"Deployment", "StatefulSet", "Job", "Ingress", "HorizontalPodAutoscaler", "Role"}


def test_a_misspelt_field_is_rejected(examples):
    service = {**examples["minimal"].of("Service")["sangha-web"], "specification": {}}

    assert len(list(errors([service], VERSIONS[0]))) == 1


def test_the_oldest_version_is_that_of_the_chart():
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={VERSIONS[0]}.0-0"


def test_objects_are_valid_without_what_may_be_switched_off():
    # Given an installation without any optional part
    off = {"enabled": False}
    values = {
        "existingSecret": "s",
        "settings": {"SANGHA_OBJECT_STORE": "s3://b/p"},
        "migrations": off, "networkPolicy": off, "podDisruptionBudget": off, "serviceAccount": {"create": False},
        "workers": dict.fromkeys(("recall", "tools", "memory", "billing", "reporting", "delivery")),
    }  # fmt: skip

    # Then the rest is valid, without the workers that are null
    rendered: Rendered = render(values)
    assert list(errors(rendered.manifests, VERSIONS[-1])) == []
    assert set(rendered.of("Deployment")) == {"sangha-web", "sangha-scheduler", "sangha-worker-maintenance"}


def test_names_of_objects_are_unique_and_short_enough(example):
    names = [(each["kind"], each["metadata"]["name"]) for each in example.manifests]

    assert len(names) == len(set(names))
    assert max(len(name) for _, name in names) <= 63


def test_names_of_a_long_release_are_short_enough():
    rendered = render({"existingSecret": "s", "settings": {"SANGHA_OBJECT_STORE": "s3://b/p"}}, name="r" * 53)

    assert max(len(each["metadata"]["name"]) for each in rendered.manifests) <= 63
