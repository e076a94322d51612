"""Members of an account: given another role, removed, leaving.

Admins handle admins and members; only owners make and unmake owners, themselves and not by an API key, and one owner
always stays.
"""

from dataclasses import replace

from models.accounts import audit, invitations, members
from models.accounts.accounts import Caller, Role
from models.accounts.audit import RequestOrigin
from models.accounts.members import Member
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, NotAllowed, NotFound


def change_role(database: Database, caller: Caller, user_id: str, role: Role, origin: RequestOrigin) -> Member:
    """Give a member another role. Raises NotFound, NotAllowed, and Conflict `last_owner`."""
    with database.transaction() as connection:
        actor, member = _both(connection, caller, user_id)
        check_may_give(actor, Role.ADMIN)
        check_may_give(actor, member.role)
        check_may_give(actor, role)
        if member.role is role:
            return member
        _check_owner_stays(connection, caller.account_id, member, role)
        members.set_role(connection, caller.account_id, user_id, role)
        if not role.covers(member.role):
            invitations.revoke_all_by(connection, caller.account_id, user_id)
        _record(connection, "member.role_changed", caller, origin, user_id, {"role": role, "was": member.role})
        changed = members.read(connection, caller.account_id, user_id)
    assert changed is not None
    return changed


def remove(database: Database, caller: Caller, user_id: str, origin: RequestOrigin) -> None:
    """Take a member out of the caller's account; whoever names themselves leaves.

    Their API keys of the account end with it. Raises NotFound, NotAllowed, and Conflict `last_owner`.
    """
    with database.transaction() as connection:
        actor, member = _both(connection, caller, user_id)
        if member.user_id != actor.user_id:
            check_may_give(actor, Role.ADMIN)
            check_may_give(actor, member.role)
        _check_owner_stays(connection, caller.account_id, member, None)
        members.remove(connection, caller.account_id, user_id)
        invitations.revoke_all_by(connection, caller.account_id, user_id)
        _record(connection, "member.removed", caller, origin, user_id, {"role": member.role})


def check_may_give(actor: Member, role: Role) -> None:
    """Raises NotAllowed unless the actor may make or unmake who has this role: only owners have to do with owners."""
    if not actor.role.covers(Role.ADMIN):
        raise NotAllowed("This takes the role admin in the account.")
    if role is Role.OWNER and actor.role is not Role.OWNER:
        raise NotAllowed("Only owners make and unmake owners.", code="owner_required")


def acting(connection: Connection, caller: Caller) -> Member:
    """The caller as a member now, with the account held: nobody changes roles until the transaction ends.

    Raises NotAllowed for who was removed since the request came in.
    """
    held = members.lock_account(connection, caller.account_id)
    actor = members.read(connection, caller.account_id, caller.user_id) if held else None
    if actor is None:
        raise NotAllowed("You do not belong to this account any more.", code="not_a_member")
    # Whoever finds an owner's key must not become an owner by it, and then do what no key may.
    return actor if caller.key_id is None or actor.role is not Role.OWNER else replace(actor, role=Role.ADMIN)


def _both(connection: Connection, caller: Caller, user_id: str) -> tuple[Member, Member]:
    actor = acting(connection, caller)
    member = members.read(connection, caller.account_id, user_id)
    if member is None:
        raise NotFound(f"Member with id '{user_id}' not found.", param="user_id")
    return actor, member


def _check_owner_stays(connection: Connection, account_id: str, member: Member, role: Role | None) -> None:
    if member.role is not Role.OWNER or role is Role.OWNER:
        return
    if not members.has_other_owners(connection, account_id, member.user_id):
        raise Conflict("An account needs an owner: make somebody else one first.", code="last_owner")


def _record(
    connection: Connection, action: str, caller: Caller, origin: RequestOrigin, target: str, details: dict[str, str]
) -> None:
    audit.record(
        connection,
        action,
        origin,
        account_id=caller.account_id,
        user_id=caller.user_id,
        target=target,
        details=details,
    )
