"""Given stored passwords, then only the right one matches, an unknown user takes as long, and some cores stay free."""

import threading
import unicodedata

import pytest
from argon2 import PasswordHasher

from models.platform.errors import InvalidRequest
from pipelines.accounts import passwords


def test_the_right_password_matches_and_a_wrong_one_does_not():
    stored = passwords.hash_password("correct horse")

    assert passwords.verify(stored, "correct horse")
    assert not passwords.verify(stored, "correct house")


def test_two_hashes_of_one_password_differ():
    assert passwords.hash_password("correct horse") != passwords.hash_password("correct horse")


def test_an_unknown_user_costs_a_hash_too(monkeypatch):
    verified = []
    monkeypatch.setattr(passwords, "_hasher", RecordingHasher(passwords._hasher, verified))

    assert not passwords.verify(None, "correct horse")
    assert len(verified) == 1


def test_a_damaged_hash_matches_nothing():
    assert not passwords.verify("nonsense", "correct horse")


def test_a_hash_with_old_parameters_needs_a_rehash():
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse")

    assert passwords.needs_rehash(old)
    assert passwords.verify(old, "correct horse")
    assert not passwords.needs_rehash(passwords.hash_password("correct horse"))


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_a_password_of_the_wrong_length_is_rejected(password):
    with pytest.raises(InvalidRequest) as caught:
        passwords.check_strength(password)

    assert caught.value.param == "password"


@pytest.mark.parametrize("password", ["password1", "PassWord123", "12345678", "iloveyou", "basketball", "zzzzzzzzzzzz"])
def test_a_common_password_is_rejected(password):
    with pytest.raises(InvalidRequest, match="too common"):
        passwords.check_strength(password)


@pytest.mark.parametrize("password", ["Somebody@Example.com", "my-own-address"])
def test_the_email_address_is_rejected_as_a_password(password):
    with pytest.raises(InvalidRequest, match="address") as caught:
        passwords.check_strength(
            password, email=password.lower() if "@" in password else f"{password}@example.com", param="new_password"
        )

    assert caught.value.param == "new_password"


@pytest.mark.parametrize("password", ["correct horse", "pässwörter", "x" * 1023 + "y", "password of mine"])
def test_an_uncommon_password_is_accepted(password):
    passwords.check_strength(password, email="somebody@example.com")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_password_matches_in_any_unicode_form(form):
    stored = passwords.hash_password(unicodedata.normalize(form, "größere Hüte"))

    assert all(passwords.verify(stored, unicodedata.normalize(other, "größere Hüte")) for other in ("NFC", "NFD"))


def test_a_combining_accent_does_not_count_as_a_character():
    with pytest.raises(InvalidRequest):
        passwords.check_strength(unicodedata.normalize("NFD", "äöüäöü"))


@pytest.mark.parametrize("work", [passwords.hash_password, lambda password: passwords.verify(None, password)])
def test_a_hash_waits_while_others_take_all_places(work, monkeypatch):
    # Given one place, which a hash has taken
    place, order = threading.Semaphore(0), []
    monkeypatch.setattr(passwords, "_cores", place)
    monkeypatch.setattr(passwords, "_hasher", OrderHasher(order))
    waiting = threading.Thread(target=work, args=["correct horse"])
    waiting.start()

    # When that hash ends
    order.append("earlier hash")
    place.release()
    waiting.join()

    # Then the next one is computed, and returns the place
    assert order == ["earlier hash", "hash"]
    assert place.acquire(blocking=False)


class OrderHasher:
    """A hasher that records when it hashes."""

    def __init__(self, order):
        self.order = order

    def hash(self, password):
        self.order.append("hash")
        return "hash"

    def verify(self, stored, password):
        self.order.append("hash")
        return True


class RecordingHasher:
    """A hasher that records the hashes that it verifies."""

    def __init__(self, hasher, calls):
        self.hasher, self.calls = hasher, calls

    def verify(self, stored, password):
        self.calls.append(stored)
        return self.hasher.verify(stored, password)
