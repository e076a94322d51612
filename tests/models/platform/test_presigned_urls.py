"""Signed URLs against the example of AWS's documentation."""

from datetime import UTC, datetime

from models.platform.presigned_urls import Credentials, presigned_url

CREDENTIALS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def sign(seconds=86400, credentials=CREDENTIALS):
    return presigned_url(
        "GET",
        "https://examplebucket.s3.amazonaws.com/test.txt",
        credentials,
        region="us-east-1",
        seconds=seconds,
        now=datetime(2013, 5, 24, tzinfo=UTC),
    )


def test_the_signature_is_that_of_the_documentation():
    # https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    assert sign().endswith("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


def test_a_url_is_valid_for_a_week_at_most():
    assert "X-Amz-Expires=604800&" in sign(seconds=10_000_000)


def test_temporary_credentials_name_their_token():
    assert "X-Amz-Security-Token=a%2Fb%3D&" in sign(credentials=Credentials("AKIA", "secret", "a/b="))


def test_credentials_are_complete_or_absent():
    assert Credentials.from_environment({"AWS_ACCESS_KEY_ID": "a"}) is None
    assert Credentials.from_environment({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}) == Credentials(
        "a", "b"
    )
