"""Which rows of an account a caller may read and change: the one rule for responses, conversations and jobs.

They belong to the user who created them, and an API key acts as its user. No other member reads their texts, whatever
their role. Rows of no user are the account's own, such as the job of an export: admins may read and change those.
Admins also list and cancel all jobs of the account, of which they see no result and no event. They may decide calls of
tools that turns of other members wait for, and so read the arguments of these calls (decision 62).
"""

from dataclasses import dataclass

from models.accounts.accounts import Caller, Role


@dataclass(frozen=True, slots=True)
class Access:
    """The rows that a statement with the condition `owned` may touch. It has `parameters` among its own.

    user_id  only rows of this user; None: of all users
    unowned  whether rows that belong to no user are included
    """

    account_id: str
    user_id: str | None
    unowned: bool

    @classmethod
    def account(cls, account_id: str) -> "Access":
        """Return the access of a worker, which acts for the account: all of its rows."""
        return cls(account_id, None, unowned=True)

    @classmethod
    def own(cls, caller: Caller) -> "Access":
        """Return what a caller may read and change: their own rows, and for admins those of no user."""
        return cls(caller.account_id, caller.user_id, unowned=caller.role.covers(Role.ADMIN))

    @classmethod
    def managed(cls, caller: Caller) -> "Access":
        """Return of what a caller may see that it exists, and cancel it: for admins everything in the account."""
        return cls.account(caller.account_id) if caller.role.covers(Role.ADMIN) else cls.own(caller)

    def includes(self, owner_id: str | None) -> bool:
        """Return whether a row of the account with this owner is included."""
        return self.user_id is None or (self.unowned if owner_id is None else owner_id == self.user_id)

    @property
    def parameters(self) -> dict[str, object]:
        """The parameters of `owned`."""
        return {"account_id": self.account_id, "access_user_id": self.user_id, "access_unowned": self.unowned}


def owned(account_id: str, owner: str) -> str:
    """Return the condition that an access includes a row.

    account_id  the column
    owner       the expression of the user whose row it is, null for a row of no user
    """
    return f"""{account_id} = %(account_id)s AND (
        %(access_user_id)s::text IS NULL OR {owner} = %(access_user_id)s OR {owner} IS NULL AND %(access_unowned)s)"""
