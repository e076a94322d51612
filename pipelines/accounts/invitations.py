"""Invitations: asking somebody by e-mail to become a member, and accepting.

Whoever shows the secret reads the mail of the invited address. Where that address belongs to a user, this user alone
may accept. Where it belongs to nobody, who accepts is either somebody who has logged in and has proved an address of
their own, or claims this one, which is thereby proved; or a new user, with the invited address.
"""

from dataclasses import dataclass

from models.accounts import accounts, audit, emails, invitations, members
from models.accounts.accounts import Caller, Membership, Role, User
from models.accounts.audit import RequestOrigin
from models.accounts.emails import UserProfile
from models.accounts.invitations import Invitation
from models.accounts.members import Member
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, LimitExceeded, NotAllowed, NotAuthenticated, NotFound
from pipelines.accounts import email_jobs, passwords, sessions
from pipelines.accounts.email_jobs import EmailTemplate
from pipelines.accounts.email_verification import invalid_token
from pipelines.accounts.login_limits import LoginAttempt, LoginLimiter
from pipelines.accounts.members import acting, check_may_give
from pipelines.accounts.sessions import SessionTokens
from pipelines.accounts.signup import normalize_email
from pipelines.accounts.tokens import Tokens

#: Invitations that an account may send within a day: each is a letter to a stranger.
MAX_PER_DAY = 100


def invite(
    database: Database, caller: Caller, invitation_id: str, *, email: str, role: Role, origin: RequestOrigin
) -> Invitation:
    """Ask somebody to become a member; an earlier invitation to the same address holds no more.

    Raises InvalidRequest, NotAllowed (`owner_required`, `email_unverified`), Conflict `already_member`, and LimitExceeded.
    """
    address = normalize_email(email)
    with database.transaction() as connection:
        actor = acting(connection, caller)
        check_may_give(actor, role)
        _check_host(connection, actor, caller.account_id, address)
        made = invitations.create(
            connection, invitation_id, caller.account_id, email=address, role=role, invited_by=caller.user_id
        )
        email_jobs.enqueue_email(
            connection, EmailTemplate.INVITATION, account_id=caller.account_id, invitation_id=made.id
        )
        _record(connection, "invitation.created", made, caller.user_id, origin)
    return made


def revoke(database: Database, caller: Caller, invitation_id: str, origin: RequestOrigin) -> None:
    """Take an invitation back. Raises NotFound for one that can't be accepted any more either."""
    with database.transaction() as connection:
        check_may_give(acting(connection, caller), Role.ADMIN)
        invitation = invitations.read(connection, invitation_id, caller.account_id)
        if invitation is None or not invitations.revoke(connection, invitation_id, caller.account_id):
            raise NotFound(f"Invitation with id '{invitation_id}' not found.", param="invitation_id")
        _record(connection, "invitation.revoked", invitation, caller.user_id, origin)


@dataclass(frozen=True, slots=True)
class Invitee:
    """Who accepts: somebody who has logged in, or who gives the password of the address, or would like to have it."""

    caller: Caller | None = None
    password: str | None = None
    name: str = ""


def accept(
    database: Database, tokens: Tokens, login_limiter: LoginLimiter, secret: str, guest: Invitee, origin: RequestOrigin
) -> SessionTokens:
    """Become a member, and come in. Who is one already stays what they are; the invitation is used up all the same.

    Raises InvalidRequest (`invalid_token`, `invalid_password`), NotAuthenticated, NotAllowed, Conflict and LimitExceeded.
    """
    found = _good(_look(database, secret))
    known = _known_by_password(database, login_limiter, found.email, guest, origin)
    # What takes a core is done before anything is locked.
    new_hash = _new_hash(found.email, guest) if guest.caller is None and known is None else None
    with database.transaction() as connection:
        # Whoever changes members or invitations holds the account first; what it was then is looked at again.
        members.lock_account(connection, found.account_id)
        invitation = _good(invitations.find_by_secret(connection, secret))
        person = _guest(connection, invitation, guest, known, new_hash)
        membership = _join(connection, invitation, person, origin)
        return sessions.start(connection, tokens, membership, person.email, origin)


