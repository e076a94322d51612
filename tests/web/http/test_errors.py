"""Given an error, when it is answered, then it has its status and the envelope."""

import logging
from types import SimpleNamespace

import orjson
import psycopg.errors
import pytest
import redis
from starlette.exceptions import HTTPException

from models.platform import errors as tree
from models.platform.errors import RequestError, Unavailable
from web.http import errors


def envelope(response):
    return orjson.loads(response.body)["error"]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (tree.InvalidRequest("no"), 400, "invalid_request_error"),
        (tree.NotAuthenticated("no"), 401, "authentication_error"),
        (tree.NotAllowed("no"), 403, "permission_error"),
        (tree.NotFound("no"), 404, "invalid_request_error"),
        (tree.Conflict("no"), 409, "invalid_request_error"),
        (tree.TooLarge("no"), 413, "invalid_request_error"),
    ],
)
def test_each_branch_has_a_status(error, status, kind):
    response = errors.error_response(error, "req_1")

    assert response.status_code == status
    assert envelope(response) == {"message": "no", "type": kind, "param": None, "code": error.code}


def test_every_branch_of_the_tree_is_mapped():
    branches = [kind for kind in vars(tree).values() if isinstance(kind, type) and issubclass(kind, RequestError)]

    assert all(any(parent in errors.KINDS for parent in kind.__mro__) for kind in branches if kind is not RequestError)


def test_a_subclass_has_its_parents_status():
    class Vanished(tree.NotFound):
        pass

    assert errors.error_response(Vanished("gone"), "req_1").status_code == 404


def test_the_field_is_named():
    error = tree.InvalidRequest("no", param="input[0].content", code="invalid_type")

    assert envelope(errors.error_response(error, "req_1"))["param"] == "input[0].content"


def test_a_conflict_is_not_to_be_repeated():
    assert errors.error_response(tree.Conflict("taken"), "req_1").headers["x-should-retry"] == "false"


@pytest.mark.parametrize("error", [Unavailable("down", retry_after=7), redis.ConnectionError("down")])
def test_what_is_down_says_when_to_come_back(error):
    response = errors.error_response(error, "req_1")

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1


def test_starlettes_errors_keep_status_and_headers():
    response = errors.error_response(HTTPException(405, headers={"allow": "GET"}), "req_1")

    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert envelope(response)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("constraint", "status"),
    [("jobs_account_id_fkey", 401), ("responses_user_id_fkey", 401), ("responses_job_id_fkey", 500), (None, 500)],
)
def test_only_a_missing_account_or_user_is_the_tokens_fault(constraint, status):
    class Violation(psycopg.errors.ForeignKeyViolation):
        diag = SimpleNamespace(constraint_name=constraint)

    assert errors.error_response(Violation("no such row"), "req_1").status_code == status


def test_the_unforeseen_is_logged_and_not_told(caplog):
    with caplog.at_level(logging.ERROR):
        response = errors.error_response(ZeroDivisionError("the secret of the house"), "req_77")

    assert response.status_code == 500
    assert b"secret" not in response.body
    assert b"req_77" in response.body
    assert "ZeroDivisionError: the secret of the house" in caplog.text
