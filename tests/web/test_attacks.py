"""Given people of one account with different rights, when one uses what another has made, then it raises nobody."""

import pytest

from models import addresses, files, invitations
from models.accounts import Role, Scope
from models.ids import new_id
from models.jobs import NewJob, enqueue
from tests.web.cast import Cast
from tests.web.visiting import refused, whole_door
from web.http.bodies import LARGEST_PUBLIC

NEW_KEY = {"name": "ours", "scopes": ["read", "admin"]}


@pytest.fixture
def cast(house, database, settings):
    """People of one account, and others."""
    cast = Cast(house, database, settings)
    yield cast
    cast.leave(database)


def test_the_answer_of_one_member_is_not_told_again_to_another(cast):
    once = {"json": NEW_KEY, "headers": {"idempotency-key": new_id("key")}}
    made = cast.request("admin", "POST", "/v1/api_keys", **once)
    assert made.status_code == 201, made.text

    told = cast.request("member", "POST", "/v1/api_keys", **once)

    refused(told, 422, code="idempotency_key_reused")
    assert made.json()["key"] not in told.text
    assert cast.request("admin", "POST", "/v1/api_keys", **once).json() == made.json()


@pytest.mark.parametrize("who", ["member", "read key", "write key", "demoted key"])
def test_an_export_is_for_admins(cast, database, who):
    with database.connection() as connection:
        files.insert(
            connection, new_id("file"), cast.account_id, job_id=new_id("job"), filename="x.zip", purpose="export",
            content_type="application/zip", size=10, object_key=new_id("none"), days=7,
        )  # fmt: skip
    [export] = cast.request("admin", "GET", "/v1/files").json()["data"]
    assert cast.request("admin", "GET", f"/v1/files/{export['id']}").status_code == 200

    if who != "write key":
        assert cast.request(who, "GET", "/v1/files").json()["data"] == []
        refused(cast.request(who, "GET", f"/v1/files/{export['id']}"), 404)
        refused(cast.request(who, "GET", f"/v1/files/{export['id']}/content"), 404)
    if who != "read key":
        refused(cast.request(who, "DELETE", f"/v1/files/{export['id']}"), 404)


@pytest.mark.parametrize("kind", ["account.export", "email.send", "memory.forget"])
def test_a_member_cancels_nothing_that_admins_have_begun_or_others_rely_on(cast, database, kind):
    job = NewJob(kind, cast.account_id)
    with database.transaction() as connection:
        enqueue(connection, job)

    for who, code in (("member", "forbidden"), ("write key", "insufficient_scope"), ("demoted key", "forbidden")):
        refused(cast.request(who, "POST", f"/v1/jobs/{job.id}/cancel"), 403, code=code)
    assert cast.request("admin", "GET", f"/v1/jobs/{job.id}").json()["state"] == "queued"

    assert cast.request("admin", "POST", f"/v1/jobs/{job.id}/cancel").json()["state"] == "cancelled"


def test_whoever_finds_an_owners_key_does_not_become_an_owner_by_it(cast, database):
    with database.transaction() as connection:
        found, _ = cast.key(connection, cast.owner_id, *Scope)
        member = cast.bystander(connection)
        assert addresses.prove(connection, cast.owner_id, addresses.person(connection, cast.owner_id).email)
    cast.shows["found"] = found
    guest = f"{new_id('guest')}@example.com"

    for method, path, body in [
        ("POST", "/v1/account/invitations", {"email": guest, "role": "owner"}),
        ("PATCH", f"/v1/account/members/{member}", {"role": "owner"}),
        ("PATCH", f"/v1/account/members/{cast.owner_id}", {"role": "member"}),
    ]:
        refused(cast.request("found", method, path, json=body), 403, code="owner_required")
    assert cast.request("found", "PATCH", f"/v1/account/members/{member}", json={"role": "admin"}).status_code == 200


def test_who_has_left_does_not_come_back_by_their_own_invitation(visitor, stranger, database):
    home, address = stranger.caller.account_id, f"{new_id('guest')}@example.com"
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'admin')",
            (home, visitor.caller.user_id),
        )
        offer = {"email": address, "role": Role.ADMIN, "invited_by": visitor.caller.user_id}
        invitation = invitations.create(connection, new_id("inv"), home, **offer)
        email = addresses.person(connection, visitor.caller.user_id).email

    assert visitor.request("DELETE", "/v1/me", params={"confirm": email}).status_code == 202

    with database.connection() as connection:
        assert invitations.read(connection, invitation.id, home).revoked_at is not None


def test_nobody_unknown_is_read_at_length(house):
    refused(house.post("/login", content=b" " * LARGEST_PUBLIC + b"{}"), 413)
    refused(house.post("/login", content=b" " * (LARGEST_PUBLIC - 2) + b"{}"), 400)


def test_a_body_that_is_wrong_everywhere_holds_nobody_up(visitor):
    body = b'{"input":"x"' + b"".join(b',"%d":1' % number for number in range(90_000)) + b"}"

    # To list all that is wrong took seconds on the event loop.
    assert "90000 places" in refused(visitor.request("POST", "/v1/responses", content=body), 400)


def test_going_to_a_provider_is_no_mere_read(settings):
    with whole_door(settings.model_copy(update={"visits_per_minute": 3, "trusted_proxies": "127.0.0.1"})) as door:
        address = {"x-forwarded-for": f"203.0.113.{int(new_id('ip')[-2:], 16)}"}
        ways = ("/auth/oidc/x", "/auth/oidc/x/callback") * 2

        assert [door.get(way, headers=address).status_code for way in ways] == [404, 404, 404, 429]
