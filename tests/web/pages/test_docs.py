"""The page at `/docs`."""

import re

from tests.web.api_client import assert_error
from web.access.rights import Rights
from web.api.routing import Route
from web.pages import docs

ROWS = (Route("GET", "/docs", docs.docs, Rights.PUBLIC), Route("GET", "/docs/{name}", docs.asset, Rights.PUBLIC))


def test_page_loads_its_files_from_here_and_nothing_from_elsewhere(make_client):
    # Given a door with the page
    client = make_client(*ROWS)
    # When a browser comes without a token
    answer = client.get("/docs", headers={"authorization": ""})
    # Then it gets the page, and every file that the page names, under the policy of our other pages
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    files = [name for name in named if name != "data:,"]
    assert len(files) == 4
    for name in files:
        file = client.get(name)
        assert file.status_code == 200
        assert file.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in file.headers["content-security-policy"]


def test_other_files_of_the_package_stay_there(make_client):
    client = make_client(*ROWS)
    assert_error(client.get("/docs/..%2Fflask_swagger_ui.py"), 404)
    assert_error(client.get("/docs/index.css"), 404)
