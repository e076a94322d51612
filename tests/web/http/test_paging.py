"""Given more records than a page has, when they are paged, then the page says so, and where the next one begins."""

import orjson
import pytest

from web.http.paging import Listing, page_response


@pytest.mark.parametrize(("there", "more"), [(0, False), (2, False), (3, True)])
def test_one_more_than_a_page_has_tells_of_the_next(there, more):
    query = Listing(limit=2)
    found = [f"id_{number}" for number in range(there)][: query.fetch_limit]

    answer = orjson.loads(page_response(found, query.limit, lambda id_: {"id": id_}).body)

    shown = [f"id_{number}" for number in range(min(there, 2))]
    assert [item["id"] for item in answer["data"]] == shown
    assert (answer["object"], answer["has_more"]) == ("list", more)
    assert (answer["first_id"], answer["last_id"]) == ((shown[0], shown[-1]) if shown else (None, None))
