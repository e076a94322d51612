"""`sangha doctor` requests a token from each endpoint, and names the variable to check."""

import pytest

from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from ops.doctor.engines import endpoint_checks
from ops.doctor.finding import Finding
from tests.pipelines.inference.openai.endpoint import Handler, answers_with, fails_with, running_endpoint

KEY = "sk-hunter2"


def findings(*handlers: Handler, engine: str = "scripted") -> list[Finding]:
    """Return the findings for an endpoint with two models and one without a server."""
    with running_endpoint() as closed:
        refusing = Upstream("gone", closed.url, ("small",))
    with running_endpoint() as endpoint:
        endpoint.handlers += handlers
        settings = Settings(engine=engine, upstreams=(Upstream("cloud", endpoint.url, ("big", "b"), KEY), refusing))
        return [check(settings) for check in endpoint_checks(settings)]


def test_each_endpoint_has_a_finding_with_what_to_check() -> None:
    cloud, gone = findings(answers_with("Hi", reason="length"))

    assert (cloud.verdict, cloud.name) == ("ok", "endpoint cloud")
    assert (gone.verdict, gone.remedy) == ("FAIL", "check SANGHA_UPSTREAM_GONE_URL")


@pytest.mark.parametrize(
    ("status", "variable"), [(401, "API_KEY"), (402, "API_KEY"), (404, "MODELS"), (500, "URL"), (400, "URL")]
)
def test_a_failure_names_the_variable_and_not_the_key(status: int, variable: str) -> None:
    cloud, _ = findings(fails_with(status, f"no, {KEY}"))

    assert (cloud.verdict, cloud.remedy) == ("FAIL", f"check SANGHA_UPSTREAM_CLOUD_{variable}")
    assert KEY not in str(cloud)


def test_the_endpoint_of_the_pool_inference_is_checked_with_its_next_model() -> None:
    cloud, _ = findings(answers_with("Hi", reason="length"), engine="openai")

    assert cloud.detail.startswith("b at ")
