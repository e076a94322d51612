"""`/auth/oidc` with a real provider in a process of its own, and browsers with cookies.

A login succeeds only in the browser that started it, with what the provider signed for it.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx
import pytest

from models.accounts import accounts, emails, invitations
from models.accounts.accounts import Role
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.oidc_providers import OidcProvider
from models.platform.settings import Settings
from tests.web.api_client import assert_error, run_server
from web.app import build


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The URL of a running provider."""
    command = [sys.executable, str(Path(__file__).parents[2] / "oidc_provider.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


@pytest.fixture(scope="module")
def api(settings: Settings, provider: str) -> Iterator[httpx.Client]:
    """A client of the application with two valid providers, one with a wrong issuer, forgers, and one that is down."""
    providers = (
        OidcProvider("first", provider, "sangha", "a secret", title="The First"),
        OidcProvider("second", provider, "sangha", "a secret"),
        OidcProvider("wrong_issuer", provider + "/", "sangha", "a secret"),
        *(OidcProvider(forger, provider, forger, "a secret") for forger in ("none", "hmac", "altered")),
        OidcProvider("down", "http://127.0.0.1:9", "sangha"),
    )
    changes = {
        "broker_url": f"{settings.redis_address}?db=9",
        "oidc_providers": providers,
        "visits_per_minute": 100_000,
    }
    app = build(settings.model_copy(update=changes))
    with run_server(app) as (_, client):
        client.app = app  # type: ignore[attr-defined]
        yield client


class Browser:
    """A browser with its own cookies."""

    def __init__(self, api: httpx.Client, provider: str) -> None:
        self.provider = provider
        self.client = httpx.Client(base_url=api.base_url, timeout=20)

    def start_login(self, at: str = "first", **changes: str | None) -> str:
        """Start a login; returns the URL of the redirect to the provider, with `changes` of its query."""
        answer = self.client.get(f"/auth/oidc/{at}")
        assert answer.status_code == 302, answer.text
        authorization_url = urlsplit(answer.headers["location"])
        query = {key: values[0] for key, values in parse_qs(authorization_url.query).items()} | changes
        return urlunsplit(
            authorization_url._replace(query=urlencode({key: value for key, value in query.items() if value}))
        )

    def approve(self, authorization_url: str, subject: str, **claims: object) -> str:
        """Log in at the provider; returns path and query of its redirect, without the test's host."""
        httpx.put(f"{self.provider}/users/{subject}", json=claims).raise_for_status()
        return self._submit(authorization_url, {"sub": subject})

    def deny(self, authorization_url: str) -> str:
        """Deny the login at the provider; returns path and query of its redirect."""
        return self._submit(authorization_url, {"action": "deny"})

    def open_callback(self, callback_url: str) -> dict[str, str]:
        """Open the callback URL; returns the parameters in the fragment of the redirect to the page."""
        answer = self.client.get(callback_url)
        assert answer.status_code == 302, answer.text
        authorization_url = urlsplit(answer.headers["location"])
        assert (authorization_url.scheme, authorization_url.netloc, authorization_url.path) == ("", "", "/")
        return {key: values[0] for key, values in parse_qs(authorization_url.fragment).items()}

    def exchange(self, code: str) -> httpx.Response:
        """Exchange a login code, as the page does."""
        return self.client.post("/auth/oidc/exchange", json={"code": code})

    def log_in(self, subject: str, at: str = "first", **claims: object) -> httpx.Response:
        """Log in completely; returns the response with the tokens."""
        fragment = self.open_callback(self.approve(self.start_login(at), subject, **claims))
        assert "login" in fragment, fragment
        return self.exchange(fragment["login"])

    @staticmethod
    def _submit(authorization_url: str, form: dict[str, str]) -> str:
        answer = httpx.post(authorization_url, data=form)
        assert answer.status_code in (302, 303), answer.text
        back = urlsplit(answer.headers["location"])
        return f"{back.path}?{back.query}"


@pytest.fixture
def browser(api: httpx.Client, provider: str) -> Iterator[Browser]:
    """A browser."""
    browser = Browser(api, provider)
    with browser.client:
        yield browser


@pytest.fixture
def other_browser(api: httpx.Client, provider: str) -> Iterator[Browser]:
    """The browser of somebody else."""
    browser = Browser(api, provider)
    with browser.client:
        yield browser


def new_identity() -> tuple[str, str]:
    """Return a new subject and a new e-mail address."""
    return new_id("sub"), f"{new_id('me')}@example.com"


def test_providers_are_listed_and_an_unknown_one_is_not_found(api):
    providers = api.get("/auth/oidc").json()["data"]
    assert providers[:2] == [
        {"id": "first", "object": "oidc.provider", "name": "The First"},
        {"id": "second", "object": "oidc.provider", "name": "Second"},
    ]
    assert_error(api.get("/auth/oidc/third"), 404, param="provider")


def test_first_login_creates_a_user_with_the_verified_address(browser, api):
    # Given a user whose address the provider has verified
    subject, email = new_identity()
    # When they log in
    answer = browser.log_in(subject, email=email.upper(), email_verified=True, name="Ada")
    # Then they have a session and the verified address
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    me = api.get("/v1/me", headers={"authorization": f"Bearer {tokens['token']}"}).json()
    assert me["email"].lower() == email
    assert me["email_verified"] is True
    assert me["name"] == "Ada"
    assert api.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    # And when they log in again with another address, they are the same user
    again = browser.log_in(subject, email=new_identity()[1], email_verified=True).json()
    assert again["user"]["id"] == tokens["user"]["id"]


def test_redirect_to_the_provider_has_state_nonce_and_challenge_only(browser):
    # When a login is started with parameters for a redirect to another site
    answer = browser.client.get("/auth/oidc/first", params={"next": "https://evil.example", "redirect_uri": "//evil"})
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    # Then the redirect has a state, a nonce and a challenge, and returns to this server
    assert query["code_challenge_method"] == ["S256"]
    assert len(query["state"][0]) >= 20
    assert len(query["nonce"][0]) >= 20
    assert urlsplit(query["redirect_uri"][0]).path == "/auth/oidc/first/callback"
    assert "evil" not in answer.headers["location"]
    # And the login cookie is not sent to scripts or with requests of other sites
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=lax", "path=/auth/oidc", "max-age=600"))
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_verified_address_logs_in_the_user_who_verified_it(browser, database: Database):
    # Given a user with a verified address
    subject, email = new_identity()
    with database.transaction() as connection:
        member = accounts.create(connection, email=email, password_hash=None)
        assert emails.verify(connection, member.user_id, email)
    # When a login has the same address, verified by the provider, then it is that user
    tokens = browser.log_in(subject, email=email, email_verified=True).json()
    assert tokens["user"]["id"] == member.user_id


def test_verified_address_is_taken_from_an_unverified_user(browser, database: Database):
    # Given a user who signed up with the address of somebody else
    subject, email = new_identity()
    with database.transaction() as connection:
        squatter = accounts.create(connection, email=email, password_hash=None)
    # When its owner logs in with the address, verified by the provider
    tokens = browser.log_in(subject, email=email, email_verified=True).json()
    # Then they are another user, who has the address, and the squatter has lost it
    assert tokens["user"]["id"] != squatter.user_id
    with database.connection() as connection:
        assert emails.find_owner(connection, email).id == tokens["user"]["id"]
        assert [user.id for user in accounts.login_candidates(connection, email)] == [tokens["user"]["id"]]


@pytest.mark.parametrize("claim", [{"email_verified": False}, {}, {"email_verified": "yes"}])
def test_unverified_address_of_a_login_is_not_linked_to_its_user(browser, database: Database, claim):
    # Given a user with a verified address
    subject, email = new_identity()
    with database.transaction() as connection:
        member = accounts.create(connection, email=email, password_hash=None)
        emails.verify(connection, member.user_id, email)
    # When a login has the address, not verified by the provider
    tokens = browser.log_in(subject, email=email, **claim).json()
    # Then it is another user, and the address stays with its user
    assert tokens["user"]["id"] != member.user_id
    with database.connection() as connection:
        assert emails.find_owner(connection, email).id == member.user_id


def test_address_is_verified_once_the_provider_has_verified_it(browser, database: Database):
    # Given a user who logged in before the provider had verified their address
    subject, email = new_identity()
    first = browser.log_in(subject, email=email).json()
    # When they log in again afterwards
    again = browser.log_in(subject, email=email, email_verified=True).json()
    # Then they are the same user, with the verified address
    assert again["user"]["id"] == first["user"]["id"]
    with database.connection() as connection:
        assert emails.owns(connection, first["user"]["id"], email)


def test_same_subject_at_two_providers_is_two_users(browser):
    # Given two providers with the same subject for different people
    subject, _ = new_identity()
    first = browser.log_in(subject, "first", email=new_identity()[1], email_verified=True).json()
    second = browser.log_in(subject, "second", email=new_identity()[1], email_verified=True).json()
    # When both have logged in, then they are two users
    assert first["user"]["id"] != second["user"]["id"]


def test_login_without_an_address_fails(browser):
    assert browser.open_callback(browser.approve(browser.start_login(), new_identity()[0])) == {
        "login_error": "email_missing"
    }


def test_state_is_valid_once(browser):
    # Given a completed login whose cookie was kept
    subject, email = new_identity()
    callback_url = browser.approve(browser.start_login(), subject, email=email, email_verified=True)
    cookie = browser.client.cookies["sangha_login"]
    assert "login" in browser.open_callback(callback_url)
    # When the callback URL is opened again, without the cookie and with it
    assert browser.open_callback(callback_url) == {"login_error": "login_expired"}
    browser.client.cookies.set("sangha_login", cookie, path="/auth/oidc")
    # Then the login has expired
    assert browser.open_callback(callback_url) == {"login_error": "login_expired"}


def test_state_is_valid_only_in_its_own_browser(browser, other_browser):
    # Given an attacker's callback URL that was not opened, and a victim with a login in progress
    subject, email = new_identity()
    callback_url = browser.approve(browser.start_login(), subject, email=email, email_verified=True)
    other_browser.start_login()
    # When the victim's browser opens the attacker's URL
    # Then nobody is logged in
    assert other_browser.open_callback(callback_url) == {"login_error": "login_expired"}


def test_state_is_valid_only_for_its_own_provider(browser):
    # Given a callback URL of one provider that is changed to another provider's
    subject, email = new_identity()
    callback_url = browser.approve(browser.start_login("first"), subject, email=email, email_verified=True)
    assert browser.open_callback(callback_url.replace("/first/", "/second/")) == {"login_error": "login_expired"}


def test_forged_cookie_is_rejected(browser):
    browser.start_login()
    browser.client.cookies.set("sangha_login", "e30.forged.cookie", path="/auth/oidc")
    assert browser.open_callback("/auth/oidc/first/callback?code=x&state=y") == {"login_error": "login_expired"}


@pytest.mark.parametrize("nonce", [None, "another-nonce-of-somebody-elses"])
def test_id_token_of_another_login_is_rejected(browser, nonce):
    # Given an ID token with the nonce of another login, or without one
    subject, email = new_identity()
    callback_url = browser.approve(browser.start_login(nonce=nonce), subject, email=email, email_verified=True)
    # When the code is used, then nobody is logged in
    assert browser.open_callback(callback_url) == {"login_error": "provider_failed"}


@pytest.mark.parametrize("forger", ["none", "hmac", "altered"])
def test_id_token_without_the_providers_signature_is_rejected(browser, forger):
    # Given an ID token without a signature, signed with the client secret, or with altered claims
    subject, email = new_identity()
    callback_url = browser.approve(browser.start_login(forger), subject, email=email, email_verified=True)
    # When the code is used, then nobody is logged in
    assert browser.open_callback(callback_url) == {"login_error": "provider_failed"}


def test_code_of_another_login_is_rejected(browser, other_browser):
    # Given an attacker's code, and a victim's state
    subject, email = new_identity()
    attackers_code = parse_qs(
        urlsplit(other_browser.approve(other_browser.start_login(), subject, email=email, email_verified=True)).query
    )["code"][0]
    victims_state = parse_qs(urlsplit(browser.start_login()).query)["state"][0]
    # When the code is put into the victim's callback URL, then nobody is logged in
    fragment = browser.open_callback(
        f"/auth/oidc/first/callback?{urlencode({'code': attackers_code, 'state': victims_state})}"
    )
    assert fragment == {"login_error": "provider_failed"}


def test_changed_pkce_challenge_is_rejected(browser):
    # Given a redirect whose challenge was changed
    subject, email = new_identity()
    callback_url = browser.approve(
        browser.start_login(code_challenge="a" * 43), subject, email=email, email_verified=True
    )
    assert browser.open_callback(callback_url) == {"login_error": "provider_failed"}


def test_denied_login_reports_only_known_reasons(browser):
    assert browser.open_callback(browser.deny(browser.start_login())) == {"login_error": "access_denied"}
    fragment = browser.open_callback("/auth/oidc/first/callback?error=<script>&error_description=https://evil.example")
    assert fragment == {"login_error": "provider_failed"}


@pytest.mark.parametrize("name", ["wrong_issuer", "down"])
def test_provider_with_a_wrong_issuer_or_no_answer_is_unavailable(browser, name):
    # When a provider has another issuer or does not answer, then there is no redirect to it
    assert browser.open_callback(f"/auth/oidc/{name}") == {"login_error": "provider_unavailable"}


def test_login_code_is_valid_once_and_only_in_its_own_browser(browser, other_browser, api):
    # Given two browsers with a login code each
    fragment = browser.open_callback(
        browser.approve(browser.start_login(), new_identity()[0], email=new_identity()[1], email_verified=True)
    )
    other_fragment = other_browser.open_callback(
        other_browser.approve(
            other_browser.start_login(), new_identity()[0], email=new_identity()[1], email_verified=True
        )
    )
    # When a code is exchanged in another browser, again, or made up
    assert_error(other_browser.exchange(fragment["login"]), 401, code="invalid_code")
    assert_error(browser.exchange(fragment["login"]), 401, code="invalid_code")
    assert_error(api.post("/auth/oidc/exchange", json={"code": "made up"}), 401, code="invalid_code")
    # Then it is rejected, while the other browser's own code is valid once
    assert other_browser.exchange(other_fragment["login"]).status_code == 200
    assert_error(other_browser.exchange(other_fragment["login"]), 401, code="invalid_code")


def test_two_concurrent_first_logins_create_one_user(browser, other_browser, database: Database):
    # Given two browsers of one new person
    subject, email = new_identity()
    callbacks = [
        (current, current.approve(current.start_login(), subject, email=email, email_verified=True))
        for current in (browser, other_browser)
    ]
    # When both open their callback URLs at the same time
    with ThreadPoolExecutor() as threads:
        fragments = list(threads.map(lambda callback: callback[0].open_callback(callback[1]), callbacks))
    users = {
        current.exchange(fragment["login"]).json()["user"]["id"]
        for (current, _), fragment in zip(callbacks, fragments, strict=True)
    }
    # Then they are one user
    assert len(users) == 1


@pytest.fixture(scope="module")
def invited_api(settings: Settings, provider: str) -> Iterator[httpx.Client]:
    """A client of an application that only invited people sign up to."""
    changes = {
        "broker_url": f"{settings.redis_address}?db=9",
        "oidc_providers": (OidcProvider("first", provider, "sangha", "a secret"),),
        "signup": "invited",
    }
    with run_server(build(settings.model_copy(update=changes))) as (_, client):
        yield client


@pytest.fixture
def guest(invited_api: httpx.Client, provider: str) -> Iterator[Browser]:
    """A browser of that application."""
    browser = Browser(invited_api, provider)
    yield browser
    browser.client.close()


def invite(database: Database, email: str, *, state: str | None = None) -> str:
    """Invite an address to a new account; `state` is a column with the time at which it ended. Returns the account."""
    with database.transaction() as connection:
        inviter = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        invitation_id = new_id("inv")
        invitations.create(
            connection, invitation_id, inviter.account_id, email=email, role=Role.MEMBER, invited_by=inviter.user_id
        )
        if state is not None:
            connection.execute(
                f"UPDATE invitations SET {state} = now() - interval '1 minute' WHERE id = %s", (invitation_id,)
            )
    return inviter.account_id


def test_an_invited_person_without_a_password_joins_the_account_by_oidc(guest, database):
    # Given an invitation to an address
    email, subject = f"{new_id('guest')}@example.com", new_id("subject")
    account_id = invite(database, email)

    # When its owner logs in twice
    logins = [guest.log_in(subject, email=email.upper(), email_verified=True).json() for _ in range(2)]

    # Then they are a member of that account only, and the invitation is used up
    assert [login["account"] for login in logins] == 2 * [{"id": account_id, "role": "member"}]
    with database.connection() as connection:
        assert len(accounts.memberships(connection, logins[0]["user"]["id"])) == 1
        assert invitations.find_by_address(connection, email) is None


@pytest.mark.parametrize(
    ("verified", "state", "same"),
    [
        (False, None, True),
        (True, "revoked_at", True),
        (True, "expires_at", True),
        (True, "accepted_at", True),
        (True, None, False),
    ],
)
def test_an_invitation_admits_only_its_verified_address_while_it_is_valid(guest, database, verified, state, same):
    email = f"{new_id('guest')}@example.com"
    account_id = invite(database, email if same else f"x{email}", state=state)

    callback = guest.approve(guest.start_login(), new_id("subject"), email=email, email_verified=verified)

    assert guest.open_callback(callback) == {"login_error": "invitation_required"}
    with database.connection() as connection:
        members = connection.execute("SELECT FROM memberships WHERE account_id = %s", (account_id,)).rowcount
    assert members == 1
