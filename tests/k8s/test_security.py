"""Pods satisfy the Pod Security Standard `restricted`, and have no rights that they do not need."""

import json
import subprocess
from pathlib import Path

import cel
import pytest
import yaml

from tests.journeys.clients.environments import python_environment
from tests.k8s.helm import render
from tests.k8s.pods import component, containers, pods

#: What checkov rejects on purpose: recommendations, whose severities checkov shows only to those with an account.
ACCEPTED = {
    "CKV_K8S_8": "the pod of `helm test` runs once and needs no probe",
    "CKV_K8S_9": "the pod of `helm test` runs once and needs no probe",
    "CKV_K8S_11": "a limit of CPU throttles pods while cores are idle; requests share them fairly",
    "CKV_K8S_15": "tags are versions, and image.digest pins one",
    "CKV_K8S_35": "settings are environment variables, also the secret ones",
    "CKV_K8S_40": "the images of Postgres, Valkey and RabbitMQ have users of their own, for trials",
    "CKV_K8S_43": "image.digest is the operator's choice",
}


def test_pods_satisfy_the_restricted_standard(example):
    for pod in pods(example):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys()
        assert not any("hostPath" in volume for volume in pod["spec"].get("volumes", []))
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_no_variables_of_services_become_settings(example):
    # A Service `sangha` would set SANGHA_PORT to an address, which no process starts with.
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods(example))


def test_only_scaled_workers_have_a_token_of_the_api(examples):
    for name, example in examples.items():
        for pod in pods(example):
            assert pod["spec"]["automountServiceAccountToken"] is False
            has_token = any("projected" in volume for volume in pod["spec"].get("volumes", []))
            assert has_token == (bool(example.of("ScaledObject")) and component(pod) == "worker"), name


def test_the_role_of_workers_is_for_those_whom_the_policy_restricts(examples):
    (role,) = examples["production"].of("Role").values()
    (policy,) = examples["production"].of("ValidatingAdmissionPolicy").values()
    (binding,) = examples["production"].of("RoleBinding").values()
    (subject,) = binding["subjects"]
    (condition,) = policy["spec"]["matchConditions"]

    def is_matched(account):
        return cel.evaluate(condition["expression"], {"request": {"userInfo": {"username": account}}})

    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}]
    assert is_matched(f"system:serviceaccount:ai:{subject['name']}")
    assert not is_matched("system:serviceaccount:ai:sangha")


def pod(name="worker-1", *, spec="image", **metadata):
    """Return a pod as the API server has it."""
    annotations = {"of": "others"} | metadata.pop("annotations", {})
    return {"metadata": {"name": name, "annotations": annotations, **metadata}, "spec": {"image": spec}}


COST = "controller.kubernetes.io/pod-deletion-cost"

#: Changes of the pod worker-1 by one of its own, and whether they are allowed.
CHANGES = [
    ({"annotations": {COST: "3"}}, True),
    ({"annotations": {COST: "3", "of": "me"}}, False),
    ({"annotations": {"new": "1"}}, False),
    ({"spec": "another image"}, False),
    ({"labels": {"app.kubernetes.io/component": "web"}}, False),
    ({"finalizers": ["mine"]}, False),
    ({"ownerReferences": [{"name": "mine"}]}, False),
    ({"name": "worker-2", "annotations": {COST: "3"}}, False),
]


@pytest.mark.parametrize(("change", "allowed"), CHANGES, ids=[str(change) for change, _ in CHANGES])
def test_a_worker_may_change_one_annotation_of_its_own_pod(examples, change, allowed):
    (policy,) = examples["production"].of("ValidatingAdmissionPolicy").values()
    user = {"extra": {"authentication.kubernetes.io/pod-name": ["worker-1"]}}
    old = pod(change.get("name", "worker-1"))
    state = {"request": {"userInfo": user}, "object": pod(**change), "oldObject": old}

    results = [cel.evaluate(each["expression"], state) for each in policy["spec"]["validations"]]

    assert all(results) == allowed


def test_a_token_of_no_pod_may_change_none(examples):
    (policy,) = examples["production"].of("ValidatingAdmissionPolicy").values()
    state = {"request": {"userInfo": {"extra": {}}}, "object": pod(), "oldObject": pod()}

    assert cel.evaluate(policy["spec"]["validations"][0]["expression"], state) is False


def test_passwords_are_in_secrets_only(examples):
    example = examples["in-chart-dependencies"]
    secret = {value for each in example.of("Secret").values() for value in each["stringData"].values()}
    passwords = {value for value in secret if "://" not in value}
    assert len(passwords) == 4

    others = json.dumps([each for each in example.manifests if each["kind"] != "Secret"])

    assert [value for value in secret if value in others] == []


def test_pods_reach_no_metadata_service(example):
    policies = example.of("NetworkPolicy")
    if not policies:
        assert example.values["networkPolicy"] == {"enabled": False}
        return
    blocks = [
        peer["ipBlock"]
        for each in policies.values()
        for rule in each["spec"].get("egress", [])
        for peer in rule.get("to", [])
    ]
    assert {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]} in blocks
    assert all(block["except"] for block in blocks)


def test_only_pools_that_call_chosen_addresses_may_use_all_ports(examples):
    policy = examples["several-models"].of("NetworkPolicy")["sangha-chosen-addresses"]
    (expression,) = policy["spec"]["podSelector"]["matchExpressions"]

    assert sorted(expression["values"]) == ["delivery", "tools", "upstream"]


def test_the_chart_may_be_installed_without_rights_for_the_whole_cluster():
    values = yaml.safe_load(Path(__file__).parents[2].joinpath("k8s/sangha/ci/several-models-values.yaml").read_text())

    assert all("namespace" in each["metadata"] for each in render(values).manifests)


@pytest.fixture(scope="module")
def failed_checks(examples, tmp_path_factory):
    """What checkov rejects, as (check, resource)."""
    folder = tmp_path_factory.mktemp("rendered")
    for name, example in examples.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(example.manifests))
    checkov = python_environment("checkov").parent / "checkov"
    command = [checkov, "--directory", folder, "--framework", "kubernetes", "--quiet", "--compact", "--output", "json"]
    done = subprocess.run([*command, "--skip-download"], capture_output=True, text=True, timeout=240, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 1000
    assert report["summary"]["parsing_errors"] == 0
    return [(each["check_id"], each["resource"]) for each in report["results"]["failed_checks"]]


def test_checkov_rejects_only_what_is_accepted(failed_checks):
    assert [each for each in failed_checks if each[0] not in ACCEPTED] == []


def test_no_accepted_check_is_obsolete(failed_checks):
    assert ACCEPTED.keys() == {check for check, _ in failed_checks}


def test_what_is_accepted_for_trials_is_not_in_production(failed_checks, examples):
    servers = {f"StatefulSet.ai.sangha-{name}" for name in ("postgresql", "valkey", "rabbitmq")}

    assert {resource for check, resource in failed_checks if check == "CKV_K8S_40"} == servers
    assert examples["production"].of("StatefulSet") == {}
