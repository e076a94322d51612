"""Objects refer to objects, ports and labels that exist."""

from typing import Any

from tests.k8s.helm import Manifest, Rendered, render
from tests.k8s.pods import containers, pods

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def labels_match(selector: Any, labels: Any) -> bool:
    """Return whether a label selector selects an object with these labels."""
    equal = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    expressions = selector.get("matchExpressions", [])
    return equal and all(labels.get(each["key"]) in each["values"] for each in expressions)


def selected(rendered: Rendered, selector: Any) -> list[Manifest]:
    """Return the pods that a label selector selects."""
    return [pod for pod in pods(rendered) if labels_match(selector, pod["metadata"]["labels"])]


def ports_of(pod: Manifest) -> set[str]:
    """Return the names of a pod's ports."""
    return {port["name"] for container in containers(pod) for port in container.get("ports", [])}


def test_services_select_pods_with_their_ports(example):
    for name, service in example.of("Service").items():
        chosen = selected(example, {"matchLabels": service["spec"]["selector"]})
        assert len(chosen) == 1, name
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports_of(chosen[0])


def test_deployments_select_their_own_pods_only(example):
    for kind in ("Deployment", "StatefulSet"):
        for name, each in example.of(kind).items():
            assert [pod["metadata"]["name"] for pod in selected(example, each["spec"]["selector"])] == [name]


def test_every_deployment_has_a_budget_of_disruptions(example):
    budgets = example.of("PodDisruptionBudget").values()
    chosen = sorted(pod["metadata"]["name"] for each in budgets for pod in selected(example, each["spec"]["selector"]))

    assert chosen == (sorted(example.of("Deployment")) if budgets else [])


def test_pods_refer_to_configmaps_secrets_claims_and_accounts_that_exist(example):
    names = {kind: set(example.of(kind)) for kind in ("ConfigMap", "Secret", "PersistentVolumeClaim", "ServiceAccount")}
    names["ConfigMap"].add("kube-root-ca.crt")
    names["Secret"].add(example.values.get("existingSecret"))
    names["PersistentVolumeClaim"].add(example.values.get("modelFiles", {}).get("existingClaim"))
    names["ServiceAccount"] |= {example.values.get("serviceAccount", {}).get("name"), "default"}

    for pod in pods(example):
        for container in containers(pod):
            for source in container.get("envFrom", []):
                assert source.get("configMapRef", {"name": "kube-root-ca.crt"})["name"] in names["ConfigMap"]
                assert source.get("secretRef", {"name": None})["name"] in names["Secret"] | {None}
        for volume in pod["spec"].get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in names["PersistentVolumeClaim"]
        assert pod["spec"].get("serviceAccountName", "default") in names["ServiceAccount"]


def test_containers_mount_volumes_that_exist_and_use_all(example):
    for pod in pods(example):
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        claimed = {"data"} if "kind" not in pod and pod["metadata"]["name"] in example.of("StatefulSet") else set()
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])} | claimed
        assert mounted == volumes, pod["metadata"]["name"]


def test_probes_ask_ports_that_exist(example):
    for pod in pods(example):
        for container in pod["spec"]["containers"]:
            probes = [container[name] for name in PROBES if name in container]
            asked = {(probe.get("httpGet") or probe["tcpSocket"])["port"] for probe in probes}
            assert asked <= ports_of(pod)


def test_scaled_objects_and_hpas_scale_deployments_without_a_number_of_their_own(example):
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in example.of("ScaledObject").values()}
    scaled |= {each["spec"]["scaleTargetRef"]["name"] for each in example.of("HorizontalPodAutoscaler").values()}
    without = {name for name, each in example.of("Deployment").items() if "replicas" not in each["spec"]}

    assert scaled == without


def test_triggers_refer_to_an_authentication_with_the_parameter_that_they_need(examples):
    needed = {"postgresql": "connection", "rabbitmq": "host"}
    for example in examples.values():
        authentications = example.of("TriggerAuthentication")
        for each in example.of("ScaledObject").values():
            for trigger in each["spec"]["triggers"]:
                references = authentications[trigger["authenticationRef"]["name"]]["spec"]["secretTargetRef"]
                assert needed[trigger["type"]] in {reference["parameter"] for reference in references}


def test_monitors_select_what_serves_metrics(examples):
    example = examples["production"]
    (monitor,) = example.of("PodMonitor").values()
    (services,) = example.of("ServiceMonitor").values()
    scraped = {pod["metadata"]["name"] for pod in selected(example, monitor["spec"]["selector"])}
    chosen = [
        name
        for name, each in example.of("Service").items()
        if labels_match(services["spec"]["selector"], each["metadata"]["labels"])
    ]

    assert chosen == ["sangha-web-metrics"]
    assert scraped == set(example.of("Deployment")) - {"sangha-web"}


def test_the_proxy_neither_buffers_streams_nor_ends_silent_ones(examples):
    nginx = examples["production"].of("Ingress")["sangha-web"]["metadata"]["annotations"]
    load_balancer = examples["no-keda"].of("Ingress")["sangha-web"]["metadata"]["annotations"]
    (rule,) = examples["gpu"].of("HTTPRoute")["sangha-web"]["spec"]["rules"]

    assert nginx["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert int(nginx["nginx.ingress.kubernetes.io/proxy-read-timeout"]) >= 30
    assert nginx["nginx.org/proxy-buffering"] == "False"
    assert load_balancer["alb.ingress.kubernetes.io/load-balancer-attributes"] == "idle_timeout.timeout_seconds=3600"
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_a_certificate_is_used_by_the_web_process_its_probes_and_its_proxy(examples):
    # Given a Secret of cert-manager
    values = {**examples["production"].values, "web": {"tls": {"secretName": "sangha-internal"}}}
    rendered = render(values)

    # Then the web process reads it, and everybody who connects to it speaks TLS
    pod = rendered.of("Deployment")["sangha-web"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert variables == {"SANGHA_TLS_CERT": "/tls/tls.crt", "SANGHA_TLS_KEY": "/tls/tls.key"}
    assert {"name": "tls", "mountPath": "/tls", "readOnly": True} in container["volumeMounts"]
    assert {"name": "tls", "secret": {"secretName": "sangha-internal", "defaultMode": 0o440}} in pod["volumes"]
    assert {container[probe]["httpGet"]["scheme"] for probe in PROBES} == {"HTTPS"}
    assert rendered.of("Service")["sangha-web"]["spec"]["ports"][0]["appProtocol"] == "https"
    annotations = rendered.of("Ingress")["sangha-web"]["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"

    # And workers and schedulers serve plain HTTP, as before
    worker = rendered.of("Deployment")["sangha-worker-tools"]["spec"]["template"]["spec"]["containers"][0]
    assert {worker[probe]["httpGet"]["scheme"] for probe in PROBES} == {"HTTP"}
