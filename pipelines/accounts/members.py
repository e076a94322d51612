"""Change the role of an account's members, and remove members.

Admins manage admins and members. Only owners manage owners, with a session and not with an API key. The last owner
cannot be removed.
"""

from dataclasses import replace

from models.accounts import audit, invitations, members
from models.accounts.accounts import Caller, Role
from models.accounts.audit import RequestOrigin
from models.accounts.members import Member
from models.delivery import events
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, NotAllowed, NotFound


def change_role(database: Database, caller: Caller, user_id: str, role: Role, origin: RequestOrigin) -> Member:
    """Give a member another role. Raises NotFound, NotAllowed, and Conflict `last_owner`."""
    with database.transaction() as connection:
        actor, member = _lock_actor_and_member(connection, caller, user_id)
        check_may_assign(actor, Role.ADMIN)
        check_may_assign(actor, member.role)
        check_may_assign(actor, role)
        if member.role is role:
            return member
        _check_owner_stays(connection, caller.account_id, member, role)
        members.set_role(connection, caller.account_id, user_id, role)
        if not role.covers(member.role):
            invitations.revoke_all_by(connection, caller.account_id, user_id)
        _record(connection, "member.role_changed", caller, origin, user_id, {"role": role, "was": member.role})
        events.record(connection, caller.account_id, "member.role_changed", {"id": user_id, "role": role})
        changed = members.read(connection, caller.account_id, user_id)
    assert changed is not None
    return changed


def remove(database: Database, caller: Caller, user_id: str, origin: RequestOrigin) -> None:
    """Remove a member from the caller's account; a member may remove themselves.

    Their API keys of the account are deleted. Raises NotFound, NotAllowed, and Conflict `last_owner`.
    """
    with database.transaction() as connection:
        actor, member = _lock_actor_and_member(connection, caller, user_id)
        if member.user_id != actor.user_id:
            check_may_assign(actor, Role.ADMIN)
            check_may_assign(actor, member.role)
        _check_owner_stays(connection, caller.account_id, member, None)
        members.remove(connection, caller.account_id, user_id)
        invitations.revoke_all_by(connection, caller.account_id, user_id)
        _record(connection, "member.removed", caller, origin, user_id, {"role": member.role})
        events.record(connection, caller.account_id, "member.removed", {"id": user_id})


def check_may_assign(actor: Member, role: Role) -> None:
    """Raise NotAllowed unless the actor may give or take away this role."""
    if not actor.role.covers(Role.ADMIN):
        raise NotAllowed("This requires the role admin in the account.")
    if role is Role.OWNER and actor.role is not Role.OWNER:
        raise NotAllowed("Only owners can add, change or remove owners.", code="owner_required")


def lock_actor(connection: Connection, caller: Caller) -> Member:
    """Lock the account's roles until the end of the transaction, and return the caller as a member.

    Raises NotAllowed if the caller has been removed since the request was authenticated.
    """
    locked = members.lock_account(connection, caller.account_id)
    actor = members.read(connection, caller.account_id, caller.user_id) if locked else None
    if actor is None:
        raise NotAllowed("You are no longer a member of this account.", code="not_a_member")
    # A stolen API key of an owner must not create owners, who can do what no key can.
    return actor if caller.key_id is None or actor.role is not Role.OWNER else replace(actor, role=Role.ADMIN)


def _lock_actor_and_member(connection: Connection, caller: Caller, user_id: str) -> tuple[Member, Member]:
    actor = lock_actor(connection, caller)
    member = members.read(connection, caller.account_id, user_id)
    if member is None:
        raise NotFound(f"Member with id '{user_id}' not found.", param="user_id")
    return actor, member


def _check_owner_stays(connection: Connection, account_id: str, member: Member, role: Role | None) -> None:
    if member.role is not Role.OWNER or role is Role.OWNER:
        return
    if not members.has_other_owners(connection, account_id, member.user_id):
        raise Conflict("An account needs an owner: make another member an owner first.", code="last_owner")


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
