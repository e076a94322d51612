"""Invite people to an account by e-mail, and accept invitations.

The secret proves access to the mailbox of the invited address. If the address belongs to a user, only that user may
accept. Otherwise it is accepted by an authenticated user with a verified address of their own, by a user who signed up
with the invited address, which verifies it, or by a new user with that address.
"""

from dataclasses import dataclass

from models.accounts import accounts, audit, emails, invitations, members
from models.accounts.accounts import Caller, Membership, Role, User
from models.accounts.audit import RequestOrigin
from models.accounts.emails import UserProfile
from models.accounts.invitations import Invitation
from models.accounts.members import Member
from models.delivery import events
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, LimitExceeded, NotAllowed, NotAuthenticated, NotFound
from pipelines.accounts import email_jobs, passwords, sessions
from pipelines.accounts.access_tokens import AccessTokens
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.accounts.email_verification import invalid_token
from pipelines.accounts.login_limits import LoginAttempt, LoginLimiter
from pipelines.accounts.members import check_may_assign, lock_actor
from pipelines.accounts.sessions import SessionTokens
from pipelines.accounts.signup import normalize_email
from pipelines.accounts.signup_policy import OPEN, SignupPolicy

#: Invitations that an account may send within a day: each is an e-mail to somebody who did not ask for it.
MAX_PER_DAY = 100


def invite(
    database: Database, caller: Caller, invitation_id: str, *, email: str, role: Role, origin: RequestOrigin
) -> Invitation:
    """Invite an address to the caller's account. An earlier invitation to the same address becomes invalid.

    Raises InvalidRequest, NotAllowed (`owner_required`, `email_unverified`), Conflict `already_member`, and
    LimitExceeded.
    """
    address = normalize_email(email)
    with database.transaction() as connection:
        actor = lock_actor(connection, caller)
        check_may_assign(actor, role)
        _check_may_invite(connection, actor, caller.account_id, address)
        invitation = invitations.create(
            connection, invitation_id, caller.account_id, email=address, role=role, invited_by=caller.user_id
        )
        email_jobs.enqueue_email(
            connection, EmailTemplate.INVITATION, account_id=caller.account_id, invitation_id=invitation.id
        )
        _record(connection, "invitation.created", invitation, caller.user_id, origin)
        events.record(connection, caller.account_id, "member.invited", {"id": invitation.id, "role": role})
    return invitation


def revoke(database: Database, caller: Caller, invitation_id: str, origin: RequestOrigin) -> None:
    """Revoke an invitation. Raises NotFound, also for one that has been accepted, revoked or has expired."""
    with database.transaction() as connection:
        check_may_assign(lock_actor(connection, caller), Role.ADMIN)
        invitation = invitations.read(connection, invitation_id, caller.account_id)
        if invitation is None or not invitations.revoke(connection, invitation_id, caller.account_id):
            raise NotFound(f"Invitation with id '{invitation_id}' not found.", param="invitation_id")
        _record(connection, "invitation.revoked", invitation, caller.user_id, origin)


@dataclass(frozen=True, slots=True)
class Invitee:
    """Credentials of the user who accepts: an authenticated caller, or the password that they have or choose."""

    caller: Caller | None = None
    password: str | None = None
    name: str = ""


def accept(
    database: Database,
    tokens: AccessTokens,
    login_limiter: LoginLimiter,
    secret: str,
    invitee: Invitee,
    origin: RequestOrigin,
    policy: SignupPolicy = OPEN,
) -> SessionTokens:
    """Add the user to the account and start a session. A member keeps their role; the invitation is used up anyway.

    Raises InvalidRequest (`invalid_token`, `invalid_password`), NotAuthenticated, NotAllowed, Conflict and
    LimitExceeded.
    """
    with database.connection() as connection:
        unlocked = _find(connection, secret)
    known = _find_by_password(database, login_limiter, unlocked.email, invitee, origin)
    if invitee.caller is None and known is None:
        policy.check_invited()
    # Hashing takes a core for 20 ms, so it comes before any lock.
    new_hash = _new_hash(unlocked.email, invitee) if invitee.caller is None and known is None else None
    with database.transaction() as connection:
        # Changes of members and invitations lock the account first. The invitation may have changed until then.
        members.lock_account(connection, unlocked.account_id)
        invitation = _find(connection, secret)
        user = _accepting_user(connection, invitation, invitee, known, new_hash)
        membership = join(connection, invitation, user, origin)
        return sessions.start(connection, tokens, membership, user.email, origin)


