"""`/v1/webhook_endpoints`: who manages them and how, also with OpenAI's client, and what they may not be."""

import openai
import pytest

from models.delivery import event_types
from models.delivery.endpoints import MAX_ENDPOINTS
from models.platform.database import fetch_all
from tests.web.api_client import assert_error

PATH = "/v1/webhook_endpoints"


@pytest.fixture
def create(user):
    """`create(**fields)` → the created endpoint."""

    def create(**fields):
        body = {"url": "https://example.com/hook", "event_types": ["response.*"], **fields}
        answer = user.request("POST", PATH, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return create


@pytest.fixture
def client(api, user):
    """OpenAI's client, as the user."""
    with openai.OpenAI(base_url=f"{api.base_url}/v1", api_key=user.token, max_retries=0) as client:
        yield client


def test_only_the_creation_and_the_rotation_show_the_secret(user, create):
    created = create(name="mine", description="of tests", metadata={"team": "a"})
    path = f"{PATH}/{created['id']}"
    secret = created.pop("signing_secret")
    read = user.request("GET", path)

    assert secret.startswith("whsec_")
    assert read.json() == created
    assert created["signing_secret_hint"].endswith(secret[-4:])
    assert (created["name"], created["description"], created["metadata"]) == ("mine", "of tests", {"team": "a"})
    assert (created["status"], created["event_types"]) == ("enabled", ["response.*"])
    assert secret not in user.request("GET", PATH).text

    rotated = user.request("POST", f"{path}/rotate_secret").json()
    assert rotated["signing_secret"] not in ("", secret)
    assert rotated["previous_secret_until"] - rotated["updated_at"] == 86_400
    assert rotated["signing_secret"] not in user.request("GET", path).text


def test_a_secret_is_replaced_at_once_on_request(user, create):
    path = f"{PATH}/{create()['id']}/rotate_secret"

    rotated = user.request("POST", path, json={"keep_old_secret_active_for_24_hours": False}).json()

    assert rotated["previous_secret_until"] is None


def test_a_repeated_creation_creates_one_endpoint_with_one_secret(user):
    body = {"url": "https://example.com/", "event_types": ["*"]}
    headers = {"idempotency-key": "once"}

    answers = [user.request("POST", PATH, json=body, headers=headers).json() for _ in range(2)]

    assert answers[0] == answers[1]
    assert len(user.request("GET", PATH).json()["data"]) == 1


def test_no_table_has_the_secret_in_plain_text(user, database):
    body = {"url": "https://example.com/", "event_types": ["*"]}
    secret = user.request("POST", PATH, json=body, headers={"idempotency-key": "k"}).json()["signing_secret"]

    tables = ("webhook_endpoints", "idempotency_keys", "audit_events")
    with database.connection() as connection:
        for table in tables:
            rows = fetch_all(connection, f"SELECT * FROM {table} WHERE account_id = %s", (user.caller.account_id,))
            assert rows
            assert secret.removeprefix("whsec_") not in str(rows), table


def test_only_what_a_change_names_is_changed(user, create):
    created = create(name="old", metadata={"a": "b"})

    changed = user.request("POST", f"{PATH}/{created['id']}", json={"event_types": ["*"], "name": "new"}).json()

    assert (changed["event_types"], changed["name"]) == (["*"], "new")
    assert (changed["url"], changed["metadata"]) == (created["url"], {"a": "b"})


def test_an_endpoint_is_disabled_and_enabled(user, create):
    path = f"{PATH}/{create()['id']}"

    disabled = user.request("POST", f"{path}/disable").json()
    assert (disabled["status"], disabled["disabled_reason"]) == ("disabled", "requested")

    enabled = user.request("POST", f"{path}/enable").json()
    assert (enabled["status"], enabled["disabled_reason"]) == ("enabled", None)


def test_a_deleted_endpoint_is_not_found(user, create):
    path = f"{PATH}/{create()['id']}"
    assert user.request("DELETE", path).json()["deleted"] is True

    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/enable"), ("POST", "/rotate_secret")):
        assert_error(user.request(method, path + suffix), 404, param="endpoint_id", code="not_found")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", None),
        ("example.com/hook", "invalid_url"),
        ("ftp://example.com/", "invalid_url"),
        ("https://", "invalid_url"),
        ("https://exa mple.com/\x01", "invalid_url"),
        ("http://example.com/hook", "https_required"),
        ("http://93.184.215.14/", "https_required"),
        ("https://user:password@example.com/", "url_refused"),
        ("https://127.0.0.1/", "url_refused"),
        ("https://localhost:8443/", "url_refused"),
        ("https://api.localhost/", "url_refused"),
        ("https://10.1.2.3/", "url_refused"),
        ("https://169.254.169.254/latest/meta-data", "url_refused"),
        ("https://[::1]/", "url_refused"),
        ("https://[::ffff:127.0.0.1]/", "url_refused"),
        ("https://2130706433/", "url_refused"),
        ("https://0x7f.1/", "url_refused"),
        ("https://example.com/" + "x" * 2_048, None),
    ],
)
def test_a_url_that_no_event_may_be_sent_to_is_refused(user, create, url, code):
    # When an endpoint is created with the URL, or given it
    changed = f"{PATH}/{create()['id']}"
    answers = [
        user.request("POST", PATH, json={"url": url, "event_types": ["*"]}),
        user.request("POST", changed, json={"url": url}),
    ]
    # Then the error names the field, and nothing is created or changed
    for answer in answers:
        message = assert_error(answer, 400, param="url", code=code)
        assert "Traceback" not in message
    assert [each["url"] for each in user.request("GET", PATH).json()["data"]] == ["https://example.com/hook"]


