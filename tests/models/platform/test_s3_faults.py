"""Given an S3 service that is away, slow, full or refuses: what operators and callers learn, and what is stored."""

import os
from datetime import timedelta

import pytest

from models.platform import object_errors, s3_objects
from models.platform.errors import NotFound, Unavailable
from models.platform.object_errors import DamagedObject, ObjectStoreUnavailable
from models.platform.object_store import ObjectStore, key_with_digest
from models.platform.settings import Settings
from tests.s3 import KEY_ID, SECRET, nanio
from tests.s3_faults import Answer, error, fault_proxy

KEY = "acct_1/files/a"


@pytest.fixture
def proxy(s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    quick = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2), "base": 2}
    monkeypatch.setattr(s3_objects, "RETRIES", s3_objects.RETRIES | {"backoff": quick})
    times = {"timeout": timedelta(seconds=1), "read_timeout": timedelta(milliseconds=300)}
    monkeypatch.setattr(s3_objects, "CLIENT", s3_objects.CLIENT | times)
    with fault_proxy(s3.url) as proxy:
        yield proxy


@pytest.fixture
def objects(proxy, tmp_path):
    location = f"s3://bucket/{tmp_path.name}"
    return ObjectStore.open(Settings(data_dir=tmp_path, object_store=location, object_store_endpoint=proxy.url))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error(503, "SlowDown"), object_errors.SLOW_DOWN),
        (error(403, "RequestTimeTooSkewed"), object_errors.SKEWED),
        (error(403, "AccessDenied"), object_errors.DENIED),
        (error(403, "SignatureDoesNotMatch"), object_errors.CREDENTIALS),
        (error(404, "NoSuchBucket"), object_errors.NO_BUCKET),
        (error(507, "XMinioStorageFull"), object_errors.FULL),
        (error(403, "QuotaExceeded"), object_errors.FULL),
        (error(400, "KMS.NotFoundException"), object_errors.KMS),
        (error(400, "BadDigest"), object_errors.ALTERED),
        (error(500, "InternalError"), "The S3 service answers 500 InternalError: see its logs."),
    ],
)
def test_each_refusal_has_a_reason_for_operators_and_none_for_callers(objects, proxy, answer, reason, caplog):
    proxy.before = lambda method: answer

    with pytest.raises(Unavailable) as raised:
        objects.put(KEY, [b"bytes"])

    assert raised.value.reason == reason
    assert raised.value.retry_after > 0
    assert str(raised.value) == raised.value.message == "File storage is temporarily unavailable."
    assert reason in caplog.text
    assert "secret-internals" not in caplog.text
    proxy.heal()
    with pytest.raises(NotFound):
        objects.get(KEY)


def test_a_short_overload_is_survived(objects, proxy):
    answers = [error(503, "SlowDown"), error(503, "SlowDown")]
    proxy.before = lambda method: answers.pop() if answers else None

    objects.put(KEY, [b"bytes"])

    assert b"".join(objects.get(KEY)) == b"bytes"


def test_a_long_overload_ends_after_a_bounded_number_of_requests(objects, proxy):
    proxy.before = lambda method: error(503, "SlowDown")

    with pytest.raises(ObjectStoreUnavailable):
        objects.put(KEY, [b"bytes"])

    assert len(proxy.requests) == s3_objects.RETRIES["max_retries"] + 1


def test_a_service_that_does_not_answer_is_given_up(objects, proxy):
    proxy.hold.clear()

    with pytest.raises(ObjectStoreUnavailable) as raised:
        objects.put(KEY, [b"bytes"])

    assert raised.value.reason == object_errors.SLOW


def test_a_service_that_is_away_is_said_to_be(tmp_path, proxy):
    settings = Settings(data_dir=tmp_path, object_store="s3://bucket", object_store_endpoint="http://127.0.0.1:1")

    with pytest.raises(ObjectStoreUnavailable) as raised:
        next(ObjectStore.open(settings).list(), None)

    assert raised.value.reason == object_errors.AWAY


def test_an_object_is_read_over_connections_that_are_cut_or_not_at_all(objects, proxy):
    content = os.urandom(6_000_000)
    objects.put(KEY, [content])
    proxy.cut = 1_000_000

    with pytest.raises(ObjectStoreUnavailable):
        b"".join(objects.get(KEY))

    proxy.heal()
    assert b"".join(objects.get(KEY)) == content


def collect(received, chunks):
    for chunk in chunks:
        received.append(chunk)
    return []


@pytest.mark.parametrize(
    "damage", [lambda body: body[:-1] + bytes([body[-1] ^ 1]), lambda body: bytes([body[0] ^ 1]) + body[1:]]
)
def test_altered_content_is_noticed_before_its_last_chunk(objects, proxy, damage):
    content = os.urandom(3_000_000)
    key = key_with_digest(KEY, content)
    objects.put(key, [content])
    proxy.after = lambda answer: Answer(answer.status, answer.headers, damage(answer.body) if answer.body else b"")

    received = []
    with pytest.raises(DamagedObject):
        received.extend(collect(received, objects.get(key)))

    assert sum(map(len, received)) < len(content)


def test_nothing_is_stored_of_a_large_object_whose_service_fails_half_way(objects, proxy):
    parts = []

    def fail_second_part(method):
        parts.append(method)
        return error(500, "InternalError") if len(parts) > 2 and method == "PUT" else None

    proxy.before = fail_second_part

    with pytest.raises(ObjectStoreUnavailable):
        objects.put(KEY, (bytes(1_000_000) for _ in range(30)))

    proxy.heal()
    assert list(objects.list()) == []


def test_a_wrong_secret_is_named(tmp_path, proxy, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    settings = Settings(data_dir=tmp_path, object_store="s3://bucket", object_store_endpoint=proxy.url)

    with pytest.raises(ObjectStoreUnavailable) as raised:
        ObjectStore.open(settings).put(KEY, [b"bytes"])

    assert raised.value.reason == object_errors.CREDENTIALS


def test_a_clock_that_differs_is_named(tmp_path, monkeypatch):
    with nanio(tmp_path / "s3", ahead=True) as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        objects = ObjectStore.open(Settings(data_dir=tmp_path, object_store=service.location))

        with pytest.raises(ObjectStoreUnavailable) as raised:
            objects.put(KEY, [b"bytes"])

    assert raised.value.reason == object_errors.SKEWED


def test_missing_credentials_are_named(tmp_path, proxy, monkeypatch):
    # Given no credentials in the environment, and a machine without a role
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(s3_objects.RETRIES, "max_retries", 0)
    settings = Settings(data_dir=tmp_path, object_store="s3://bucket", object_store_endpoint=proxy.url)
    objects = ObjectStore.open(settings)
    # When an object is put
    with pytest.raises(ObjectStoreUnavailable) as raised:
        objects.put(KEY, [b"bytes"])
    # Then the reason says so, and nothing can be signed
    assert raised.value.reason == object_errors.NO_CREDENTIALS
    assert objects.presign(KEY, 60, "a", "text/plain") is None
    assert objects.delete_unfinished(0) == 0
