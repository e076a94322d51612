"""Load settings from the environment."""

from pathlib import Path
from stat import S_IMODE

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError
from redis.connection import parse_url

from models.platform.errors import ConfigurationError
from models.platform.secrets import load_secret_key
from models.platform.settings import MAX_SOCKET_FOLDER, Settings, load_settings, variable_name


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_name(field), raising=False)


def test_unset_and_empty_variables_select_the_embedded_servers(monkeypatch):
    monkeypatch.setenv("SANGHA_DATABASE_URL", "")

    settings = load_settings()

    assert settings == Settings()
    assert settings.postgres_dsn == f"postgresql://postgres@/sangha?host={settings.socket_dir}"
    assert settings.redis_address == settings.broker_address == f"unix://{settings.socket_dir}/valkey.sock"


def test_variables_are_read_and_the_command_line_takes_precedence(monkeypatch):
    given = {
        "SANGHA_DATABASE_URL": "postgresql://db/x",
        "SANGHA_REDIS_URL": "redis://r:6379/0",
        "SANGHA_BROKER_URL": "amqp://guest@mq//",
        "SANGHA_PORT": "8123",
        "SANGHA_SCRIPT": "tokens=7, rate=2.5,fail_at=3,trigger=boom",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    settings = load_settings(port=9000, data_dir=None)

    assert (settings.postgres_dsn, settings.redis_address) == ("postgresql://db/x", "redis://r:6379/0")
    assert (settings.broker_address, settings.port) == ("amqp://guest@mq//", 9000)
    assert (settings.script.tokens, settings.script.rate, settings.script.fail_at) == (7, 2.5, 3)
    assert settings.script.trigger == "boom"


@pytest.mark.parametrize(
    ("name", "value", "should"),
    [
        ("SANGHA_PORT", "eighty", "it should be a valid integer$"),
        ("SANGHA_PORT", "99999", "65535"),
        ("SANGHA_SLOTS", "0", "greater than or equal to 1"),
        ("SANGHA_TRUSTED_PROXIES", "10.0.0.0/8, proxy", "networks such as"),
        ("SANGHA_TRUSTED_PROXIES", "*", "networks such as"),
        ("SANGHA_METRICS_ADDRESS", "9100", "HOST:PORT"),
        ("SANGHA_METRICS_ADDRESS", "10.0.0.5:port", "HOST:PORT"),
        ("SANGHA_METRICS_ADDRESS", "http://10.0.0.5:9100", "HOST:PORT"),
        ("SANGHA_METRICS_ADDRESS", "10.0.0.5:9100/metrics", "HOST:PORT"),
        ("SANGHA_CORS_ORIGINS", "app.example.com", "origins such as"),
        ("SANGHA_CORS_ORIGINS", "https://app.example.com/path", "origins such as"),
        ("SANGHA_CORS_ORIGINS", "null", "origins such as"),
        ("SANGHA_CORS_ORIGINS", "https://*.example.com", "origins such as"),
        ("SANGHA_CONTEXT", "-1", "256"),
        ("SANGHA_DATABASE_URL", "mysql://db", "postgresql://… or postgres://…"),
        ("SANGHA_DATABASE_URL", "postgresql://h/x?nonsense=1", r"well-formed postgresql://….*\"nonsense\""),
        ("SANGHA_DATABASE_URL", "postgresql://h:port/x", "'port'"),
        ("SANGHA_DATABASE_URL", "postgresql://h/%zz", "well-formed"),
        ("SANGHA_REDIS_URL", "localhost:6379", "redis://…"),
        ("SANGHA_REDIS_URL", "redis://x:notaport", "well-formed redis://….*'notaport'"),
        ("SANGHA_REDIS_URL", "redis://x:99999", "well-formed"),
        ("SANGHA_BROKER_URL", "amqp://[bad", "well-formed amqp://…"),
        ("SANGHA_BROKER_URL", "kafka://b", "amqp://…"),
        ("SANGHA_SCRIPT", "tokens", "tokens=20,rate=0"),
        ("SANGHA_SCRIPT", "tokens=many", "script.tokens|in tokens"),
        ("SANGHA_SCRIPT", "colour=red", "colour"),
        ("SANGHA_SECRET_KEY", "short", "16"),
    ],
)
def test_a_malformed_variable_is_one_line_that_names_it_and_what_it_should_be(monkeypatch, name, value, should):
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=should) as caught:
        load_settings()

    line = str(caught.value)
    assert line.startswith(f"{name} is ")
    assert "\n" not in line


