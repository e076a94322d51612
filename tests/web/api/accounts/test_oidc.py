"""Logging in at an OIDC provider: a real one, in a process of its own, and browsers with cookies.

Given somebody who has been at the provider, when they come back in the browser that they left with, then they have a
session; and nobody else has.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx
import pytest

from models.accounts import accounts, emails
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.oidc_providers import OidcProvider
from models.platform.settings import Settings
from tests.web.api_client import assert_error, run_server
from web.app import build


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Where a provider answers."""
    command = [sys.executable, str(Path(__file__).parents[2] / "oidc_provider.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


@pytest.fixture(scope="module")
def api(settings: Settings, provider: str) -> Iterator[httpx.Client]:
    """The whole door, which takes the word of two providers, and knows of a third one that is not what it says."""
    known = (
        OidcProvider("first", provider, "sangha", "a secret", title="The First"),
        OidcProvider("second", provider, "sangha", "a secret"),
        OidcProvider("liar", provider + "/", "sangha", "a secret"),
        *(OidcProvider(forger, provider, forger, "a secret") for forger in ("none", "hmac", "altered")),
        OidcProvider("away", "http://127.0.0.1:9", "sangha"),
    )
    changes = {"broker_url": f"{settings.redis_address}?db=9", "oidc_providers": known, "visits_per_minute": 100_000}
    app = build(settings.model_copy(update=changes))
    with run_server(app) as (_, client):
        client.app = app  # type: ignore[attr-defined]
        yield client


class Browser:
    """A browser of somebody's, with cookies of its own."""

    def __init__(self, api: httpx.Client, provider: str) -> None:
        self.provider = provider
        self.client = httpx.Client(base_url=api.base_url, timeout=20)

    def leave(self, at: str = "first", **changes: str | None) -> str:
        """Where the door sends the browser; `changes` are what somebody on the way does to the address."""
        answer = self.client.get(f"/auth/oidc/{at}")
        assert answer.status_code == 302, answer.text
        there = urlsplit(answer.headers["location"])
        query = {key: values[0] for key, values in parse_qs(there.query).items()} | changes
        return urlunsplit(there._replace(query=urlencode({key: value for key, value in query.items() if value})))

    def agree(self, there: str, subject: str, **claims: object) -> str:
        """Log in at the provider; returns where it sends the browser, without the host, which is a test's own."""
        httpx.put(f"{self.provider}/users/{subject}", json=claims).raise_for_status()
        return self._answer(there, {"sub": subject})

    def deny(self, there: str) -> str:
        """Say no at the provider."""
        return self._answer(there, {"action": "deny"})

    def come_back(self, here: str) -> dict[str, str]:
        """What the page is told in the fragment."""
        answer = self.client.get(here)
        assert answer.status_code == 302, answer.text
        there = urlsplit(answer.headers["location"])
        assert (there.scheme, there.netloc, there.path) == ("", "", "/")
        return {key: values[0] for key, values in parse_qs(there.fragment).items()}

    def exchange(self, code: str) -> httpx.Response:
        """What the page does with its code."""
        return self.client.post("/auth/oidc/exchange", json={"code": code})

    def log_in(self, subject: str, at: str = "first", **claims: object) -> httpx.Response:
        """All of it."""
        told = self.come_back(self.agree(self.leave(at), subject, **claims))
        assert "login" in told, told
        return self.exchange(told["login"])

    @staticmethod
    def _answer(there: str, form: dict[str, str]) -> str:
        answer = httpx.post(there, data=form)
        assert answer.status_code in (302, 303), answer.text
        back = urlsplit(answer.headers["location"])
        return f"{back.path}?{back.query}"


@pytest.fixture
def browser(api: httpx.Client, provider: str) -> Iterator[Browser]:
    """Somebody's browser."""
    browser = Browser(api, provider)
    with browser.client:
        yield browser


@pytest.fixture
def other(api: httpx.Client, provider: str) -> Iterator[Browser]:
    """Somebody else's browser."""
    browser = Browser(api, provider)
    with browser.client:
        yield browser


def somebody() -> tuple[str, str]:
    """A subject and an address that nobody has."""
    return new_id("sub"), f"{new_id('me')}@example.com"


def test_page_hears_of_the_providers(api):
    told = api.get("/auth/oidc").json()["data"]
    assert told[:2] == [
        {"id": "first", "object": "oidc.provider", "name": "The First"},
        {"id": "second", "object": "oidc.provider", "name": "Second"},
    ]
    assert_error(api.get("/auth/oidc/third"), 404, param="provider")


def test_somebody_new_gets_a_user_who_holds_the_address(browser, api):
    # Given somebody with an address that the provider has verified
    subject, email = somebody()
    # When they log in
    answer = browser.log_in(subject, email=email.upper(), email_verified=True, name="Ada")
    # Then they have a session, and the address is theirs
    assert answer.status_code == 200, answer.text
    told = answer.json()
    me = api.get("/v1/me", headers={"authorization": f"Bearer {told['token']}"}).json()
    assert me["email"].lower() == email
    assert me["email_verified"] is True
    assert me["name"] == "Ada"
    assert api.post("/auth/refresh", json={"refresh_token": told["refresh_token"]}).status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    # And when they come again with another address, they are the same
    again = browser.log_in(subject, email=somebody()[1], email_verified=True).json()
    assert again["user"]["id"] == told["user"]["id"]


def test_leaving_says_what_the_provider_must_know_and_no_more(browser):
    # When somebody leaves for the provider, asking to be sent elsewhere afterwards
    answer = browser.client.get("/auth/oidc/first", params={"next": "https://evil.example", "redirect_uri": "//evil"})
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    # Then the provider hears of a state, a nonce and a challenge, and is to send them to us
    assert query["code_challenge_method"] == ["S256"]
    assert len(query["state"][0]) >= 20
    assert len(query["nonce"][0]) >= 20
    assert urlsplit(query["redirect_uri"][0]).path == "/auth/oidc/first/callback"
    assert "evil" not in answer.headers["location"]
    # And the cookie that waits for them is out of reach of scripts and of other sites' requests
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=lax", "path=/auth/oidc", "max-age=600"))
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_verified_address_links_to_the_user_who_has_proved_it(browser, database: Database):
    # Given a user who has proved an address
    subject, email = somebody()
    with database.transaction() as connection:
        member = accounts.create(connection, email=email, password_hash=None)
        assert emails.verify(connection, member.user_id, email)
    # When somebody comes with the provider's word for it, then that is who they are
    told = browser.log_in(subject, email=email, email_verified=True).json()
    assert told["user"]["id"] == member.user_id


def test_address_that_was_only_claimed_is_taken_over_and_not_linked(browser, database: Database):
    # Given somebody who signed up with an address that is not theirs, to wait for its owner
    subject, email = somebody()
    with database.transaction() as connection:
        squatter = accounts.create(connection, email=email, password_hash=None)
    # When its owner comes with the provider's word for it
    told = browser.log_in(subject, email=email, email_verified=True).json()
    # Then they are somebody else, the address is theirs, and the squatter's claim is over
    assert told["user"]["id"] != squatter.user_id
    with database.connection() as connection:
        assert emails.find_owner(connection, email).id == told["user"]["id"]
        assert [user.id for user in accounts.login_candidates(connection, email)] == [told["user"]["id"]]


@pytest.mark.parametrize("claim", [{"email_verified": False}, {}, {"email_verified": "yes"}])
def test_address_that_the_provider_has_not_verified_is_not_linked(browser, database: Database, claim):
    # Given a user who has proved an address
    subject, email = somebody()
    with database.transaction() as connection:
        member = accounts.create(connection, email=email, password_hash=None)
        emails.verify(connection, member.user_id, email)
    # When somebody claims it at a provider that has not looked
    told = browser.log_in(subject, email=email, **claim).json()
    # Then they are somebody else, and the address stays whose it was
    assert told["user"]["id"] != member.user_id
    with database.connection() as connection:
        assert emails.find_owner(connection, email).id == member.user_id


def test_address_is_proved_when_the_provider_has_verified_it_later(browser, database: Database):
    # Given somebody who came before their provider had verified their address
    subject, email = somebody()
    first = browser.log_in(subject, email=email).json()
    # When they come again after it has
    again = browser.log_in(subject, email=email, email_verified=True).json()
    # Then they are the same, and the address is theirs
    assert again["user"]["id"] == first["user"]["id"]
    with database.connection() as connection:
        assert emails.owns(connection, first["user"]["id"], email)


def test_same_subject_at_two_providers_is_two_people(browser):
    # Given two providers that call different people by the same name
    subject, _ = somebody()
    first = browser.log_in(subject, "first", email=somebody()[1], email_verified=True).json()
    second = browser.log_in(subject, "second", email=somebody()[1], email_verified=True).json()
    # When both have logged in, then they are two
    assert first["user"]["id"] != second["user"]["id"]


def test_provider_without_an_address_is_told_of(browser):
    assert browser.come_back(browser.agree(browser.leave(), somebody()[0])) == {"login_error": "email_missing"}


def test_state_is_good_once(browser):
    # Given somebody who has come back, and kept the cookie
    subject, email = somebody()
    here = browser.agree(browser.leave(), subject, email=email, email_verified=True)
    cookie = browser.client.cookies["sangha_login"]
    assert "login" in browser.come_back(here)
    # When the same address is opened again, with the cookie and without
    assert browser.come_back(here) == {"login_error": "login_expired"}
    browser.client.cookies.set("sangha_login", cookie, path="/auth/oidc")
    # Then it is over
    assert browser.come_back(here) == {"login_error": "login_expired"}


def test_state_is_good_in_its_own_browser_only(browser, other):
    # Given an attacker who stops before coming back, and a victim who is at the provider, too
    subject, email = somebody()
    here = browser.agree(browser.leave(), subject, email=email, email_verified=True)
    other.leave()
    # When the victim is made to open the attacker's address
    # Then nobody is logged in
    assert other.come_back(here) == {"login_error": "login_expired"}


def test_state_is_good_for_its_own_provider_only(browser):
    # Given somebody who comes back from one provider, and is made to look as if from another one
    subject, email = somebody()
    here = browser.agree(browser.leave("first"), subject, email=email, email_verified=True)
    assert browser.come_back(here.replace("/first/", "/second/")) == {"login_error": "login_expired"}


def test_forged_cookie_is_none(browser):
    browser.leave()
    browser.client.cookies.set("sangha_login", "e30.forged.cookie", path="/auth/oidc")
    assert browser.come_back("/auth/oidc/first/callback?code=x&state=y") == {"login_error": "login_expired"}


@pytest.mark.parametrize("nonce", [None, "another-nonce-of-somebody-elses"])
def test_id_token_of_another_login_is_refused(browser, nonce):
    # Given an ID token that was made for another login, or for none
    subject, email = somebody()
    here = browser.agree(browser.leave(nonce=nonce), subject, email=email, email_verified=True)
    # When it comes with the code, then nobody is logged in
    assert browser.come_back(here) == {"login_error": "provider_failed"}


@pytest.mark.parametrize("forger", ["none", "hmac", "altered"])
def test_id_token_that_the_provider_has_not_signed_is_refused(browser, forger):
    # Given an ID token without a signature, with one that the client could make, or with other claims than were signed
    subject, email = somebody()
    here = browser.agree(browser.leave(forger), subject, email=email, email_verified=True)
    # When it comes with the code, then nobody is logged in
    assert browser.come_back(here) == {"login_error": "provider_failed"}


def test_code_of_another_login_is_refused(browser, other):
    # Given an attacker's code, and a victim's state
    subject, email = somebody()
    stolen = parse_qs(urlsplit(other.agree(other.leave(), subject, email=email, email_verified=True)).query)["code"][0]
    mine = parse_qs(urlsplit(browser.leave()).query)["state"][0]
    # When the code is put into the victim's way back, then nobody is logged in
    told = browser.come_back(f"/auth/oidc/first/callback?{urlencode({'code': stolen, 'state': mine})}")
    assert told == {"login_error": "provider_failed"}


def test_pkce_is_held_to(browser):
    # Given somebody who changed the challenge on the way to the provider
    subject, email = somebody()
    here = browser.agree(browser.leave(code_challenge="a" * 43), subject, email=email, email_verified=True)
    assert browser.come_back(here) == {"login_error": "provider_failed"}


def test_no_is_no(browser):
    assert browser.come_back(browser.deny(browser.leave())) == {"login_error": "access_denied"}
    told = browser.come_back("/auth/oidc/first/callback?error=<script>&error_description=https://evil.example")
    assert told == {"login_error": "provider_failed"}


@pytest.mark.parametrize("name", ["liar", "away"])
def test_provider_that_is_not_what_the_settings_say_is_not_used(browser, name):
    # When a provider names itself otherwise, or does not answer, then nobody is sent there
    assert browser.come_back(f"/auth/oidc/{name}") == {"login_error": "provider_unavailable"}


def test_code_of_the_page_is_good_once_and_in_its_own_browser_only(browser, other, api):
    # Given somebody who came back, and another browser that came back too
    told = browser.come_back(browser.agree(browser.leave(), somebody()[0], email=somebody()[1], email_verified=True))
    others = other.come_back(other.agree(other.leave(), somebody()[0], email=somebody()[1], email_verified=True))
    # When the code is exchanged elsewhere, or again, or made up
    assert_error(other.exchange(told["login"]), 401, code="invalid_code")
    assert_error(browser.exchange(told["login"]), 401, code="invalid_code")
    assert_error(api.post("/auth/oidc/exchange", json={"code": "made up"}), 401, code="invalid_code")
    # Then it is of no use, while the other one's own is
    assert other.exchange(others["login"]).status_code == 200
    assert_error(other.exchange(others["login"]), 401, code="invalid_code")


def test_two_who_come_back_at_once_are_one_user(browser, other, database: Database):
    # Given two browsers of one person, new here
    subject, email = somebody()
    ways = [(each, each.agree(each.leave(), subject, email=email, email_verified=True)) for each in (browser, other)]
    # When both come back at the same moment
    with ThreadPoolExecutor() as threads:
        told = list(threads.map(lambda way: way[0].come_back(way[1]), ways))
    users = {each.exchange(word["login"]).json()["user"]["id"] for (each, _), word in zip(ways, told, strict=True)}
    # Then they are one
    assert len(users) == 1
