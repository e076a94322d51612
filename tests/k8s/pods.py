"""The pods that rendered objects create."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.k8s.helm import Manifest, Rendered

#: Kinds of objects with a template of pods.
WITH_TEMPLATE = ("Deployment", "StatefulSet", "Job")

#: Components that run the image of Sangha.
OWN = {"web", "scheduler", "worker", "migrate", "test"}


def pods(rendered: Rendered) -> Iterator[Manifest]:
    """Yield the templates of pods, and pods, with the name of their object."""
    for each in rendered.manifests:
        if each["kind"] in WITH_TEMPLATE:
            template = each["spec"]["template"]
            yield {"metadata": {"name": each["metadata"]["name"], **template["metadata"]}, "spec": template["spec"]}
        elif each["kind"] == "Pod":
            yield each


def component(pod: Manifest) -> str:
    """Return the component that a pod belongs to."""
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def containers(pod: Manifest) -> list[Mapping[str, Any]]:
    """Return the containers of a pod, those of its initialisation first."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def own_containers(rendered: Rendered) -> Iterator[tuple[Manifest, Mapping[str, Any]]]:
    """Yield the containers that run the `sangha` command, with their pods."""
    for pod in pods(rendered):
        if component(pod) in OWN:
            yield from ((pod, each) for each in containers(pod) if "command" not in each)


def environment(rendered: Rendered, container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a container, except those of Secrets that the chart does not create."""
    maps = {name: each["data"] for name, each in rendered.of("ConfigMap").items()}
    secrets = {name: each["stringData"] for name, each in rendered.of("Secret").items()}
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            variables |= maps[source["configMapRef"]["name"]]
        else:
            variables |= secrets.get(source["secretRef"]["name"], {})
    return variables | {each["name"]: each.get("value", each["name"].lower()) for each in container.get("env", [])}
