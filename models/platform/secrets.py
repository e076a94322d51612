"""The secret key of the installation, from which all signing and encryption keys are derived, and hashes of secrets."""

import hashlib
import math
import os
import secrets
import tempfile
from collections import Counter
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings

#: Random bytes of a generated secret.
STRENGTH = 32

#: Bits of SANGHA_SECRET_KEY as estimated from its characters: an upper bound, so that it refuses only bad ones.
MIN_BITS = 60

FILE = "secret_key"


def load_secret_key(settings: Settings) -> bytes:
    """Return SANGHA_SECRET_KEY, or the key that is generated once into the data folder.

    Machines that serve one installation need the same key, and so the variable. Raises ConfigurationError if the file
    cannot be written or does not contain a key.
    """
    if settings.secret_key is not None:
        _check_strength(settings.secret_key)
        return settings.secret_key.encode()
    path = settings.home / FILE
    try:
        return _read(path) or _create(path)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot store the secret key in {path}: {error.strerror}. Set SANGHA_SECRET_KEY."
        ) from error


def _check_strength(secret: str) -> None:
    """Raise ConfigurationError for a secret that may be guessed offline from a token: repeated or common text."""
    bits = len(secret) * _entropy(secret)
    if bits < MIN_BITS:
        message = f"SANGHA_SECRET_KEY is too weak: about {bits:.0f} bits, and at least {MIN_BITS} are needed."
        raise ConfigurationError(f"{message} Generate one, for example with `openssl rand -hex 32`.")


def _entropy(text: str) -> float:
    """Return the entropy of the distribution of the text's characters, in bits per character (Shannon 1948)."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)


def _read(path: Path) -> bytes | None:
    try:
        key = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    if len(key) < STRENGTH:
        raise ConfigurationError(
            f"{path} does not contain a secret key. Restore it, or delete it to log out all users."
        )
    return key


def _create(path: Path) -> bytes:
    """Write a temporary file and link it to its path: of two concurrent processes the first one's key is kept."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{FILE}-")  # mkstemp creates it with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(STRENGTH).encode())
            file.flush()
            os.fsync(descriptor)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
    return path.read_bytes()


#: Bytes of AES-GCM's nonce (NIST SP 800-38D, 8.2). Random, for far fewer than 2³² messages per key.
NONCE = 12


class Cipher:
    """Encrypts stored data that may contain secrets: AES-256-GCM, with a key derived from the installation's secret."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        key = HKDF(SHA256(), length=32, salt=None, info=f"sangha seal, {purpose}".encode()).derive(secret)
        self._cipher = AESGCM(key)

    def encrypt(self, text: bytes, associated_data: bytes) -> bytes:
        """Encrypt a text and authenticate `associated_data` with it."""
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, text, associated_data)

    def decrypt(self, encrypted: bytes, associated_data: bytes) -> bytes:
        """Decrypt a text. Raises cryptography.exceptions.InvalidTag if it or `associated_data` was changed."""
        return self._cipher.decrypt(encrypted[:NONCE], encrypted[NONCE:], associated_data)


def hash_secret(secret: str) -> bytes:
    """Return the SHA-256 of a random secret, which is stored in its place. It has 256 random bits and cannot be
    guessed.

    Lookups need not take constant time: timing reveals bits of the hash, which do not help to find the secret.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
