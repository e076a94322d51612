"""Pages of records in OpenAI's list envelope."""

import orjson
import pytest

from web.http.paging import Listing, page_response


@pytest.mark.parametrize(("count", "has_more"), [(0, False), (2, False), (3, True)])
def test_has_more_is_set_by_one_record_beyond_the_page(count, has_more):
    query = Listing(limit=2)
    records = [f"id_{number}" for number in range(count)][: query.fetch_limit]

    page = orjson.loads(page_response(records, query.limit, lambda id_: {"id": id_}).body)

    expected = [f"id_{number}" for number in range(min(count, 2))]
    assert [item["id"] for item in page["data"]] == expected
    assert (page["object"], page["has_more"]) == ("list", has_more)
    assert (page["first_id"], page["last_id"]) == ((expected[0], expected[-1]) if expected else (None, None))
