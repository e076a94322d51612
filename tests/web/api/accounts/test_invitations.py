"""Given an account that invites somebody, when they accept, then they are a member, and nobody else is."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from models.accounts import emails, members
from models.accounts.accounts import Role
from models.platform.ids import new_id
from tests.web.api_client import ApiUser, assert_error

PASSWORD, ANOTHER = "correct horse battery", "another horse battery"


@pytest.fixture
def host(user, database):
    """An owner who has proved their address."""
    return proved(user, database)


@pytest.fixture
def guest():
    """An address that nobody has yet."""
    return f"{new_id('guest')}@example.com"


@pytest.fixture
def invite(host, post):
    """`invite(address)` → the secret in its letter."""

    def invite(address, role="member"):
        made = host.request("POST", "/v1/account/invitations", json={"email": address, "role": role})
        assert made.status_code == 201, made.text
        return post.secret(address)

    return invite


def proved(user, database):
    with database.transaction() as connection:
        person = emails.person(connection, user.caller.user_id)
        assert emails.prove(connection, person.id, person.email)
    user.email = person.email
    return user


def accept(api, secret, **fields):
    return api.post("/auth/invitations/accept", json={"token": secret, **fields})


def test_somebody_new_gets_a_user_a_proved_address_and_a_place(api, host, guest, invite):
    entry = accept(api, invite(guest), password=PASSWORD, name="Grace")

    assert entry.status_code == 200, entry.text
    assert entry.json()["account"] == {"id": host.caller.account_id, "role": "member"}
    me = api.get("/v1/me", headers={"authorization": f"Bearer {entry.json()['token']}"}).json()
    assert (me["email"], me["email_verified"], me["name"]) == (guest, True, "Grace")
    assert [place["id"] for place in me["memberships"]] == [host.caller.account_id]
    assert api.post("/login", json={"email": guest, "password": PASSWORD}).status_code == 200
    actions = [event["action"] for event in host.request("GET", "/v1/audit_events").json()["data"]]
    assert {"invitation.created", "invitation.accepted", "member.added"} <= set(actions)


def test_an_invitation_is_good_once(api, guest, invite):
    secret = invite(guest)
    assert accept(api, secret, password=PASSWORD).status_code == 200

    assert_error(accept(api, secret, password=PASSWORD), 400, param="token", code="invalid_token")


def test_of_two_who_come_with_one_link_at_once_one_joins(api, guest, invite):
    secret = invite(guest)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda password: accept(api, secret, password=password), (PASSWORD, ANOTHER)))

    # The later one finds the link used up, or its address somebody else's
    assert sorted(answer.status_code for answer in answers)[0] == 200
    assert sorted(answer.status_code for answer in answers)[1] in (400, 401)


def test_somebody_with_the_address_accepts_by_login_or_by_password_and_nobody_else_does(
    api, guest, invite, other_user, database, host
):
    assert accept(api, invite(guest), password=PASSWORD).status_code == 200
    login = api.post("/login", json={"email": guest, "password": PASSWORD}).json()
    host.request("DELETE", f"/v1/account/members/{login['user']['id']}")
    secret = invite(guest)

    # Whoever has found the letter, without being its user
    assert_error(accept(api, secret), 401, param="password")
    assert_error(accept(api, secret, password=ANOTHER), 401, code="invalid_credentials")
    proved(other_user, database)
    assert_error(
        other_user.request("POST", "/auth/invitations/accept", json={"token": secret}), 403, code="not_invited"
    )
    # And its user
    assert accept(api, secret, password=PASSWORD).json()["user"]["id"] == login["user"]["id"]


def test_who_has_logged_in_accepts_under_the_address_that_they_have(other_user, database, host, guest, invite):
    secret = invite(guest)

    assert_error(
        other_user.request("POST", "/auth/invitations/accept", json={"token": secret}), 403, code="email_unverified"
    )
    proved(other_user, database)
    entry = other_user.request("POST", "/auth/invitations/accept", json={"token": secret})

    assert entry.json()["user"] == {"id": other_user.caller.user_id, "email": other_user.email}
    assert entry.json()["account"]["id"] == host.caller.account_id


def test_accepting_proves_an_address_that_was_only_claimed(api, guest, invite):
    claim = api.post("/signup", json={"email": guest, "password": PASSWORD}).json()

    entry = accept(api, invite(guest), password=PASSWORD).json()

    assert entry["user"]["id"] == claim["user"]["id"]
    me = api.get("/v1/me", headers={"authorization": f"Bearer {entry['token']}"}).json()
    assert (me["email_verified"], len(me["memberships"])) == (True, 2)


def test_a_token_that_holds_no_more_is_no_way_around_the_password(api, guest, invite):
    secret = invite(guest)

    answer = api.post(
        "/auth/invitations/accept", json={"token": secret, "password": PASSWORD}, headers={"authorization": "Bearer x"}
    )

    assert_error(answer, 401)


def test_inviting_again_revoking_and_time_make_a_letter_void(api, host, guest, invite, database):
    first = invite(guest)
    second = invite(guest)
    assert_error(accept(api, first, password=PASSWORD), 400, code="invalid_token")

    (pending,) = host.request("GET", "/v1/account/invitations").json()["data"]
    assert (pending["email"], pending["role"]) == (guest, "member")
    assert host.request("DELETE", f"/v1/account/invitations/{pending['id']}").json()["deleted"] is True
    assert_error(accept(api, second, password=PASSWORD), 400, code="invalid_token")
    assert_error(host.request("DELETE", f"/v1/account/invitations/{pending['id']}"), 404, param="invitation_id")

    third = invite(guest)
    with database.connection() as connection:
        connection.execute("UPDATE invitations SET expires_at = now() WHERE email = %s", (guest,))
    assert_error(accept(api, third, password=PASSWORD), 400, code="invalid_token")
    assert host.request("GET", "/v1/account/invitations").json()["data"] == []


def test_who_invites_has_proved_their_own_address_and_has_the_role(host, other_user, database, api, guest):
    body = {"email": guest}
    assert_error(other_user.request("POST", "/v1/account/invitations", json=body), 403, code="email_unverified")
    admin = proved(ApiUser(api, database), database)
    with database.transaction() as connection:
        members.add(connection, host.caller.account_id, admin.caller.user_id, Role.ADMIN)
    admin.caller = replace(admin.caller, account_id=host.caller.account_id, role=Role.ADMIN)
    admin.token = api.app.state.platform.tokens.issue(admin.caller)

    owner = admin.request("POST", "/v1/account/invitations", json=body | {"role": "owner"})
    assert_error(owner, 403, code="owner_required")
    taken = admin.request("POST", "/v1/account/invitations", json={"email": host.email.upper()})
    assert_error(taken, 409, param="email", code="already_member")
    assert admin.request("POST", "/v1/account/invitations", json=body).status_code == 201


def test_letters_to_strangers_have_a_limit(host, guest, database, monkeypatch):
    monkeypatch.setattr("pipelines.accounts.invitations.MOST_A_DAY", 1)

    answers = [host.request("POST", "/v1/account/invitations", json={"email": f"{n}{guest}"}) for n in range(2)]

    assert answers[0].status_code == 201
    assert_error(answers[1], 429)


def test_another_accounts_invitation_is_out_of_reach(host, other_user, guest, invite):
    invite(guest)
    (pending,) = host.request("GET", "/v1/account/invitations").json()["data"]

    assert_error(other_user.request("DELETE", f"/v1/account/invitations/{pending['id']}"), 404)
    assert other_user.request("GET", "/v1/account/invitations").json()["data"] == []