def test_a_secret_is_never_shown(monkeypatch):
    monkeypatch.setenv("SANGHA_SECRET_KEY", "hunter2")

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SANGHA_DATABASE_URL", "postgresql://me:hunter2@h:port/x"),
        ("SANGHA_DATABASE_URL", "postgresql://me:hunter2@h/x?nonsense=1"),
        ("SANGHA_DATABASE_URL", "postgresql://me:a?hunter2@h/x"),
        ("SANGHA_DATABASE_URL", "postgresql://h/x?password=hunter2&nonsense=1"),
        ("SANGHA_REDIS_URL", "redis://:hunter2/@h:notaport"),
        ("SANGHA_REDIS_URL", "redis://:p@hunter2@h:notaport"),
        ("SANGHA_BROKER_URL", "kafka://me:hunter2@b"),
    ],
)
def test_the_password_of_a_url_is_never_shown(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=name) as caught:
        load_settings()

    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SANGHA_DATABASE_URL", "postgres://me:p%40ss@[::1]:5432/x?sslmode=require&host=%2Frun%2Fpg"),
        ("SANGHA_REDIS_URL", "rediss://:p%2Fss@cache.example.com:6380/3"),
        ("SANGHA_REDIS_URL", "unix:///run/my%20folder/valkey.sock?db=2"),
        ("SANGHA_BROKER_URL", "amqps://me:pass@mq:5671/%2F?heartbeat=30"),
    ],
)
def test_a_well_formed_url_is_accepted_unchanged(monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    assert load_settings().model_dump()[name.removeprefix("SANGHA_").lower()] == value


def test_addresses_in_a_folder_with_special_characters_are_quoted():
    settings = Settings(data_dir=Path("/a b%c#d?e'f\"g"))

    assert conninfo_to_dict(settings.postgres_dsn)["host"] == str(settings.socket_dir)
    assert parse_url(settings.redis_address)["path"] == f"{settings.socket_dir}/valkey.sock"
    assert settings.socket_dir == settings.home / "run"


def test_sockets_are_in_tmp_when_the_path_of_the_data_folder_has_a_comma():
    assert "," not in Settings(data_dir=Path("/a,b")).postgres_dsn


def test_a_data_folder_created_for_the_secret_key_is_private(tmp_path):
    settings = Settings(data_dir=tmp_path / "new")

    load_secret_key(settings)

    assert S_IMODE(settings.home.stat().st_mode) == 0o700


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_sockets_are_in_tmp_when_the_path_of_the_data_folder_is_too_long():
    short, long = Settings(data_dir=Path("/data")), Settings(data_dir=Path("/" + "d" * 100))

    assert short.socket_dir == Path("/data/run")
    assert len(str(long.socket_dir)) <= MAX_SOCKET_FOLDER
    assert long.socket_dir == Settings(data_dir=Path("/" + "d" * 100)).socket_dir
    assert long.socket_dir != Settings(data_dir=Path("/" + "e" * 100)).socket_dir


def test_origins_are_written_as_browsers_send_them(monkeypatch):
    monkeypatch.setenv(
        "SANGHA_CORS_ORIGINS", "https://App.example.com/, http://localhost:3000,https://x:443, tauri://localhost"
    )

    expected = ("https://app.example.com", "http://localhost:3000", "https://x", "tauri://localhost")
    assert load_settings().cors_origins == expected
