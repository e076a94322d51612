"""Jobs of tests, as for the tests of models."""

from tests.models.conftest import job_store, kinds

__all__ = ["job_store", "kinds"]
