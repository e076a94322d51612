"""The doctor's check of what Redis does with its data."""

from pathlib import Path

import pytest

from models.platform.redis_durability import RedisDurability
from models.platform.settings import Settings
from ops.doctor import redis_durability as module
from ops.doctor.finding import run_check
from ops.doctor.redis_durability import redis_durability
from ops.embedded_servers import memory_share


def test_doctor_accepts_the_embedded_redis(settings: Settings) -> None:
    finding = run_check(redis_durability, settings)

    limit = f"{memory_share() / 1_048_576:,.0f} MiB"
    assert str(finding) == f"ok   Redis durability: maxmemory-policy noeviction, {limit}, persisted"


def test_doctor_reports_an_unavailable_redis_as_unchecked(tmp_path: Path) -> None:
    assert run_check(redis_durability, Settings(data_dir=tmp_path)).verdict == "warn"


@pytest.mark.parametrize(
    ("durability", "verdict", "words"),
    [
        (RedisDurability("volatile-lru", True, True), "warn", ["volatile-lru", "rewound", "noeviction"]),
        (RedisDurability("noeviction", True, False), "warn", ["restart", "appendonly yes"]),
        (RedisDurability("noeviction", 1000, True, used=800), "warn", ["503", "raise `maxmemory`"]),
        (RedisDurability(None, False, None), "ok", ["cannot be checked"]),
    ],
)
def test_doctor_says_what_is_lost_and_what_to_do(settings, monkeypatch, durability, verdict, words) -> None:
    # Given a Redis with this durability
    monkeypatch.setattr(module, "read_durability", lambda client: durability)
    # When the doctor checks it
    finding = run_check(redis_durability, settings)
    # Then it names the setting, its effect and the remedy
    assert finding.verdict == verdict
    assert all(word in str(finding) for word in words)
