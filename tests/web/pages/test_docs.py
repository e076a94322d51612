"""The API reference at `/docs`."""

import re

from tests.web.api_client import assert_error
from web.access.rights import Rights
from web.api.routing import Route
from web.pages import docs

ROUTES = (Route("GET", "/docs", docs.docs, Rights.PUBLIC), Route("GET", "/docs/{name}", docs.asset, Rights.PUBLIC))


def test_page_and_its_files_are_served_and_load_nothing_from_other_hosts(make_client):
    # Given an application with the page's routes
    client = make_client(*ROUTES)
    # When a browser requests it without a token
    response = client.get("/docs", headers={"authorization": ""})
    # Then it gets the page and every file that the page references, with the same policy as the other pages
    assert "default-src 'self'" in response.headers["content-security-policy"]
    references = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    files = [name for name in references if name != "data:,"]
    assert len(files) == 4
    for name in files:
        file = client.get(name)
        assert file.status_code == 200
        assert file.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in file.headers["content-security-policy"]


def test_other_files_of_the_package_are_not_served(make_client):
    client = make_client(*ROUTES)
    assert_error(client.get("/docs/..%2Fflask_swagger_ui.py"), 404)
    assert_error(client.get("/docs/index.css"), 404)
