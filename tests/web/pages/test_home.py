"""The home page at `/` and its static files."""

from web.access.rights import Rights
from web.api.routing import Route
from web.pages import home


def test_page_and_its_files_are_served_and_load_nothing_from_other_hosts(make_client):
    # Given an application with the page's routes
    client = make_client(
        Route("GET", "/", home.home, Rights.PUBLIC), Route("GET", "/pages/{name}", home.page, Rights.PUBLIC)
    )
    # When a browser requests it without a token
    response = client.get("/", headers={"authorization": ""})
    # Then it gets the page and every file that the page references
    assert response.status_code == 200
    assert "default-src 'self'" in response.headers["content-security-policy"]
    # And without scripts no form puts a password into a URL, and no other site can frame the page
    for rule in ("form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in response.headers["content-security-policy"]
    for name in ("index.css", "index.js"):
        assert f"/pages/{name}" in response.text
        assert client.get(f"/pages/{name}").status_code == 200


def test_unknown_file_is_a_404_in_the_error_envelope(make_client):
    # Given the page's route
    client = make_client(Route("GET", "/pages/{name}", home.page, Rights.PUBLIC))
    # When a file outside the list is requested
    response = client.get("/pages/..%2Fhome.py")
    # Then the response is a 404
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"
