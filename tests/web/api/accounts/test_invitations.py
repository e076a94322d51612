"""Invitations: creating, accepting and revoking them, and who may do so."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from models.accounts import emails, members
from models.accounts.accounts import Role
from models.platform.ids import new_id
from tests.web.api_client import ApiUser, assert_error

PASSWORD, ANOTHER = "correct horse battery", "another horse battery"


@pytest.fixture
def inviter(user, database):
    """An owner with a verified e-mail address."""
    return verify_email(user, database)


@pytest.fixture
def guest_email():
    """An e-mail address without a user."""
    return f"{new_id('guest')}@example.com"


@pytest.fixture
def invite(inviter, mailbox):
    """`invite(address)` → the secret in the e-mail."""

    def invite(address, role="member"):
        created = inviter.request("POST", "/v1/account/invitations", json={"email": address, "role": role})
        assert created.status_code == 201, created.text
        return mailbox.token(address)

    return invite


def verify_email(user, database):
    with database.transaction() as connection:
        profile = emails.read_user(connection, user.caller.user_id)
        assert emails.verify(connection, profile.id, profile.email)
    user.email = profile.email
    return user


def accept(api, secret, **fields):
    return api.post("/auth/invitations/accept", json={"token": secret, **fields})


def test_accepting_creates_a_user_with_a_verified_email_and_a_membership(api, inviter, guest_email, invite):
    tokens = accept(api, invite(guest_email), password=PASSWORD, name="Grace")

    assert tokens.status_code == 200, tokens.text
    assert tokens.json()["account"] == {"id": inviter.caller.account_id, "role": "member"}
    me = api.get("/v1/me", headers={"authorization": f"Bearer {tokens.json()['token']}"}).json()
    assert (me["email"], me["email_verified"], me["name"]) == (guest_email, True, "Grace")
    assert [membership["id"] for membership in me["memberships"]] == [inviter.caller.account_id]
    assert api.post("/login", json={"email": guest_email, "password": PASSWORD}).status_code == 200
    actions = [event["action"] for event in inviter.request("GET", "/v1/audit_events").json()["data"]]
    assert {"invitation.created", "invitation.accepted", "member.added"} <= set(actions)


def test_an_invitation_is_accepted_once(api, guest_email, invite):
    secret = invite(guest_email)
    assert accept(api, secret, password=PASSWORD).status_code == 200

    assert_error(accept(api, secret, password=PASSWORD), 400, param="token", code="invalid_token")


def test_one_of_two_concurrent_acceptances_succeeds(api, guest_email, invite):
    secret = invite(guest_email)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda password: accept(api, secret, password=password), (PASSWORD, ANOTHER)))

    # The second one finds the token used, or the address owned by the first
    assert sorted(answer.status_code for answer in answers)[0] == 200
    assert sorted(answer.status_code for answer in answers)[1] in (400, 401)


def test_an_existing_user_accepts_by_password_and_others_are_rejected(
    api, guest_email, invite, other_user, database, inviter
):
    assert accept(api, invite(guest_email), password=PASSWORD).status_code == 200
    login = api.post("/login", json={"email": guest_email, "password": PASSWORD}).json()
    inviter.request("DELETE", f"/v1/account/members/{login['user']['id']}")
    secret = invite(guest_email)

    # Somebody else with the token
    assert_error(accept(api, secret), 401, param="password")
    assert_error(accept(api, secret, password=ANOTHER), 401, code="invalid_credentials")
    verify_email(other_user, database)
    assert_error(
        other_user.request("POST", "/auth/invitations/accept", json={"token": secret}), 403, code="not_invited"
    )
    # The user of the address
    assert accept(api, secret, password=PASSWORD).json()["user"]["id"] == login["user"]["id"]


def test_a_logged_in_user_accepts_with_their_own_verified_address(other_user, database, inviter, guest_email, invite):
    secret = invite(guest_email)

    assert_error(
        other_user.request("POST", "/auth/invitations/accept", json={"token": secret}), 403, code="email_unverified"
    )
    verify_email(other_user, database)
    tokens = other_user.request("POST", "/auth/invitations/accept", json={"token": secret})

    assert tokens.json()["user"] == {"id": other_user.caller.user_id, "email": other_user.email}
    assert tokens.json()["account"]["id"] == inviter.caller.account_id


def test_accepting_verifies_the_email_of_an_unverified_user(api, guest_email, invite):
    unverified = api.post("/signup", json={"email": guest_email, "password": PASSWORD}).json()

    tokens = accept(api, invite(guest_email), password=PASSWORD).json()

    assert tokens["user"]["id"] == unverified["user"]["id"]
    me = api.get("/v1/me", headers={"authorization": f"Bearer {tokens['token']}"}).json()
    assert (me["email_verified"], len(me["memberships"])) == (True, 2)


def test_an_invalid_access_token_does_not_replace_the_password(api, guest_email, invite):
    secret = invite(guest_email)

    answer = api.post(
        "/auth/invitations/accept", json={"token": secret, "password": PASSWORD}, headers={"authorization": "Bearer x"}
    )

    assert_error(answer, 401)


def test_a_new_invitation_revocation_and_expiry_invalidate_the_token(api, inviter, guest_email, invite, database):
    first = invite(guest_email)
    second = invite(guest_email)
    assert_error(accept(api, first, password=PASSWORD), 400, code="invalid_token")

    (pending,) = inviter.request("GET", "/v1/account/invitations").json()["data"]
    assert (pending["email"], pending["role"]) == (guest_email, "member")
    assert inviter.request("DELETE", f"/v1/account/invitations/{pending['id']}").json()["deleted"] is True
    assert_error(accept(api, second, password=PASSWORD), 400, code="invalid_token")
    assert_error(inviter.request("DELETE", f"/v1/account/invitations/{pending['id']}"), 404, param="invitation_id")

    third = invite(guest_email)
    with database.connection() as connection:
        connection.execute("UPDATE invitations SET expires_at = now() WHERE email = %s", (guest_email,))
    assert_error(accept(api, third, password=PASSWORD), 400, code="invalid_token")
    assert inviter.request("GET", "/v1/account/invitations").json()["data"] == []


def test_inviting_needs_a_verified_email_and_a_sufficient_role(inviter, other_user, database, api, guest_email):
    body = {"email": guest_email}
    assert_error(other_user.request("POST", "/v1/account/invitations", json=body), 403, code="email_unverified")
    admin = verify_email(ApiUser(api, database), database)
    with database.transaction() as connection:
        members.add(connection, inviter.caller.account_id, admin.caller.user_id, Role.ADMIN)
    admin.caller = replace(admin.caller, account_id=inviter.caller.account_id, role=Role.ADMIN)
    admin.token = api.app.state.platform.tokens.issue(admin.caller)

    owner = admin.request("POST", "/v1/account/invitations", json=body | {"role": "owner"})
    assert_error(owner, 403, code="owner_required")
    taken = admin.request("POST", "/v1/account/invitations", json={"email": inviter.email.upper()})
    assert_error(taken, 409, param="email", code="already_member")
    assert admin.request("POST", "/v1/account/invitations", json=body).status_code == 201


def test_invitations_per_day_are_limited(inviter, guest_email, database, monkeypatch):
    monkeypatch.setattr("pipelines.accounts.invitations.MAX_PER_DAY", 1)

    answers = [
        inviter.request("POST", "/v1/account/invitations", json={"email": f"{n}{guest_email}"}) for n in range(2)
    ]

    assert answers[0].status_code == 201
    assert_error(answers[1], 429)


def test_invitations_of_another_account_are_not_found(inviter, other_user, guest_email, invite):
    invite(guest_email)
    (pending,) = inviter.request("GET", "/v1/account/invitations").json()["data"]

    assert_error(other_user.request("DELETE", f"/v1/account/invitations/{pending['id']}"), 404)
    assert other_user.request("GET", "/v1/account/invitations").json()["data"] == []


def test_an_invitation_and_its_acceptance_are_events(api, inviter, guest_email, invite, events_of):
    secret = invite(guest_email, "admin")
    tokens = accept(api, secret, password=PASSWORD).json()

    (invited, joined) = events_of(inviter.caller.account_id)
    invitation = inviter.request("GET", "/v1/audit_events").json()["data"]
    created = next(event["target"] for event in invitation if event["action"] == "invitation.created")
    me = api.get("/v1/me", headers={"authorization": f"Bearer {tokens['token']}"}).json()
    assert invited == ("member.invited", {"id": created, "role": "admin"})
    assert joined == ("member.joined", {"id": me["id"], "role": "admin"})
