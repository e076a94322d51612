"""The page at `/`."""

from web import home
from web.routing import Rights, Row


def test_page_and_its_files_are_served_and_load_nothing_from_elsewhere(make_client):
    # Given a door with the page's routes
    client = make_client(
        Row("GET", "/", home.home, Rights.PUBLIC), Row("GET", "/pages/{name}", home.page, Rights.PUBLIC)
    )
    # When a browser comes without a token
    answer = client.get("/", headers={"authorization": ""})
    # Then it gets the page, and every file that the page names
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    # And where no script runs, no form sends a password in an address, and nobody else shows the page as theirs
    for rule in ("form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in answer.headers["content-security-policy"]
    for name in ("index.css", "index.js"):
        assert f"/pages/{name}" in answer.text
        assert client.get(f"/pages/{name}").status_code == 200


def test_unknown_file_is_not_found_in_the_envelope(make_client):
    # Given the page's route
    client = make_client(Row("GET", "/pages/{name}", home.page, Rights.PUBLIC))
    # When a file is asked for that is not on the list
    answer = client.get("/pages/..%2Fhome.py")
    # Then it is not found
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
