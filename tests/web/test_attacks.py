"""Given people of one account with different rights, when one uses what another has made, then it raises nobody."""

import pytest

from models.accounts import emails, files, invitations
from models.accounts.accounts import Role, Scope
from models.jobs.jobs import NewJob, enqueue
from models.platform.ids import new_id
from tests.web.api_client import app_client, assert_error
from tests.web.principals import Principals
from web.http.bodies import LARGEST_PUBLIC

NEW_KEY = {"name": "ours", "scopes": ["read", "admin"]}


@pytest.fixture
def principals(api, database, settings):
    """People of one account, and others."""
    principals = Principals(api, database, settings)
    yield principals
    principals.delete(database)


def test_the_answer_of_one_member_is_not_told_again_to_another(principals):
    once = {"json": NEW_KEY, "headers": {"idempotency-key": new_id("key")}}
    made = principals.request("admin", "POST", "/v1/api_keys", **once)
    assert made.status_code == 201, made.text

    told = principals.request("member", "POST", "/v1/api_keys", **once)

    assert_error(told, 422, code="idempotency_key_reused")
    assert made.json()["key"] not in told.text
    assert principals.request("admin", "POST", "/v1/api_keys", **once).json() == made.json()


@pytest.mark.parametrize("who", ["member", "read key", "write key", "demoted key"])
def test_an_export_is_for_admins(principals, database, who):
    with database.connection() as connection:
        files.insert(
            connection, new_id("file"), principals.account_id, job_id=new_id("job"), filename="x.zip", purpose="export",
            content_type="application/zip", size=10, object_key=new_id("none"), days=7,
        )  # fmt: skip
    [export] = principals.request("admin", "GET", "/v1/files").json()["data"]
    assert principals.request("admin", "GET", f"/v1/files/{export['id']}").status_code == 200

    if who != "write key":
        assert principals.request(who, "GET", "/v1/files").json()["data"] == []
        assert_error(principals.request(who, "GET", f"/v1/files/{export['id']}"), 404)
        assert_error(principals.request(who, "GET", f"/v1/files/{export['id']}/content"), 404)
    if who != "read key":
        assert_error(principals.request(who, "DELETE", f"/v1/files/{export['id']}"), 404)


@pytest.mark.parametrize("kind", ["account.export", "email.send", "memory.forget"])
def test_a_member_cancels_nothing_that_admins_have_begun_or_others_rely_on(principals, database, kind):
    job = NewJob(kind, principals.account_id)
    with database.transaction() as connection:
        enqueue(connection, job)

    for who, code in (("member", "forbidden"), ("write key", "insufficient_scope"), ("demoted key", "forbidden")):
        assert_error(principals.request(who, "POST", f"/v1/jobs/{job.id}/cancel"), 403, code=code)
    assert principals.request("admin", "GET", f"/v1/jobs/{job.id}").json()["state"] == "queued"

    assert principals.request("admin", "POST", f"/v1/jobs/{job.id}/cancel").json()["state"] == "cancelled"


def test_whoever_finds_an_owners_key_does_not_become_an_owner_by_it(principals, database):
    with database.transaction() as connection:
        found, _ = principals.key(connection, principals.owner_id, *Scope)
        member = principals.bystander(connection)
        assert emails.prove(connection, principals.owner_id, emails.person(connection, principals.owner_id).email)
    principals.shows["found"] = found
    guest = f"{new_id('guest')}@example.com"

    for method, path, body in [
        ("POST", "/v1/account/invitations", {"email": guest, "role": "owner"}),
        ("PATCH", f"/v1/account/members/{member}", {"role": "owner"}),
        ("PATCH", f"/v1/account/members/{principals.owner_id}", {"role": "member"}),
    ]:
        assert_error(principals.request("found", method, path, json=body), 403, code="owner_required")
    assert (
        principals.request("found", "PATCH", f"/v1/account/members/{member}", json={"role": "admin"}).status_code == 200
    )


def test_who_has_left_does_not_come_back_by_their_own_invitation(user, other_user, database):
    home, address = other_user.caller.account_id, f"{new_id('guest')}@example.com"
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'admin')",
            (home, user.caller.user_id),
        )
        offer = {"email": address, "role": Role.ADMIN, "invited_by": user.caller.user_id}
        invitation = invitations.create(connection, new_id("inv"), home, **offer)
        email = emails.person(connection, user.caller.user_id).email

    assert user.request("DELETE", "/v1/me", params={"confirm": email}).status_code == 202

    with database.connection() as connection:
        assert invitations.read(connection, invitation.id, home).revoked_at is not None


def test_nobody_unknown_is_read_at_length(api):
    assert_error(api.post("/login", content=b" " * LARGEST_PUBLIC + b"{}"), 413)
    assert_error(api.post("/login", content=b" " * (LARGEST_PUBLIC - 2) + b"{}"), 400)


def test_a_body_that_is_wrong_everywhere_holds_nobody_up(user):
    body = b'{"input":"x"' + b"".join(b',"%d":1' % number for number in range(90_000)) + b"}"

    # To list all that is wrong took seconds on the event loop.
    assert "90000 places" in assert_error(user.request("POST", "/v1/responses", content=body), 400)


def test_going_to_a_provider_is_no_mere_read(settings):
    with app_client(settings.model_copy(update={"visits_per_minute": 3, "trusted_proxies": "127.0.0.1"})) as client:
        address = {"x-forwarded-for": f"203.0.113.{int(new_id('ip')[-2:], 16)}"}
        ways = ("/auth/oidc/x", "/auth/oidc/x/callback") * 2

        assert [client.get(way, headers=address).status_code for way in ways] == [404, 404, 404, 429]