def _find(connection: Connection, secret: str) -> Invitation:
    invitation = invitations.find_by_secret(connection, secret)
    if invitation is None:
        raise invalid_token()
    return invitation


def _check_may_invite(connection: Connection, actor: Member, account_id: str, address: str) -> None:
    inviter = emails.read_user(connection, actor.user_id)
    if inviter is None or not inviter.verified:
        raise NotAllowed("Confirm your own e-mail address before you invite others.", code="email_unverified")
    invited = emails.find_owner(connection, address)
    if invited is not None and members.read(connection, account_id, invited.id) is not None:
        message = "The user with this e-mail address is already a member of the account."
        raise Conflict(message, param="email", code="already_member")
    if invitations.count_recent(connection, account_id) >= MAX_PER_DAY:
        message = f"An account can send at most {MAX_PER_DAY} invitations per day."
        raise LimitExceeded(message, retry_after=3600)


def _find_by_password(
    database: Database, login_limiter: LoginLimiter, address: str, invitee: Invitee, origin: RequestOrigin
) -> User | None:
    """Return the user with the address and the password, or None for a new user.

    Raises NotAuthenticated if the address is verified by a user with another password.
    """
    if invitee.caller is not None:
        return None
    if invitee.password is None:
        raise NotAuthenticated("Log in, or send a password.", param="password")
    with database.connection() as connection:
        candidates = accounts.login_candidates(connection, address)
    attempt = LoginAttempt(address.lower(), origin.ip)
    counted = login_limiter.count_attempt(attempt, [user.id for user in candidates])
    for user in candidates:
        if counted.admits(user.id) and passwords.verify(user.password_hash, invitee.password):
            login_limiter.record_success(counted, user.id)
            return user
        if user.verified:
            message = "This e-mail address belongs to a user: log in as that user, or send their password."
            raise NotAuthenticated(message, param="password", code="invalid_credentials")
    return None


def _new_hash(address: str, invitee: Invitee) -> str:
    assert invitee.password is not None
    passwords.check_strength(invitee.password, email=address)
    return passwords.hash_password(invitee.password)


def _accepting_user(
    connection: Connection, invitation: Invitation, invitee: Invitee, known: User | None, new_hash: str | None
) -> UserProfile:
    """Return the user who accepts, with a verified address; creates them where `new_hash` is given."""
    if new_hash is not None:
        created = emails.create_verified_user(connection, invitation.email, name=invitee.name, password_hash=new_hash)
        return created or _not_invited()
    user_id = known.id if known else invitee.caller.user_id if invitee.caller else ""
    user = emails.read_user(connection, user_id)
    if user is None:
        raise NotAuthenticated("The user of this token has been deleted.")
    owner = emails.find_owner(connection, invitation.email)
    if owner is not None:
        return user if owner.id == user.id else _not_invited()
    if user.email.lower() == invitation.email.lower():
        return user if emails.verify(connection, user.id, invitation.email) else _not_invited()
    if not user.verified:
        raise NotAllowed("Confirm your own e-mail address before you accept.", code="email_unverified")
    return user


def _not_invited() -> UserProfile:
    message = "This invitation is for another user: log in as the user with the invited e-mail address."
    raise NotAllowed(message, code="not_invited")


def join(connection: Connection, invitation: Invitation, user: UserProfile, origin: RequestOrigin) -> Membership:
    """Add the user to the account of an invitation, which is used up. The caller holds the account's lock.

    Raises Conflict `too_many_accounts`.
    """
    if len(members.joined_accounts(connection, user.id)) >= members.MAX_ACCOUNTS:
        raise Conflict(f"A user can belong to at most {members.MAX_ACCOUNTS} accounts.", code="too_many_accounts")
    added = members.add(connection, invitation.account_id, user.id, invitation.role)
    invitations.mark_accepted(connection, invitation.id)
    _record(connection, "invitation.accepted", invitation, user.id, origin)
    if added:
        audit.record(
            connection,
            "member.added",
            origin,
            account_id=invitation.account_id,
            user_id=user.id,
            target=user.id,
            details={"role": invitation.role},
        )
        data = {"id": user.id, "role": invitation.role}
        events.record(connection, invitation.account_id, "member.joined", data)
    member = members.read(connection, invitation.account_id, user.id)
    assert member is not None
    return Membership(user.id, invitation.account_id, member.role)


def _record(connection: Connection, action: str, invitation: Invitation, user_id: str, origin: RequestOrigin) -> None:
    audit.record(
        connection,
        action,
        origin,
        account_id=invitation.account_id,
        user_id=user_id,
        target=invitation.id,
        details={"role": invitation.role},
    )
