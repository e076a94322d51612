"""Given an account with members, when roles change and members go, then an owner stays and nobody raises themselves."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from models.accounts import emails, members
from models.accounts.accounts import Role
from models.platform.database import all_of
from tests.web.api_client import ApiUser, assert_error


class Household:
    """An account with somebody in each role, all but the owner with accounts of their own too."""

    def __init__(self, owner, admin, member) -> None:
        self.owner, self.admin, self.member = owner, admin, member
        self.account_id = owner.caller.account_id


def joined(user: ApiUser, account_id: str, role: Role) -> ApiUser:
    """The visitor, with a token for an account in which they are now."""
    with user.database.transaction() as connection:
        members.add(connection, account_id, user.caller.user_id, role)
    user.caller = replace(user.caller, account_id=account_id, role=role)
    user.token = user.client.app.state.platform.tokens.issue(user.caller)
    return user


@pytest.fixture
def household(api, user, database) -> Household:
    home = user.caller.account_id
    admin = joined(ApiUser(api, database), home, Role.ADMIN)
    return Household(user, admin, joined(ApiUser(api, database), home, Role.MEMBER))


def path(user):
    return f"/v1/account/members/{user.caller.user_id}"


def role_of(user):
    return {member["id"]: member["role"] for member in user.request("GET", "/v1/account/members").json()["data"]}


def change(who, whom, role):
    return who.request("PATCH", path(whom), json={"role": role})


def test_members_are_listed_in_pages(household):
    first = household.member.request("GET", "/v1/account/members?limit=2").json()
    rest = household.member.request("GET", f"/v1/account/members?limit=2&after={first['last_id']}").json()

    assert (first["has_more"], rest["has_more"]) == (True, False)
    ids = [member["id"] for member in first["data"] + rest["data"]]
    people = (household.owner, household.admin, household.member)
    assert ids == [person.caller.user_id for person in people]


def test_an_admin_handles_admins_and_members_and_a_new_role_holds_from_the_next_request_on(household, database):
    assert change(household.admin, household.member, "admin").json()["role"] == "admin"
    assert change(household.member, household.admin, "member").json()["role"] == "member"
    assert_error(change(household.admin, household.member, "member"), 403)

    events = household.owner.request("GET", "/v1/audit_events").json()["data"]
    assert [event["action"] for event in events].count("member.role_changed") == 2


def test_only_owners_make_and_unmake_owners(household):
    owner, admin, member = household.owner, household.admin, household.member

    assert_error(change(admin, member, "owner"), 403, code="owner_required")
    assert_error(change(admin, admin, "owner"), 403, code="owner_required")
    assert_error(change(admin, owner, "member"), 403, code="owner_required")
    assert_error(admin.request("DELETE", path(owner)), 403, code="owner_required")
    assert_error(change(member, member, "admin"), 403)
    assert_error(member.request("DELETE", path(admin)), 403)

    assert change(owner, admin, "owner").status_code == 200
    assert change(owner, owner, "member").status_code == 200


def test_the_last_owner_stays(household):
    assert_error(change(household.owner, household.owner, "admin"), 409, code="last_owner")
    assert_error(household.owner.request("DELETE", path(household.owner)), 409, code="last_owner")


def test_of_two_owners_who_leave_at_once_one_stays(household):
    assert change(household.owner, household.admin, "owner").status_code == 200

    with ThreadPoolExecutor(2) as pool:
        leavers = (household.owner, household.admin)
        answers = list(pool.map(lambda person: person.request("DELETE", path(person)).status_code, leavers))

    # The later one finds that it is the last
    assert sorted(answers) == [200, 409]
    assert list(role_of(household.member).values()).count("owner") == 1


def test_who_is_removed_comes_in_no_more_nor_do_their_keys_for_this_account(household):
    made = household.member.request("POST", "/v1/api_keys", json={"name": "theirs"})
    assert made.status_code == 201, made.text
    key = {"authorization": f"Bearer {made.json()['key']}"}
    assert household.member.request("GET", "/v1/account", headers=key).status_code == 200

    removed = household.admin.request("DELETE", path(household.member))

    assert removed.json() == {"id": household.member.caller.user_id, "object": "member.deleted", "deleted": True}
    assert household.member.request("GET", "/v1/account", headers=key).status_code == 401
    assert household.member.request("GET", "/v1/account").status_code == 401
    assert_error(household.admin.request("DELETE", path(household.member)), 404, param="user_id")


def test_a_member_leaves(household):
    assert household.member.request("DELETE", path(household.member)).status_code == 200

    assert household.member.caller.user_id not in role_of(household.owner)


def test_another_accounts_members_are_out_of_reach(household, other_user):
    assert_error(change(other_user, household.member, "admin"), 404, param="user_id")
    assert_error(other_user.request("DELETE", path(household.member)), 404, param="user_id")
    assert list(role_of(other_user)) == [other_user.caller.user_id]


def test_what_somebody_offered_holds_no_more_when_they_lose_their_role(household, database):
    with database.transaction() as connection:
        person = emails.person(connection, household.admin.caller.user_id)
        emails.prove(connection, person.id, person.email)
    invited = household.admin.request("POST", "/v1/account/invitations", json={"email": "back@example.com"})
    assert invited.status_code == 201, invited.text

    household.owner.request("DELETE", path(household.admin))

    assert household.owner.request("GET", "/v1/account/invitations").json()["data"] == []
    with database.connection() as connection:
        rows = all_of(connection, "SELECT revoked_at FROM invitations WHERE id = %s", (invited.json()["id"],))
    assert rows[0]["revoked_at"] is not None
