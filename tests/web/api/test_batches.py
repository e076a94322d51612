"""`/v1/batches`: create, read, list and cancel batches."""

import concurrent.futures

import pytest
from openai.types import Batch
from pydantic import TypeAdapter

from models.platform.ids import new_id
from tests.web.api_client import assert_error
from tests.web.batch_inputs import store_requests

PATH = "/v1/batches"


@pytest.fixture
def store(api, database):
    """Store a file of requests of a user; returns its id."""

    def store(owner, content=None, purpose="batch"):
        objects = api.app.state.platform.objects
        return store_requests(database, objects, owner.caller.account_id, owner.caller.user_id, content, purpose)

    return store


@pytest.fixture
def body(user, store):
    """The body that creates a batch of a user."""
    return {"input_file_id": store(user), "endpoint": "/v1/responses", "completion_window": "24h"}


def create(user, body, **headers):
    return user.request("POST", PATH, json=body, headers=headers)


def test_a_batch_has_openais_shape(user, body):
    created = create(user, {**body, "metadata": {"topic": "words"}})

    assert created.status_code == 200, created.text
    batch = created.json()
    TypeAdapter(Batch).validate_python(batch, strict=True)
    assert (batch["object"], batch["status"], batch["metadata"]) == ("batch", "validating", {"topic": "words"})
    assert batch["input_file_id"] == body["input_file_id"]
    assert batch["expires_at"] - batch["created_at"] == 86_400
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert user.request("GET", f"{PATH}/{batch['id']}").json() == batch


def test_batches_are_listed_by_page_newest_first(user, body):
    ids = [create(user, body).json()["id"] for _ in range(3)]

    first = user.request("GET", f"{PATH}?limit=2").json()
    second = user.request("GET", f"{PATH}?limit=2&after={first['last_id']}").json()

    assert [batch["id"] for batch in first["data"] + second["data"]] == ids[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_a_batch_is_cancelled(user, body):
    batch = create(user, body).json()

    cancelled = user.request("POST", f"{PATH}/{batch['id']}/cancel").json()

    assert cancelled["status"] == "cancelling"
    assert cancelled["cancelling_at"] >= batch["created_at"]
    assert user.request("POST", f"{PATH}/{batch['id']}/cancel").json()["status"] == "cancelling"


def test_the_job_of_a_batch_is_cancelled_with_the_batch_only(user, body):
    batch = create(user, body).json()

    message = assert_error(user.request("POST", f"/v1/jobs/{batch['job_id']}/cancel"), 409, code="not_cancellable")

    assert "/v1/batches/{id}/cancel" in message


def test_repeats_with_one_idempotency_key_create_one_batch(user, body):
    key = {"idempotency-key": new_id("key")}

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: create(user, body, **key), range(8)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(user.request("GET", PATH).json()["data"]) == 1
    assert len([job for job in user.jobs() if job["kind"] == "batch.run"]) == 1


def test_another_batch_with_the_same_idempotency_key_is_rejected(user, body):
    key = {"idempotency-key": new_id("key")}
    create(user, body, **key)

    assert_error(create(user, {**body, "endpoint": "/v1/embeddings"}, **key), 422)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": "../../etc/passwd"}, "input_file_id"),
        ({"input_file_id": "file_" + "x" * 200}, "input_file_id"),
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"endpoint": "/v1/responses/"}, "endpoint"),
        ({"endpoint": "x" * 100}, "endpoint"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"completion_window": "15d"}, "completion_window"),
        ({"completion_window": "²4h"}, "completion_window"),
        ({"completion_window": ""}, "completion_window"),
        ({"completion_window": 24}, "completion_window"),
        ({"metadata": {"k" * 65: "v"}}, "metadata." + "k" * 65),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3599}}, "output_expires_after.seconds"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 2_592_001}}, "output_expires_after.seconds"),
        ({"output_expires_after": {"anchor": "now", "seconds": 3600}}, "output_expires_after.anchor"),
    ],
)
def test_an_invalid_parameter_is_rejected_by_name_and_nothing_is_created(user, body, changes, param):
    answer = create(user, {**body, **changes})

    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param
    assert user.request("GET", PATH).json()["data"] == []
    assert user.jobs() == []


def test_a_file_with_another_purpose_is_rejected(user, store, body):
    answer = create(user, {**body, "input_file_id": store(user, purpose="user_data")})

    assert "purpose" in assert_error(answer, 400, param="input_file_id")


def test_the_file_of_another_account_is_not_found(user, other_user, store, body):
    answer = create(user, {**body, "input_file_id": store(other_user)})
    missing = create(user, {**body, "input_file_id": new_id("file")})

    assert_error(answer, 404, param="input_file_id")
    assert (answer.status_code, answer.json()["error"]["code"]) == (
        missing.status_code, missing.json()["error"]["code"]
    )  # fmt: skip


@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("POST", "/cancel")])
def test_the_batch_of_another_account_is_not_found(user, other_user, body, method, suffix):
    batch = create(user, body).json()

    assert_error(other_user.request(method, f"{PATH}/{batch['id']}{suffix}"), 404, param="batch_id")

    assert other_user.request("GET", PATH).json()["data"] == []
    assert user.request("GET", f"{PATH}/{batch['id']}").json()["status"] == "validating"


def test_unknown_fields_are_ignored_and_named(user, body):
    answer = create(user, {**body, "priority": "high"})

    assert answer.status_code == 200
    assert answer.headers["x-sangha-ignored"] == "priority"


def test_a_numbered_retry_without_a_key_finds_the_batch_of_its_original(user, body):
    # Given a request of OpenAI's client whose answer was lost
    original = create(user, body, **{"x-stainless-retry-count": "0"})
    # When the client sends it again
    retries = [create(user, body, **{"x-stainless-retry-count": count}) for count in ("1", "2")]
    # Then no other batch is created
    assert [retry.json() for retry in retries] == [original.json()] * 2
    assert [retry.headers["idempotent-replayed"] for retry in retries] == ["true", "true"]
    assert len(user.request("GET", PATH).json()["data"]) == 1


def test_equal_originals_create_a_batch_each_and_a_retry_of_either_its_own(user, body):
    ids = {create(user, body, **{"x-stainless-retry-count": count}).json()["id"] for count in ("0", "0", "1")}

    assert len(ids) == 3


def test_a_retry_of_a_refused_request_is_run(user, body):
    # Given a request that was refused
    refused = create(user, {**body, "input_file_id": "file_none"}, **{"x-stainless-retry-count": "0"})
    assert_error(refused, 404)
    # When it is sent again, it is refused again
    again = create(user, {**body, "input_file_id": "file_none"}, **{"x-stainless-retry-count": "1"})
    assert_error(again, 404)
