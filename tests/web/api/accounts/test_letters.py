"""Given somebody who has signed up, when they follow the links of letters, then they prove their address or come in."""

import pytest

from models.accounts import emails
from models.platform.database import all_of
from models.platform.ids import new_id
from tests.web.api_client import assert_error

PASSWORD, ANOTHER = "correct horse battery", "another horse battery"


@pytest.fixture
def email():
    return f"{new_id('test')}@example.com"


@pytest.fixture
def sign_up(api, email):
    """`sign_up(password)` → the token of somebody who claims the address."""

    def sign_up(password=PASSWORD):
        answer = api.post("/signup", json={"email": email, "password": password})
        assert answer.status_code == 201, answer.text
        return {"authorization": f"Bearer {answer.json()['token']}"}

    return sign_up


def verify(api, secret, password=PASSWORD):
    """As whoever signed up."""
    return api.post("/auth/email/verify", json={"token": secret, "password": password})


def me(api, headers):
    return api.get("/v1/me", headers=headers)


def test_the_link_proves_the_address_and_clicking_twice_is_harmless(api, email, sign_up, post):
    headers = sign_up()
    assert me(api, headers).json()["email_verified"] is False
    secret = post.secret(email)

    answers = [verify(api, secret) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == {"object": "email", "email": email, "email_verified": True}
    assert me(api, headers).json()["email_verified"] is True


def test_once_proved_the_address_lets_no_other_claimant_in(api, email, sign_up, post):
    sign_up(ANOTHER)
    first = post.secret(email)
    sign_up()
    second = post.secret(email)

    assert verify(api, second).status_code == 200

    assert_error(verify(api, first, ANOTHER), 409, param="token", code="address_taken")
    assert api.post("/login", json={"email": email, "password": PASSWORD}).status_code == 200
    assert api.post("/login", json={"email": email, "password": ANOTHER}).status_code == 401


def test_a_click_of_the_mails_reader_gives_the_address_to_nobody_who_claimed_it(api, email, sign_up, post, user):
    # Given somebody who signed up with an address that they don't read
    headers = sign_up()
    body = {"token": post.secret(email)}
    # When its reader clicks: as nobody, by guessing, or as the user that they are already
    alone = api.post("/auth/email/verify", json=body)
    guessed = verify(api, body["token"], ANOTHER)
    as_another = user.request("POST", "/auth/email/verify", json=body)
    # Then it proves nothing, and nothing is used up
    assert_error(alone, 401, param="password", code="proof_required")
    assert_error(guessed, 401, param="password", code="invalid_credentials")
    assert_error(as_another, 403, code="another_user")
    assert me(api, headers).json()["email_verified"] is False
    assert verify(api, body["token"]).status_code == 200


def test_whoever_signed_up_confirms_by_their_session_but_not_by_an_ended_one(api, email, sign_up, post):
    headers, ended = sign_up(), sign_up()
    body = {"token": post.secret(email)}
    api.post("/auth/logout", headers=ended)

    assert_error(api.post("/auth/email/verify", headers=ended, json=body), 401)
    assert api.post("/auth/email/verify", headers=headers, json=body).status_code == 200

    assert me(api, headers).json()["email_verified"] is True


def test_passwords_are_guessed_at_the_letters_link_as_seldom_as_at_the_login(api, email, sign_up, post):
    sign_up()
    secret = post.secret(email)

    answers = [verify(api, secret, ANOTHER) for _ in range(11)]

    assert answers[0].status_code == 401
    assert_error(answers[-1], 429, code="too_many_attempts")
    assert_error(api.post("/login", json={"email": email, "password": PASSWORD}), 429, code="too_many_attempts")


@pytest.mark.parametrize("path", ["/auth/email/verify", "/auth/password/reset", "/auth/invitations/accept"])
def test_what_is_no_secret_of_ours_is_refused(api, path):
    assert_error(
        api.post(path, json={"token": "x" * 43, "password": PASSWORD}), 400, param="token", code="invalid_token"
    )


def test_a_secret_is_good_for_its_own_purpose_only_and_not_for_ever(api, email, sign_up, post, database):
    sign_up()
    secret = post.secret(email)

    assert_error(
        api.post("/auth/password/reset", json={"token": secret, "password": ANOTHER}), 400, code="invalid_token"
    )
    with database.connection() as connection:
        connection.execute("UPDATE email_tokens SET expires_at = now() WHERE email = %s", (email,))
    assert_error(verify(api, secret), 400, code="invalid_token")


def test_the_letter_comes_again_when_it_is_asked_for_until_there_is_nothing_to_prove(api, email, sign_up, post):
    headers = sign_up()
    post.secret(email)

    again = api.post("/auth/email/resend", headers=headers)
    assert (again.status_code, again.json()) == (202, {"object": "letter", "accepted": True})
    assert verify(api, post.secret(email)).status_code == 200

    assert api.post("/auth/email/resend", headers=headers).json()["accepted"] is False
    assert post.letters(email) == []


def test_a_forgotten_password_is_set_anew_which_ends_every_session_and_is_told(api, email, sign_up, post):
    headers = sign_up()
    post.letters(email)
    api.post("/auth/password/forgot", json={"email": email.upper()})
    secret = post.secret(email.upper().replace("EXAMPLE.COM", "example.com"))

    weak = api.post("/auth/password/reset", json={"token": secret, "password": "short"})
    assert_error(weak, 400, param="password", code="invalid_password")
    done = api.post("/auth/password/reset", json={"token": secret, "password": ANOTHER})

    assert done.status_code == 200
    assert me(api, headers).status_code == 401
    assert api.post("/login", json={"email": email, "password": PASSWORD}).status_code == 401
    login = api.post("/login", json={"email": email, "password": ANOTHER}).json()
    assert me(api, {"authorization": f"Bearer {login['token']}"}).json()["email_verified"] is True
    (told,) = post.letters(email)
    assert told["Subject"] == "Your password was changed"
    # And the secret is good once
    assert_error(
        api.post("/auth/password/reset", json={"token": secret, "password": PASSWORD}), 400, code="invalid_token"
    )
    assert "password.reset" in actions(api, login)


def test_asking_for_a_known_and_an_unknown_address_looks_alike_and_leaves_no_address(
    api, email, sign_up, post, database
):
    sign_up()
    post.letters(email)
    unknown = f"un{email}"

    answers = [api.post("/auth/password/forgot", json={"email": address}) for address in (email, unknown)]
    jobs = [job for address in (email, unknown) for job in forgotten(database, address)]

    assert answers[0].status_code == answers[1].status_code == 202
    assert answers[0].json() == answers[1].json()
    assert len(jobs) == 2
    assert (len(post.letters(email)), len(post.letters(unknown))) == (1, 0)
    assert forgotten(database, email) == forgotten(database, unknown) == []


def test_whoever_claimed_the_address_before_keeps_no_way_in_after_its_owner_has_reset_the_password(
    api, email, sign_up, post
):
    # Given somebody who signed up with an address that they don't read, and made themselves a key
    headers = sign_up()
    made = api.post("/v1/api_keys", headers=headers, json={"name": "a way back"})
    assert made.status_code == 201, made.text
    key = {"authorization": f"Bearer {made.json()['key']}"}
    assert me(api, key).status_code == 200
    post.letters(email)
    # When its owner resets the password
    api.post("/auth/password/forgot", json={"email": email})
    api.post("/auth/password/reset", json={"token": post.secret(email), "password": ANOTHER})
    # Then neither the session nor the key opens anything
    assert me(api, headers).status_code == me(api, key).status_code == 401


def test_asking_too_often_is_refused(api, email):
    answers = [api.post("/auth/password/forgot", json={"email": email}) for _ in range(12)]

    assert answers[0].status_code == 202
    assert_error(answers[-1], 429, code="too_many_attempts")
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_the_pages_that_links_lead_to_use_nothing_up(api, email, sign_up, post):
    sign_up()
    secret = post.secret(email)

    for page in ("verify", "reset", "invitation"):
        answer = api.get(f"/auth/{page}?token={secret}&utm_source=x")
        assert answer.status_code == 200
        assert "/pages/auth.js" in answer.text
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert api.get("/pages/auth.js").status_code == 200

    assert verify(api, secret).status_code == 200


def test_a_changed_password_is_told(api, email, sign_up, post):
    headers = sign_up()
    post.letters(email)

    body = {"current_password": PASSWORD, "new_password": ANOTHER}
    assert api.post("/auth/password/change", headers=headers, json=body).status_code == 200

    assert [letter["Subject"] for letter in post.letters(email)] == ["Your password was changed"]


def test_two_who_prove_one_address_at_once_are_one(api, email, sign_up, database):
    claimants = [me(api, sign_up(password)).json()["id"] for password in (PASSWORD, ANOTHER)]

    with database.transaction() as connection:
        assert [emails.prove(connection, claimant, email) for claimant in claimants] == [True, False]


def forgotten(database, address):
    statement = "SELECT id FROM jobs WHERE arguments ->> 'email' = %s"
    with database.connection() as connection:
        return all_of(connection, statement, (address,))


def actions(api, login):
    """What the account's admins see."""
    answer = api.get("/v1/audit_events", headers={"authorization": f"Bearer {login['token']}"})
    return [event["action"] for event in answer.json()["data"]]
