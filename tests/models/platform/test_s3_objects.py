"""The addresses of buckets and objects."""

from datetime import timedelta

import obstore
import pytest

from models.platform.errors import ConfigurationError
from models.platform.s3_objects import S3Objects
from models.platform.settings import Settings

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.mark.parametrize(
    ("changes", "environment", "url"),
    [
        ({}, {}, "https://s3.us-east-1.amazonaws.com/bucket/pre/fix/a/b"),
        ({}, {"AWS_REGION": "eu-central-1"}, "https://s3.eu-central-1.amazonaws.com/bucket/pre/fix/a/b"),
        ({"object_store": "s3://bucket"}, {}, "https://s3.us-east-1.amazonaws.com/bucket/a/b"),
        ({"object_store_path_style": False}, {}, "https://bucket.s3.us-east-1.amazonaws.com/pre/fix/a/b"),
        ({"object_store_endpoint": "http://minio:9000/"}, {}, "http://minio:9000/bucket/pre/fix/a/b"),
        ({}, {"AWS_ENDPOINT_URL": "http://minio:9000"}, "http://minio:9000/bucket/pre/fix/a/b"),
        (
            {"object_store_endpoint": "https://minio:9000", "object_store_path_style": False},
            {"AWS_ENDPOINT_URL": "http://other"},
            "https://bucket.minio:9000/pre/fix/a/b",
        ),
    ],
)
def test_requests_and_signed_urls_have_the_same_address(changes, environment, url, monkeypatch):
    # Given a bucket
    for name, value in (KEYS | environment).items():
        monkeypatch.setenv(name, value)
    objects = S3Objects.of(Settings(**{"object_store": "s3://bucket/pre/fix", **changes}))
    # When we sign a URL, and obstore does
    ours = objects.presign("a/b", 60, "a.txt", "text/plain")
    theirs = obstore.sign(objects._store, "GET", "a/b", timedelta(seconds=60))
    # Then both are of the same object
    assert ours.partition("?")[0] == theirs.partition("?")[0] == url


def test_encryption_that_obstore_does_not_know_is_rejected_at_the_start():
    with pytest.raises(ValueError, match="object_store_sse"):
        Settings(object_store="s3://bucket", object_store_sse="rot13")


def test_a_bucket_without_a_name_is_rejected():
    with pytest.raises((ConfigurationError, ValueError)):
        S3Objects.of(Settings(object_store="s3://"))
