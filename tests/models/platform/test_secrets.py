"""Create and read the secret key, and encrypt with it."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.exceptions import InvalidTag

from models.platform.errors import ConfigurationError
from models.platform.secrets import Cipher, load_secret_key
from models.platform.settings import Settings


def test_the_variable_takes_precedence(tmp_path):
    settings = Settings(data_dir=tmp_path, secret_key="sixteen letters or more")

    assert load_secret_key(settings) == b"sixteen letters or more"
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_generated_once_and_kept(tmp_path):
    settings = Settings(data_dir=tmp_path / "new" / "folder")

    assert load_secret_key(settings) == load_secret_key(settings)
    assert len(load_secret_key(settings)) >= 32
    assert stat.S_IMODE((settings.home / "secret_key").stat().st_mode) == 0o600
    assert [path.name for path in settings.home.iterdir()] == ["secret_key"]


def test_concurrent_processes_get_the_same_key(tmp_path):
    settings = Settings(data_dir=tmp_path)

    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_secret_key(settings), range(64)))

    assert len(keys) == 1


def test_a_damaged_file_is_not_replaced(tmp_path):
    (tmp_path / "secret_key").write_bytes(b"")

    with pytest.raises(ConfigurationError, match="secret_key"):
        load_secret_key(Settings(data_dir=tmp_path))


def test_a_folder_that_cannot_be_written_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="SANGHA_SECRET_KEY"):
        load_secret_key(Settings(data_dir=tmp_path / "file" / "below"))


def test_a_text_is_decrypted_only_with_its_secret_purpose_and_associated_data():
    encrypted = Cipher(b"a secret", "tests").encrypt(b"a text", b"acct_1")

    assert b"a text" not in encrypted
    assert Cipher(b"a secret", "tests").decrypt(encrypted, b"acct_1") == b"a text"
    for cipher, associated_data in (
        (Cipher(b"a secret", "tests"), b"acct_2"),
        (Cipher(b"a secret", "other"), b"acct_1"),
        (Cipher(b"another secret", "tests"), b"acct_1"),
    ):
        with pytest.raises(InvalidTag):
            cipher.decrypt(encrypted, associated_data)


@pytest.mark.parametrize("secret", ["a" * 64, "passwordpassword", "change-me-please", "0101010101010101010101"])
def test_a_secret_that_can_be_guessed_is_rejected_with_the_name_of_its_variable(tmp_path, secret):
    with pytest.raises(ConfigurationError, match="SANGHA_SECRET_KEY") as error:
        load_secret_key(Settings(data_dir=tmp_path, secret_key=secret))
    assert secret not in str(error.value)
