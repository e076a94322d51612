"""Copying the content of files to another store, and the mark of a store."""

from pathlib import Path

import pytest

from models.platform.errors import Unavailable
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.platform.store_owner import owner_of, replace_mark
from ops.doctor.object_store import object_store
from ops.files import claim, copy
from tests.s3 import S3Service


def test_a_copy_continues_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Service, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a folder with objects, and a bucket that has one of them, and one of another size
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(data_dir=tmp_path, object_store=str(tmp_path / "objects"))
    location = s3.location
    source = ObjectStore.open(settings)
    target = ObjectStore.open(settings.model_copy(update={"object_store": location}))
    contents = {f"acct_{number}/files/{number}": b"%d" % number * 1000 for number in range(5)}
    for key, content in contents.items():
        source.put(key, [content])
    target.put("acct_0/files/0", [contents["acct_0/files/0"]])
    target.put("acct_3/files/3", [b"short"])
    # When they are copied
    copy(settings, location)
    # Then the bucket has all, and four were copied
    assert {found.key: b"".join(target.get(found.key)) for found in target.list()} == contents
    assert capsys.readouterr().out.startswith("4 objects copied, the last one acct_4/files/4\n")
    # And nothing is copied again
    copy(settings, location)
    assert "objects copied" not in capsys.readouterr().out


def test_a_copy_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Service) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(data_dir=tmp_path, object_store=str(tmp_path / "objects"))
    ObjectStore.open(settings).put("acct_1/files/a", [b"bytes"])

    with pytest.raises(Unavailable, match="create it, or correct its name"):
        copy(settings, "s3://missing")


def test_a_store_is_claimed_once(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings.model_copy(update={"object_store": str(tmp_path)})
    objects = ObjectStore.open(settings)
    replace_mark(objects, "another/database")

    assert object_store(settings).verdict == "warn"
    claim(settings)
    claim(settings)

    assert object_store(settings).verdict == "ok"
    assert owner_of(objects) != "another/database"
    assert "It was marked as that of another/database." in capsys.readouterr().out


def test_doctor_times_a_probe_and_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, s3: S3Service
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    settings = settings.model_copy(update={"object_store": s3.location})

    finding = object_store(settings)

    assert finding.verdict == "ok"
    assert "written in" in finding.detail
    assert list(ObjectStore.open(settings).list()) == []


def test_doctor_says_what_to_do_about_a_bucket_that_cannot_be_used(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, s3: S3Service
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    missing = settings.model_copy(update={"object_store": "s3://missing"})

    assert "create it, or correct its name" in object_store(missing).detail
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = object_store(settings.model_copy(update={"object_store": s3.location}))
    assert (refused.verdict, "AWS_SECRET_ACCESS_KEY" in refused.detail) == ("FAIL", True)
