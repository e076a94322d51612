"""Secrets and quoted values are removed from texts that are logged."""

import time
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from models.platform.database import Database
from models.platform.redaction import one_line, redact


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("connect to amqp://guest:hush@mq:5672/ failed", "connect to amqp://***@mq:5672/ failed"),
        ("Authorization: Bearer abcdefgh12345.x", "Authorization: Bearer ***"),
        ("key sk-abcdef0123456789 is unknown", "key sk-*** is unknown"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_***"),
        ("token eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl rejected", "token eyJ*** rejected"),
        ("GET https://example.com/a?token=hush&x=1 failed", "GET https://example.com/a?*** failed"),
        ("e-mail to alice.b@example.com", "e-mail to a***@example.com"),
        ('invalid input syntax for type uuid: "hush"', 'invalid input syntax for type uuid: "***"'),
        ("unnamed portal parameter $1 = 'hush'", "unnamed portal parameter $1 = '***'"),
        ("Failing row contains (1, hush, null).\nNext", "Failing row contains ***\nNext"),
        ("What is this?", "What is this?"),
        ("postgresql://db:5432/x is down", "postgresql://db:5432/x is down"),
    ],
)
def test_secrets_and_quoted_values_are_masked(text: str, redacted: str) -> None:
    assert redact(text) == redacted


def test_no_value_of_a_unique_violation_of_postgres_remains(database: Database) -> None:
    # Given a table whose rows are unique
    with database.transaction() as connection:
        connection.execute("CREATE TEMPORARY TABLE unique_texts (unique_text text PRIMARY KEY)")
        connection.execute("INSERT INTO unique_texts (unique_text) VALUES ('hush) (now')")
        with pytest.raises(Exception, match="hush") as raised, connection.transaction():
            # When a second one is inserted
            connection.execute("INSERT INTO unique_texts (unique_text) VALUES ('hush) (now')")
        # Then its message names the key without the value
        assert "hush" not in redact(str(raised.value))
        assert "Key (unique_text)=***" in redact(str(raised.value))


def test_no_value_of_a_validation_error_remains() -> None:
    class Record(BaseModel):
        number: int

    values: Any = {"number": "hush, input"}
    with pytest.raises(ValidationError) as raised:
        Record.model_validate(values)

    assert "hush" in str(raised.value)
    assert "hush" not in redact(str(raised.value))


def test_control_characters_are_escaped() -> None:
    assert one_line("a\nERROR b\r\x1b[2J\x9b\tc") == "a\\nERROR b\\r\\x1b[2J\\x9b\tc"


@pytest.mark.parametrize("text", ["Key (" * 20_000, "$1 = '" * 20_000, "a@" * 50_000, "input_value=" * 10_000])
def test_time_is_bounded_for_hostile_texts(text: str) -> None:
    begun = time.process_time()
    redact(text)
    assert time.process_time() - begun < 2
