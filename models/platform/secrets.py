"""The installation's one secret: every key that Sangha signs or seals with is derived from it."""

import hashlib
import os
import secrets
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings

#: Bytes of randomness in a generated secret.
STRENGTH = 32

FILE = "secret_key"


def load_secret_key(settings: Settings) -> bytes:
    """SANGHA_SECRET_KEY, or a key generated once into the data folder.

    Two machines that serve one installation need the same key, and so the variable. Raises ConfigurationError when
    the file can't be written or does not hold a key.
    """
    if settings.secret_key is not None:
        return settings.secret_key.encode()
    path = settings.home / FILE
    try:
        return _read(path) or _create(path)
    except OSError as error:
        raise ConfigurationError(
            f"The secret key {path} can't be kept: {error.strerror}; set SANGHA_SECRET_KEY"
        ) from error


def _read(path: Path) -> bytes | None:
    try:
        key = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    if len(key) < STRENGTH:
        raise ConfigurationError(f"{path} does not hold a secret key; put it back, or remove it to log everyone out")
    return key


def _create(path: Path) -> bytes:
    """Write the file beside its place, then link it there: of two processes at once the first one's key stands."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{FILE}-")  # mkstemp gives it mode 0600
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


#: Bytes of AES-GCM's nonce (NIST SP 800-38D, 8.2); random, for far fewer than 2³² messages a key.
NONCE = 12


class Cipher:
    """Seals what is stored and may show a secret: AES-256-GCM, with a key derived from the installation's secret."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        key = HKDF(SHA256(), length=32, salt=None, info=f"sangha seal, {purpose}".encode()).derive(secret)
        self._cipher = AESGCM(key)

    def encrypt(self, text: bytes, about: bytes) -> bytes:
        """Seal a text, bound to what it is about."""
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, text, about)

    def decrypt(self, sealed: bytes, about: bytes) -> bytes:
        """The text. Raises cryptography.exceptions.InvalidTag when it is not ours, or about something else."""
        return self._cipher.decrypt(sealed[:NONCE], sealed[NONCE:], about)


def hash_secret(secret: str) -> bytes:
    """What is stored of a random secret: SHA-256, since there is nothing to guess.

    Looking it up need not take constant time: time tells of the hash, and who can't invert SHA-256 learns nothing of
    256 random bits from it.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
