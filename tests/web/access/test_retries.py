"""A request is a retry if its client has numbered it as one."""

import pytest
from starlette.datastructures import Headers

from models.accounts.accounts import Caller, Role
from web.access.retries import RETRY_COUNT, RetriableRequest


@pytest.mark.parametrize(
    ("count", "is_retry"),
    [
        (None, False),
        ("", False),
        ("0", False),
        ("00", False),
        ("-1", False),
        ("x", False),
        ("²", False),
        ("1", True),
        ("02", True),
        pytest.param("9" * 5000, True, id="5000 digits"),
    ],
)
def test_a_count_above_zero_names_a_retry(count, is_retry):
    headers = Headers({} if count is None else {RETRY_COUNT: count})

    request = RetriableRequest(Caller("user_1", "acct_1", Role.MEMBER), "POST /v1/responses", headers, b"{}")

    assert request.is_retry is is_retry
