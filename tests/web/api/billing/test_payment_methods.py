"""`/billing/payment_methods`, `/billing/portal` and the pages of the simulated gateway."""

import re
from pathlib import Path

import pytest

from models.billing import payment_methods
from pipelines.billing.gateways.simulator import METHODS, Simulator
from tests.web.api_client import assert_error

PATH = "/billing/payment_methods"


def add(user, method="pm_test_visa"):
    return user.request("POST", PATH, json={"method": method}).json()


def listed(user):
    return [(each["id"], each["is_default"]) for each in user.request("GET", PATH).json()["data"]]


def test_first_method_is_the_default_until_another_one_is_made_it(user):
    first, second = add(user), add(user, "pm_test_declined")
    assert listed(user) == [(second["id"], False), (first["id"], True)]

    changed = user.request("POST", f"{PATH}/{second['id']}/default").json()

    assert changed["is_default"]
    assert listed(user) == [(second["id"], True), (first["id"], False)]


def test_deleting_the_default_makes_the_newest_one_left_the_default(user):
    first, second = add(user), add(user)

    assert user.request("DELETE", f"{PATH}/{first['id']}").json()["deleted"]

    assert listed(user) == [(second["id"], True)]
    assert_error(user.request("DELETE", f"{PATH}/{first['id']}"), 404)
    assert_error(user.request("POST", f"{PATH}/{first['id']}/default"), 404)


def test_methods_of_another_account_do_not_exist(user, other_user):
    theirs = add(other_user)

    assert_error(user.request("POST", f"{PATH}/{theirs['id']}/default"), 404, code="not_found")
    assert_error(user.request("DELETE", f"{PATH}/{theirs['id']}"), 404, code="not_found")
    assert listed(other_user) == [(theirs["id"], True)]


def test_method_is_added_on_the_page_of_the_gateway(user, api):
    # Given the link of the gateway's page
    answer = user.request("POST", PATH, json={})
    assert (answer.status_code, answer.json()["object"]) == (202, "payment_method_setup")
    target = re.sub(r"^http://[^/]+", "", answer.json()["url"])

    # When the customer chooses a method there
    page = api.get(target)
    chosen = api.get(f"{target}&method=pm_test_visa")

    # Then the page says so
    assert "pm_test_declined" in page.text
    assert "Visa 4242 was added" in chosen.text


def test_page_of_the_gateway_needs_its_link(user, other_user, api):
    target = re.sub(r"^http://[^/]+", "", other_user.request("POST", PATH, json={}).json()["url"])
    forged = target.replace(other_user.caller.account_id, user.caller.account_id)

    assert_error(api.get(forged), 400, code="invalid_signature")


def test_unknown_methods_and_addresses_are_rejected(user):
    assert_error(user.request("POST", PATH, json={"method": "pm_card_visa"}), 400, param="method")
    for url in ("javascript:alert(1)", "ftp://x", ""):
        assert_error(user.request("POST", PATH, json={"return_url": url}), 400, param="return_url")


def test_simulated_gateway_has_no_portal(user):
    assert_error(user.request("POST", "/billing/portal", json={}), 409, code="no_portal")


@pytest.mark.parametrize("method", METHODS)
def test_methods_of_the_simulator_are_documented(api, method):
    guide = (Path(__file__).parents[4] / "docs" / "guides" / "billing.md").read_text(encoding="utf-8")
    body = api.get("/openapi.json").json()["components"]["schemas"]["AddPaymentMethod"]

    assert f"`{method}`" in guide
    assert method in body["properties"]["method"]["description"]


def test_method_whose_event_is_faster_than_its_deletion_is_deleted(user, database, monkeypatch):
    # Given an event that detaches the method before the request does
    method = add(user)
    detach = Simulator.detach_method

    def detach_with_event(self, gateway_method_id):
        detach(self, gateway_method_id)
        with database.transaction() as connection:
            assert payment_methods.detach_any(connection, "test", gateway_method_id)

    monkeypatch.setattr(Simulator, "detach_method", detach_with_event)

    assert user.request("DELETE", f"{PATH}/{method['id']}").json()["deleted"] is True
