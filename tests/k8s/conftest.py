"""The rendered examples of the chart, of which each test looks at all."""

import pytest

from tests.k8s.helm import Rendered, example_values, render_all
from tests.models.conftest import empty_job_store, kinds, own_database

__all__ = ["empty_job_store", "kinds", "own_database"]  # fixtures of tests/models

EXAMPLES = tuple(example_values())


@pytest.fixture(scope="session")
def examples() -> dict[str, Rendered]:
    """The chart, rendered with the values of each file in `ci`."""
    values = example_values()
    rendered = dict(zip(values, render_all(list(values.values())), strict=True))
    assert {name: each.error for name, each in rendered.items() if each.error} == {}
    return rendered


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest, examples: dict[str, Rendered]) -> Rendered:
    """Each of them."""
    return examples[request.param]
