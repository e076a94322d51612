"""`/v1/account/members`: changing roles and removing members; an owner always remains."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from models.accounts import emails, members
from models.accounts.accounts import Role
from models.platform.database import fetch_all
from tests.web.api_client import ApiUser, assert_error


class Team:
    """An account with a user in each role; all of them own an account of their own too."""

    def __init__(self, owner, admin, member) -> None:
        self.owner, self.admin, self.member = owner, admin, member
        self.account_id = owner.caller.account_id


def join_account(user: ApiUser, account_id: str, role: Role) -> ApiUser:
    """Add the user to an account; their token is for that account from now on."""
    with user.database.transaction() as connection:
        members.add(connection, account_id, user.caller.user_id, role)
    user.caller = replace(user.caller, account_id=account_id, role=role)
    user.token = user.client.app.state.platform.tokens.issue(user.caller)
    return user


@pytest.fixture
def team(api, user, database) -> Team:
    account_id = user.caller.account_id
    admin = join_account(ApiUser(api, database), account_id, Role.ADMIN)
    return Team(user, admin, join_account(ApiUser(api, database), account_id, Role.MEMBER))


def member_path(user):
    return f"/v1/account/members/{user.caller.user_id}"


def roles(user):
    return {member["id"]: member["role"] for member in user.request("GET", "/v1/account/members").json()["data"]}


def change_role(actor, member, role):
    return actor.request("PATCH", member_path(member), json={"role": role})


def test_members_are_listed_in_pages(team):
    first = team.member.request("GET", "/v1/account/members?limit=2").json()
    rest = team.member.request("GET", f"/v1/account/members?limit=2&after={first['last_id']}").json()

    assert (first["has_more"], rest["has_more"]) == (True, False)
    ids = [member["id"] for member in first["data"] + rest["data"]]
    users = (team.owner, team.admin, team.member)
    assert ids == [user.caller.user_id for user in users]


def test_admins_change_roles_of_admins_and_members_with_immediate_effect(team, database):
    assert change_role(team.admin, team.member, "admin").json()["role"] == "admin"
    assert change_role(team.member, team.admin, "member").json()["role"] == "member"
    assert_error(change_role(team.admin, team.member, "member"), 403)

    events = team.owner.request("GET", "/v1/audit_events").json()["data"]
    assert [event["action"] for event in events].count("member.role_changed") == 2


def test_only_owners_grant_and_take_the_owner_role(team):
    owner, admin, member = team.owner, team.admin, team.member

    assert_error(change_role(admin, member, "owner"), 403, code="owner_required")
    assert_error(change_role(admin, admin, "owner"), 403, code="owner_required")
    assert_error(change_role(admin, owner, "member"), 403, code="owner_required")
    assert_error(admin.request("DELETE", member_path(owner)), 403, code="owner_required")
    assert_error(change_role(member, member, "admin"), 403)
    assert_error(member.request("DELETE", member_path(admin)), 403)

    assert change_role(owner, admin, "owner").status_code == 200
    assert change_role(owner, owner, "member").status_code == 200


def test_the_last_owner_cannot_be_demoted_or_removed(team):
    assert_error(change_role(team.owner, team.owner, "admin"), 409, code="last_owner")
    assert_error(team.owner.request("DELETE", member_path(team.owner)), 409, code="last_owner")


def test_one_of_two_owners_who_leave_concurrently_remains(team):
    assert change_role(team.owner, team.admin, "owner").status_code == 200

    with ThreadPoolExecutor(2) as pool:
        leavers = (team.owner, team.admin)
        answers = list(pool.map(lambda user: user.request("DELETE", member_path(user)).status_code, leavers))

    # The second one is the last owner
    assert sorted(answers) == [200, 409]
    assert list(roles(team.member).values()).count("owner") == 1


def test_a_removed_member_and_their_keys_are_rejected(team):
    created = team.member.request("POST", "/v1/api_keys", json={"name": "theirs"})
    assert created.status_code == 201, created.text
    key = {"authorization": f"Bearer {created.json()['key']}"}
    assert team.member.request("GET", "/v1/account", headers=key).status_code == 200

    removed = team.admin.request("DELETE", member_path(team.member))

    assert removed.json() == {"id": team.member.caller.user_id, "object": "member.deleted", "deleted": True}
    assert team.member.request("GET", "/v1/account", headers=key).status_code == 401
    assert team.member.request("GET", "/v1/account").status_code == 401
    assert_error(team.admin.request("DELETE", member_path(team.member)), 404, param="user_id")


def test_a_member_can_remove_themselves(team):
    assert team.member.request("DELETE", member_path(team.member)).status_code == 200

    assert team.member.caller.user_id not in roles(team.owner)


def test_members_of_another_account_are_not_found(team, other_user):
    assert_error(change_role(other_user, team.member, "admin"), 404, param="user_id")
    assert_error(other_user.request("DELETE", member_path(team.member)), 404, param="user_id")
    assert list(roles(other_user)) == [other_user.caller.user_id]


def test_invitations_of_a_removed_admin_are_revoked(team, database):
    with database.transaction() as connection:
        user = emails.read_user(connection, team.admin.caller.user_id)
        emails.verify(connection, user.id, user.email)
    invited = team.admin.request("POST", "/v1/account/invitations", json={"email": "back@example.com"})
    assert invited.status_code == 201, invited.text

    team.owner.request("DELETE", member_path(team.admin))

    assert team.owner.request("GET", "/v1/account/invitations").json()["data"] == []
    with database.connection() as connection:
        rows = fetch_all(connection, "SELECT revoked_at FROM invitations WHERE id = %s", (invited.json()["id"],))
    assert rows[0]["revoked_at"] is not None


def test_changes_of_members_are_events(team, events_of):
    change_role(team.owner, team.member, "admin")
    change_role(team.owner, team.member, "admin")
    team.member.request("DELETE", member_path(team.member))
    email = team.admin.request("GET", "/v1/me").json()["email"]
    erased = team.admin.request("DELETE", "/v1/me", params={"confirm": email})
    assert erased.status_code == 202, erased.text

    member, admin = team.member.caller.user_id, team.admin.caller.user_id
    assert events_of(team.account_id) == [
        ("member.role_changed", {"id": member, "role": "admin"}),
        ("member.removed", {"id": member}),
        ("member.removed", {"id": admin}),
    ]
