"""The rule of ownership: who has access to which rows, in Python and in SQL."""

import pytest

from models.accounts.accounts import Caller, Role
from models.accounts.ownership import Access, owned
from models.platform.database import fetch_one

OWN, OTHERS, NOBODYS = "user_1", "user_2", None


def caller(role, account_id="acct_1"):
    return Caller(OWN, account_id, role)


@pytest.mark.parametrize(
    ("access", "included"),
    [
        (Access.own(caller(Role.MEMBER)), {OWN}),
        (Access.own(caller(Role.ADMIN)), {OWN, NOBODYS}),
        (Access.own(caller(Role.OWNER)), {OWN, NOBODYS}),
        (Access.managed(caller(Role.MEMBER)), {OWN}),
        (Access.managed(caller(Role.ADMIN)), {OWN, OTHERS, NOBODYS}),
        (Access.account("acct_1"), {OWN, OTHERS, NOBODYS}),
    ],
)
@pytest.mark.parametrize("owner", [OWN, OTHERS, NOBODYS])
def test_an_access_includes_rows_by_their_owner(database, access, included, owner):
    assert access.includes(owner) is (owner in included)
    assert is_owned(database, access, "acct_1", owner) is (owner in included)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("owner", [OWN, OTHERS, NOBODYS])
def test_no_access_includes_rows_of_another_account(database, role, owner):
    assert not is_owned(database, Access.own(caller(role)), "acct_2", owner)
    assert not is_owned(database, Access.managed(caller(role)), "acct_2", owner)


def is_owned(database, access, account_id, owner):
    condition = owned("%(row_account)s::text", "%(row_owner)s::text")
    parameters = {**access.parameters, "row_account": account_id, "row_owner": owner}
    with database.connection() as connection:
        return bool(fetch_one(connection, f"SELECT {condition} AS owned", parameters)["owned"])
