"""Mapping of errors to statuses, headers and the error envelope."""

import logging
from types import SimpleNamespace

import orjson
import psycopg.errors
import pytest
import redis
from starlette.exceptions import HTTPException

from models.platform import errors as domain_errors
from models.platform.errors import RequestError, Unavailable
from pipelines.requests.errors import KINDS
from web.http import errors


def envelope(response):
    return orjson.loads(response.body)["error"]


@pytest.mark.parametrize(
    ("error", "status", "type_"),
    [
        (domain_errors.InvalidRequest("no"), 400, "invalid_request_error"),
        (domain_errors.NotAuthenticated("no"), 401, "authentication_error"),
        (domain_errors.NotAllowed("no"), 403, "permission_error"),
        (domain_errors.NotFound("no"), 404, "invalid_request_error"),
        (domain_errors.Conflict("no"), 409, "invalid_request_error"),
        (domain_errors.TooLarge("no"), 413, "invalid_request_error"),
    ],
)
def test_each_error_class_has_a_status_and_a_type(error, status, type_):
    response = errors.error_response(error, "req_1")

    assert response.status_code == status
    assert envelope(response) == {"message": "no", "type": type_, "param": None, "code": error.code}


def test_every_error_class_is_mapped():
    classes = [
        kind for kind in vars(domain_errors).values() if isinstance(kind, type) and issubclass(kind, RequestError)
    ]

    assert all(any(parent in KINDS for parent in kind.__mro__) for kind in classes if kind is not RequestError)


def test_a_subclass_has_the_status_of_its_base_class():
    class PageNotFound(domain_errors.NotFound):
        pass

    assert errors.error_response(PageNotFound("gone"), "req_1").status_code == 404


def test_the_envelope_names_the_parameter():
    error = domain_errors.InvalidRequest("no", param="input[0].content", code="invalid_type")

    assert envelope(errors.error_response(error, "req_1"))["param"] == "input[0].content"


def test_a_conflict_forbids_retries():
    assert errors.error_response(domain_errors.Conflict("taken"), "req_1").headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("down", retry_after=7),
        redis.ConnectionError("down"),
        redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        redis.ReadOnlyError("You can't write against a read only replica."),
        redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"),
    ],
)
def test_an_unavailable_service_is_a_503_with_retry_after(error):
    response = errors.error_response(error, "req_1")

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1


def test_http_exceptions_keep_their_status_and_headers():
    response = errors.error_response(HTTPException(405, headers={"allow": "GET"}), "req_1")

    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert envelope(response)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("constraint", "status"),
    [("jobs_account_id_fkey", 401), ("responses_user_id_fkey", 401), ("responses_job_id_fkey", 500), (None, 500)],
)
def test_a_foreign_key_violation_is_a_401_only_for_a_missing_account_or_user(constraint, status):
    class Violation(psycopg.errors.ForeignKeyViolation):
        diag = SimpleNamespace(constraint_name=constraint)

    assert errors.error_response(Violation("no such row"), "req_1").status_code == status


def test_an_unexpected_error_is_logged_and_not_shown_to_the_client(caplog):
    with caplog.at_level(logging.ERROR):
        response = errors.error_response(ZeroDivisionError("a secret"), "req_77")

    assert response.status_code == 500
    assert b"secret" not in response.body
    assert b"req_77" in response.body
    assert "ZeroDivisionError: a secret" in caplog.text
