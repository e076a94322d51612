"""The database is checked and migrated before the first pods, and before those of a new version."""

from tests.k8s.helm import render
from tests.k8s.pods import environment

HOOK = "pre-install,pre-upgrade"
STORE = {"settings": {"SANGHA_OBJECT_STORE": "s3://b/p"}}
SECRETS = {
    "SANGHA_DATABASE_URL": "postgresql://sangha@db/sangha",
    "SANGHA_REDIS_URL": "redis://cache",
    "SANGHA_SECRET_KEY": "a-key-of-sixteen",
}


def hooks(rendered, kind):
    """Return the annotations of the hooks of a kind, by name."""
    annotations = {name: each["metadata"].get("annotations", {}) for name, each in rendered.of(kind).items()}
    return {name: each for name, each in annotations.items() if each.get("helm.sh/hook") == HOOK}


def test_the_release_is_checked_and_then_migrated(example):
    (job,) = example.of("Job").values()
    pod = job["spec"]["template"]["spec"]

    assert [each["args"] for each in pod["initContainers"]] == [["doctor", "--release"]]
    assert [each["args"] for each in pod["containers"]] == [["migrate"]]
    assert pod["restartPolicy"] == "Never"


def test_the_hook_needs_only_hooks_that_come_before_it():
    # Given an installation whose Secret is the chart's: at its first hook nothing of the release exists
    rendered = render({**STORE, "secrets": SECRETS})
    (job,) = hooks(rendered, "Job").items()
    pod = rendered.of("Job")[job[0]]["spec"]["template"]["spec"]

    # Then what the job refers to are hooks of a smaller weight
    used = {
        "ConfigMap": {
            each["configMapRef"]["name"] for each in pod["containers"][0]["envFrom"] if "configMapRef" in each
        },
        "Secret": {each["secretRef"]["name"] for each in pod["containers"][0]["envFrom"] if "secretRef" in each},
        "ServiceAccount": {pod["serviceAccountName"]},
    }
    for kind, names in used.items():
        before = hooks(rendered, kind)
        assert names == before.keys()
        assert all(int(each["helm.sh/hook-weight"]) < int(job[1]["helm.sh/hook-weight"]) for each in before.values())
    variables = environment(rendered, pod["containers"][0])
    assert variables.items() >= SECRETS.items()


def test_the_hook_has_the_settings_of_the_pods():
    rendered = render({**STORE, "secrets": SECRETS})
    job = rendered.of("Job")["sangha-migrate"]["spec"]["template"]["spec"]["containers"][0]
    web = rendered.of("Deployment")["sangha-web"]["spec"]["template"]["spec"]["containers"][0]

    assert environment(rendered, job) == environment(rendered, web)


def test_a_database_of_the_chart_is_migrated_after_it_was_created(examples):
    # Given Postgres in the release: a hook before it would wait for it in vain
    (name,) = examples["in-chart-dependencies"].of("Job")

    assert hooks(examples["in-chart-dependencies"], "Job") == {}
    assert name == "sangha-migrate-1"


def test_each_revision_has_a_job_of_its_own_then():
    values = {
        "secrets": {"SANGHA_SECRET_KEY": "a-key-of-sixteen"},
        "settings": {"SANGHA_OBJECT_STORE": "s3://b/p"},
        "postgresql": {"enabled": True, "password": "password"},
        "valkey": {"enabled": True, "password": "password"},
    }

    assert set(render(values, revision=7).of("Job")) == {"sangha-migrate-7"}
