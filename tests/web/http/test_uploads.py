"""The uploads of one account at a time are bounded."""

import pytest

from models.platform.errors import LimitExceeded
from web.http.uploads import MAX_OPEN, OpenUploads


def test_an_account_has_a_limit_of_uploads_in_progress():
    uploads = OpenUploads()
    opened = [uploads.count("busy") for _ in range(MAX_OPEN)]
    for upload in opened:
        upload.__enter__()

    with pytest.raises(LimitExceeded) as rejected, uploads.count("busy"):
        pass
    with uploads.count("other"):
        pass
    opened[0].__exit__(None, None, None)
    with uploads.count("busy"):
        pass

    assert (rejected.value.code, rejected.value.retry_after) == ("too_many_uploads", 1)
