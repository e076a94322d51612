"""Given passwords, when they are stored and checked, then only the right one holds, and a stranger costs as much."""

import unicodedata

import pytest
from argon2 import PasswordHasher

from models.platform.errors import InvalidRequest
from pipelines.accounts import passwords


def test_the_right_password_holds_and_a_wrong_one_does_not():
    stored = passwords.hash_password("correct horse")

    assert passwords.verify(stored, "correct horse")
    assert not passwords.verify(stored, "correct house")


def test_two_hashes_of_one_password_differ():
    assert passwords.hash_password("correct horse") != passwords.hash_password("correct horse")


def test_nobody_has_no_password_yet_is_hashed(monkeypatch):
    checked = []
    monkeypatch.setattr(passwords, "_hasher", Spy(passwords._hasher, checked))

    assert not passwords.verify(None, "correct horse")
    assert len(checked) == 1


def test_a_damaged_hash_lets_nobody_in():
    assert not passwords.verify("nonsense", "correct horse")


def test_old_parameters_are_noticed():
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse")

    assert passwords.needs_rehash(old)
    assert passwords.verify(old, "correct horse")
    assert not passwords.needs_rehash(passwords.hash_password("correct horse"))


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_weak_and_endless_passwords_are_refused(password):
    with pytest.raises(InvalidRequest) as caught:
        passwords.check_strength(password)

    assert caught.value.param == "password"


@pytest.mark.parametrize("password", ["password1", "PassWord123", "12345678", "iloveyou", "basketball", "zzzzzzzzzzzz"])
def test_the_commonest_passwords_are_refused(password):
    with pytest.raises(InvalidRequest, match="first that anybody would try"):
        passwords.check_strength(password)


@pytest.mark.parametrize("password", ["Somebody@Example.com", "my-own-address"])
def test_the_address_is_no_password(password):
    with pytest.raises(InvalidRequest, match="address") as caught:
        passwords.check_strength(
            password, email=password.lower() if "@" in password else f"{password}@example.com", param="new_password"
        )

    assert caught.value.param == "new_password"


@pytest.mark.parametrize("password", ["correct horse", "pässwörter", "x" * 1023 + "y", "password of mine"])
def test_other_passwords_pass(password):
    passwords.check_strength(password, email="somebody@example.com")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_password_holds_however_the_keyboard_composes_it(form):
    stored = passwords.hash_password(unicodedata.normalize(form, "größere Hüte"))

    assert all(passwords.verify(stored, unicodedata.normalize(other, "größere Hüte")) for other in ("NFC", "NFD"))


def test_an_accent_does_not_make_a_password_longer():
    with pytest.raises(InvalidRequest):
        passwords.check_strength(unicodedata.normalize("NFD", "äöüäöü"))


class Spy:
    """A hasher that remembers what it was asked."""

    def __init__(self, hasher, calls):
        self.hasher, self.calls = hasher, calls

    def verify(self, stored, password):
        self.calls.append(stored)
        return self.hasher.verify(stored, password)
