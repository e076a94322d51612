"""The commands and values of the guide are accepted by the chart, and name what exists."""

import re

import pytest
import yaml

from ops.cli import main
from tests.k8s.helm import CHART, ROOT, example_values, parse_set, render
from tests.k8s.test_settings import is_known

GUIDE = (ROOT / "docs" / "guides" / "deploy-on-kubernetes.md").read_text()
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def blocks(language):
    """Return the blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_trial_command_installs_everything_that_it_needs():
    command = blocks("sh")[0]
    flags = re.findall(
        r"--set (\S+)",
        command.replace("$(openssl rand -hex 32)", "0" * 32).replace("$(openssl rand -hex 16)", "0" * 16),
    )

    rendered = render(parse_set(flags))

    assert {"sangha-postgresql", "sangha-valkey"} == set(rendered.of("StatefulSet"))
    assert {"sangha-web", "sangha-worker-inference-default"} < set(rendered.of("Deployment"))


def test_the_values_of_the_guide_are_accepted_alone_and_together():
    texts = blocks("yaml")
    own, scaling, watching = (yaml.safe_load(text) for text in texts)

    for further in (scaling, watching):
        models = {"llama": {**own["models"]["llama"], **further.get("models", {}).get("llama", {})}}
        assert render({**own, **further, "models": models}).manifests
    assert render(own).of("Ingress")


def test_every_value_that_the_guide_names_exists():
    sections = "|".join(DEFAULTS)
    for path in re.findall(rf"`((?:{sections})(?:\.[A-Za-z]+)+)\b", GUIDE):
        values = {**DEFAULTS, "models": {"NAME": {**DEFAULTS["workerDefaults"], **DEFAULTS["modelDefaults"]}}}
        values["workers"] = dict.fromkeys(("POOL", "light", "upstream"), DEFAULTS["workerDefaults"])
        for name in path.split("."):
            if name.startswith("SANGHA_") or values is None:
                break
            assert name in values, path
            values = values[name] if isinstance(values, dict) else {}


def test_every_variable_and_command_that_the_guide_names_exists():
    variables = set(re.findall(r"\b(SANGHA_[A-Z_]+)\b", GUIDE))
    commands = set(re.findall(r"(?:`|-- |and )sangha ([a-z]+)", GUIDE))

    assert len(variables) > 8
    assert {name for name in variables if not is_known(name)} == set()
    assert commands >= {"admin", "top", "doctor", "migrate"}
    assert commands <= set(main.commands)


@pytest.mark.parametrize("name", example_values())
def test_every_example_says_what_it_is_for(name):
    assert (CHART / "ci" / f"{name}-values.yaml").read_text().startswith("# ")
