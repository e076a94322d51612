"""Links in e-mails: verifying an address and resetting a password, and what they protect against."""

import pytest

from models.accounts import emails
from models.platform.database import fetch_all
from models.platform.ids import new_id
from tests.web.api_client import assert_error

PASSWORD, ANOTHER = "correct horse battery", "another horse battery"


@pytest.fixture
def email():
    return f"{new_id('test')}@example.com"


@pytest.fixture
def sign_up(api, email):
    """`sign_up(password)` → the authorization header of a user with the unverified address."""

    def sign_up(password=PASSWORD):
        answer = api.post("/signup", json={"email": email, "password": password})
        assert answer.status_code == 201, answer.text
        return {"authorization": f"Bearer {answer.json()['token']}"}

    return sign_up


def verify(api, secret, password=PASSWORD):
    """Verify the e-mail address with the password of the user who signed up."""
    return api.post("/auth/email/verify", json={"token": secret, "password": password})


def get_me(api, headers):
    return api.get("/v1/me", headers=headers)


def test_the_link_verifies_the_address_and_can_be_used_twice(api, email, sign_up, mailbox):
    headers = sign_up()
    assert get_me(api, headers).json()["email_verified"] is False
    secret = mailbox.token(email)

    answers = [verify(api, secret) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == {"object": "email", "email": email, "email_verified": True}
    assert get_me(api, headers).json()["email_verified"] is True


def test_after_verification_other_users_of_the_address_cannot_log_in(api, email, sign_up, mailbox):
    sign_up(ANOTHER)
    first = mailbox.token(email)
    sign_up()
    second = mailbox.token(email)

    assert verify(api, second).status_code == 200

    assert_error(verify(api, first, ANOTHER), 409, param="token", code="address_taken")
    assert api.post("/login", json={"email": email, "password": PASSWORD}).status_code == 200
    assert api.post("/login", json={"email": email, "password": ANOTHER}).status_code == 401


def test_a_click_without_proof_of_the_account_does_not_verify_the_address(api, email, sign_up, mailbox, user):
    # Given a user who signed up with an address of somebody else
    headers = sign_up()
    body = {"token": mailbox.token(email)}
    # When the owner of the address clicks: without credentials, with a wrong password, or as another user
    anonymous = api.post("/auth/email/verify", json=body)
    guessed = verify(api, body["token"], ANOTHER)
    as_another = user.request("POST", "/auth/email/verify", json=body)
    # Then the address is not verified and the token stays valid
    assert_error(anonymous, 401, param="password", code="proof_required")
    assert_error(guessed, 401, param="password", code="invalid_credentials")
    assert_error(as_another, 403, code="another_user")
    assert get_me(api, headers).json()["email_verified"] is False
    assert verify(api, body["token"]).status_code == 200


def test_a_session_verifies_the_address_but_an_ended_session_does_not(api, email, sign_up, mailbox):
    headers, ended = sign_up(), sign_up()
    body = {"token": mailbox.token(email)}
    api.post("/auth/logout", headers=ended)

    assert_error(api.post("/auth/email/verify", headers=ended, json=body), 401)
    assert api.post("/auth/email/verify", headers=headers, json=body).status_code == 200

    assert get_me(api, headers).json()["email_verified"] is True


def test_wrong_passwords_at_the_link_count_against_the_login_limit(api, email, sign_up, mailbox):
    sign_up()
    secret = mailbox.token(email)

    answers = [verify(api, secret, ANOTHER) for _ in range(11)]

    assert answers[0].status_code == 401
    assert_error(answers[-1], 429, code="too_many_attempts")
    assert_error(api.post("/login", json={"email": email, "password": PASSWORD}), 429, code="too_many_attempts")


@pytest.mark.parametrize("path", ["/auth/email/verify", "/auth/password/reset", "/auth/invitations/accept"])
def test_an_unknown_token_is_rejected(api, path):
    assert_error(
        api.post(path, json={"token": "x" * 43, "password": PASSWORD}), 400, param="token", code="invalid_token"
    )


def test_a_token_is_bound_to_its_purpose_and_expires(api, email, sign_up, mailbox, database):
    sign_up()
    secret = mailbox.token(email)

    assert_error(
        api.post("/auth/password/reset", json={"token": secret, "password": ANOTHER}), 400, code="invalid_token"
    )
    with database.connection() as connection:
        connection.execute("UPDATE email_tokens SET expires_at = now() WHERE email = %s", (email,))
    assert_error(verify(api, secret), 400, code="invalid_token")


def test_the_verification_email_is_resent_until_the_address_is_verified(api, email, sign_up, mailbox):
    headers = sign_up()
    mailbox.token(email)

    resent = api.post("/auth/email/resend", headers=headers)
    assert (resent.status_code, resent.json()) == (202, {"object": "letter", "accepted": True})
    assert verify(api, mailbox.token(email)).status_code == 200

    assert api.post("/auth/email/resend", headers=headers).json()["accepted"] is False
    assert mailbox.deliver(email) == []


def test_a_password_reset_ends_every_session_and_is_announced_by_email(api, email, sign_up, mailbox):
    headers = sign_up()
    verify(api, mailbox.token(email))
    api.post("/auth/password/forgot", json={"email": email.upper()})
    secret = mailbox.token(email.upper().replace("EXAMPLE.COM", "example.com"))

    weak = api.post("/auth/password/reset", json={"token": secret, "password": "short"})
    assert_error(weak, 400, param="password", code="invalid_password")
    done = api.post("/auth/password/reset", json={"token": secret, "password": ANOTHER})

    assert done.status_code == 200
    assert get_me(api, headers).status_code == 401
    assert api.post("/login", json={"email": email, "password": PASSWORD}).status_code == 401
    tokens = api.post("/login", json={"email": email, "password": ANOTHER}).json()
    assert get_me(api, {"authorization": f"Bearer {tokens['token']}"}).json()["email_verified"] is True
    (notice,) = mailbox.deliver(email)
    assert notice["Subject"] == "Your password was changed"
    # And the token is valid once
    assert_error(
        api.post("/auth/password/reset", json={"token": secret, "password": PASSWORD}), 400, code="invalid_token"
    )
    assert "password.reset" in audit_actions(api, tokens)


def test_password_reset_does_not_reveal_whether_an_address_is_known(api, email, sign_up, mailbox, database):
    sign_up()
    mailbox.deliver(email)
    unknown = f"un{email}"

    answers = [api.post("/auth/password/forgot", json={"email": address}) for address in (email, unknown)]
    jobs = [job for address in (email, unknown) for job in jobs_with_email(database, address)]

    assert answers[0].status_code == answers[1].status_code == 202
    assert answers[0].json() == answers[1].json()
    assert len(jobs) == 2
    assert (len(mailbox.deliver(email)), len(mailbox.deliver(unknown))) == (1, 0)
    assert jobs_with_email(database, email) == jobs_with_email(database, unknown) == []


def reset_password(api, email, mailbox, **options):
    """Set the password ANOTHER by e-mail; returns the authorization header of a new session."""
    api.post("/auth/password/forgot", json={"email": email})
    body = {"token": mailbox.token(email), "password": ANOTHER, **options}
    assert api.post("/auth/password/reset", json=body).status_code == 200
    tokens = api.post("/login", json={"email": email, "password": ANOTHER}).json()
    return {"authorization": f"Bearer {tokens['token']}"}


def test_a_password_reset_by_the_owner_of_a_claimed_address_inherits_nothing(api, email, sign_up, mailbox):
    # Given a user who signed up with an address of somebody else, and made a key, a conversation and a schedule
    claimant = sign_up()
    created = api.post("/v1/api_keys", headers=claimant, json={"name": "a backdoor"})
    assert created.status_code == 201, created.text
    schedule = {
        "name": "spy", "kind": "response", "trigger": {"type": "interval", "every_seconds": 3600},
        "request": {"input": "what is new?"},
    }  # fmt: skip
    api.post("/v1/schedules", headers=claimant, json=schedule)
    api.post("/v1/conversations", headers=claimant, json={})
    mailbox.deliver(email)
    # When the owner of the address resets the password
    owner = reset_password(api, email, mailbox)
    # Then they have another user and account, which are empty and verified
    theirs, claimed = get_me(api, owner).json(), get_me(api, claimant).json()
    assert (theirs["email_verified"], claimed["email_verified"]) == (True, False)
    assert theirs["id"] != claimed["id"]
    assert theirs["account_id"] not in [membership["id"] for membership in claimed["memberships"]]
    for path in ("/v1/api_keys", "/v1/schedules", "/v1/memories", "/v1/jobs"):
        assert api.get(path, headers=owner).json()["data"] == []
    assert [session["current"] for session in api.get("/v1/me/sessions", headers=owner).json()["data"]] == [True]
    # And the claimant can no longer log in with the address
    assert api.post("/login", json={"email": email, "password": PASSWORD}).status_code == 401


def test_a_password_reset_keeps_api_keys_and_lists_them_in_the_email(api, email, sign_up, mailbox):
    headers = sign_up()
    verify(api, mailbox.token(email))
    created = api.post("/v1/api_keys", headers=headers, json={"name": "my application"}).json()
    key = {"authorization": f"Bearer {created['key']}"}

    reset_password(api, email, mailbox)
    (notice,) = mailbox.deliver(email)

    assert get_me(api, key).status_code == 200
    assert f"my application ({created['hint']})" in notice.get_content()


def test_a_password_reset_revokes_api_keys_on_request(api, email, sign_up, mailbox):
    headers = sign_up()
    verify(api, mailbox.token(email))
    created = api.post("/v1/api_keys", headers=headers, json={"name": "my application"}).json()

    reset_password(api, email, mailbox, revoke_api_keys=True)
    (notice,) = mailbox.deliver(email)

    assert_error(get_me(api, {"authorization": f"Bearer {created['key']}"}), 401)
    assert "my application" not in notice.get_content()


def test_an_unverified_account_has_small_limits_until_its_address_is_verified(api, email, sign_up, mailbox):
    headers = sign_up()

    before = api.get("/v1/account", headers=headers).json()
    verify(api, mailbox.token(email))
    after = api.get("/v1/account", headers=headers).json()

    assert (before["plan"]["id"], after["plan"]["id"]) == ("unverified", "default")
    assert before["limits"]["streams"] < after["limits"]["streams"]
    assert before["limits"]["tokens_per_month"] is not None


def test_attempts_to_sign_up_with_a_verified_address_send_its_owner_one_email_per_hour(api, email, sign_up, mailbox):
    sign_up()
    verify(api, mailbox.token(email))

    for number in range(5):
        sign_up(f"{ANOTHER} {number}")

    assert [message["Subject"] for message in mailbox.deliver(email)] == ["You already have an account"]


def test_password_reset_requests_are_rate_limited(api, email):
    answers = [api.post("/auth/password/forgot", json={"email": email}) for _ in range(12)]

    assert answers[0].status_code == 202
    assert_error(answers[-1], 429, code="too_many_attempts")
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_opening_a_linked_page_does_not_use_its_token(api, email, sign_up, mailbox):
    sign_up()
    secret = mailbox.token(email)

    for page in ("verify", "reset", "invitation"):
        answer = api.get(f"/auth/{page}?token={secret}&utm_source=x")
        assert answer.status_code == 200
        assert "/pages/auth.js" in answer.text
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert api.get("/pages/auth.js").status_code == 200

    assert verify(api, secret).status_code == 200


def test_a_password_change_is_announced_by_email(api, email, sign_up, mailbox):
    headers = sign_up()
    mailbox.deliver(email)

    body = {"current_password": PASSWORD, "new_password": ANOTHER}
    assert api.post("/auth/password/change", headers=headers, json=body).status_code == 200

    assert [message["Subject"] for message in mailbox.deliver(email)] == ["Your password was changed"]


def test_only_the_first_user_to_verify_an_address_gets_it(api, email, sign_up, database):
    user_ids = [get_me(api, sign_up(password)).json()["id"] for password in (PASSWORD, ANOTHER)]

    with database.transaction() as connection:
        assert [emails.verify(connection, user_id, email) for user_id in user_ids] == [True, False]


def jobs_with_email(database, address):
    statement = "SELECT id FROM jobs WHERE arguments ->> 'email' = %s"
    with database.connection() as connection:
        return fetch_all(connection, statement, (address,))


def audit_actions(api, tokens):
    """Return the actions of the account's audit events."""
    answer = api.get("/v1/audit_events", headers={"authorization": f"Bearer {tokens['token']}"})
    return [event["action"] for event in answer.json()["data"]]