@pytest.mark.parametrize("pattern", ["response", "response.*.x", "responses.*", "eval.run.succeeded", "", "*.*", "**"])
def test_a_pattern_that_matches_no_type_is_refused(user, pattern):
    answer = user.request("POST", PATH, json={"url": "https://example.com/", "event_types": ["*", pattern]})

    message = assert_error(answer, 400, param="event_types[1]")
    assert "webhook_event_types" in message


def test_an_endpoint_needs_a_type(user):
    answer = user.request("POST", PATH, json={"url": "https://example.com/", "event_types": []})
    assert_error(answer, 400, param="event_types")


def test_an_account_has_a_limited_number_of_endpoints(user, create):
    for _ in range(MAX_ENDPOINTS):
        create()

    answer = user.request("POST", PATH, json={"url": "https://example.com/", "event_types": ["*"]})

    message = assert_error(answer, 429, code="too_many_webhook_endpoints")
    assert str(MAX_ENDPOINTS) in message


def test_endpoints_of_another_account_are_not_found(user, other_user, create):
    # Given an endpoint of an account
    path = f"{PATH}/{create()['id']}"
    # Then another one neither sees, changes, tests nor replays it
    requests = (
        ("GET", "", None),
        ("POST", "", {"name": "x"}),
        ("DELETE", "", None),
        ("POST", "/rotate_secret", {}),
        ("POST", "/enable", None),
        ("POST", "/disable", None),
        ("POST", "/test", {"event_type": "response.completed"}),
        ("POST", "/replay", {"since": 0}),
    )
    for method, suffix, body in requests:
        assert_error(other_user.request(method, path + suffix, json=body), 404, code="not_found")
    assert other_user.request("GET", PATH).json()["data"] == []
    assert user.request("GET", path).json()["name"] == ""


def test_openais_client_manages_endpoints(client):
    # When OpenAI's client creates an endpoint
    created = client.webhooks.create(url="https://example.com/", event_types=["response.completed"], name="mine")
    # Then it reads, changes, lists, rotates and deletes it
    assert created.signing_secret.startswith("whsec_")
    assert client.webhooks.retrieve(created.id).name == "mine"
    assert client.webhooks.update(created.id, name="yours").name == "yours"
    assert [each.id for each in client.webhooks.list(limit=1)] == [created.id]
    rotated = client.webhooks.rotate_secret(created.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != created.signing_secret
    assert client.webhooks.delete(created.id).deleted
    assert "response.completed" in client.webhooks.event_types.list().data


def test_each_type_has_a_description(user):
    types = user.request("GET", "/v1/webhook_event_types").json()

    assert types["data"] == list(event_types.EVENT_TYPES)
    assert all(types["descriptions"][name].strip() for name in types["data"])


def test_a_replay_is_a_job_of_the_account(user, create):
    endpoint = create()

    job = user.request("POST", f"{PATH}/{endpoint['id']}/replay", json={"since": 0, "undelivered_only": True})

    assert job.status_code == 202, job.text
    assert user.request("GET", f"/v1/jobs/{job.json()['id']}").json()["kind"] == "webhook.replay"


def test_events_are_not_replayed_to_a_disabled_endpoint(user, create):
    path = f"{PATH}/{create()['id']}"
    user.request("POST", f"{path}/disable")

    assert_error(user.request("POST", f"{path}/replay", json={"since": 0}), 409, code="endpoint_disabled")