def _look(database: Database, secret: str) -> Invitation | None:
    with database.connection() as connection:
        return invitations.find_by_secret(connection, secret)


def _good(invitation: Invitation | None) -> Invitation:
    if invitation is None:
        raise invalid_token()
    return invitation


def _check_host(connection: Connection, actor: Member, account_id: str, address: str) -> None:
    host = emails.read_user(connection, actor.user_id)
    if host is None or not host.verified:
        raise NotAllowed("Confirm your own e-mail address before you invite others.", code="email_unverified")
    guest = emails.find_owner(connection, address)
    if guest is not None and members.read(connection, account_id, guest.id) is not None:
        raise Conflict("Whoever has this address is a member already.", param="email", code="already_member")
    if invitations.count_recent(connection, account_id) >= MAX_PER_DAY:
        raise LimitExceeded(f"An account may send {MAX_PER_DAY} invitations a day.", retry_after=3600)


def _known_by_password(
    database: Database, login_limiter: LoginLimiter, address: str, guest: Invitee, origin: RequestOrigin
) -> User | None:
    """Whose password it is, of those who have the address or claim it.

    Raises NotAuthenticated where somebody has the address, and the password isn't theirs.
    """
    if guest.caller is not None:
        return None
    if guest.password is None:
        raise NotAuthenticated("Log in, or give a password.", param="password")
    attempt = LoginAttempt(address.lower(), origin.ip)
    login_limiter.count_attempt(attempt)
    with database.connection() as connection:
        candidates = accounts.login_candidates(connection, address)
    for user in candidates:
        if passwords.verify(user.password_hash, guest.password):
            login_limiter.record_success(attempt)
            return user
        if user.verified:
            message = "The address has a user: log in as that user, or give their password."
            raise NotAuthenticated(message, param="password", code="invalid_credentials")
    return None


def _new_hash(address: str, guest: Invitee) -> str:
    assert guest.password is not None
    passwords.check_strength(guest.password, email=address)
    return passwords.hash_password(guest.password)


def _guest(
    connection: Connection, invitation: Invitation, guest: Invitee, known: User | None, new_hash: str | None
) -> UserProfile:
    """The user who becomes a member; their address is proved from here on."""
    if new_hash is not None:
        made = emails.create_verified_user(connection, invitation.email, name=guest.name, password_hash=new_hash)
        return made or _not_yours()
    user_id = known.id if known else guest.caller.user_id if guest.caller else ""
    person = emails.read_user(connection, user_id)
    if person is None:
        raise NotAuthenticated("The user of this token is gone.")
    holder = emails.find_owner(connection, invitation.email)
    if holder is not None:
        return person if holder.id == person.id else _not_yours()
    if person.email.lower() == invitation.email.lower():
        return person if emails.verify(connection, person.id, invitation.email) else _not_yours()
    if not person.verified:
        raise NotAllowed("Confirm your own e-mail address before you accept.", code="email_unverified")
    return person


def _not_yours() -> UserProfile:
    raise NotAllowed("This invitation is for somebody else: log in as the user of its address.", code="not_invited")


def _join(connection: Connection, invitation: Invitation, person: UserProfile, origin: RequestOrigin) -> Membership:
    if len(members.joined_accounts(connection, person.id)) >= members.MOST_PLACES:
        raise Conflict(f"A person may belong to {members.MOST_PLACES} accounts.", code="too_many_accounts")
    added = members.add(connection, invitation.account_id, person.id, invitation.role)
    invitations.mark_accepted(connection, invitation.id)
    _record(connection, "invitation.accepted", invitation, person.id, origin)
    if added:
        audit.record(
            connection,
            "member.added",
            origin,
            account_id=invitation.account_id,
            user_id=person.id,
            target=person.id,
            details={"role": invitation.role},
        )
    member = members.read(connection, invitation.account_id, person.id)
    assert member is not None
    return Membership(person.id, invitation.account_id, member.role)


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
