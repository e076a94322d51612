"""Decide who may become a user of the installation: `SANGHA_SIGNUP` and `SANGHA_SIGNUP_DOMAINS`."""

from dataclasses import dataclass
from typing import Literal

from models.platform.errors import NotAllowed
from models.platform.settings import Settings


@dataclass(frozen=True, slots=True)
class SignupPolicy:
    """Who may become a user.

    access   open: anybody; invited: who accepts an invitation to an account; closed: nobody
    domains  domains of addresses that may sign up without an invitation; none: any
    """

    access: Literal["open", "invited", "closed"] = "open"
    domains: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "SignupPolicy":
        """Return the policy of the settings."""
        return cls(settings.signup, settings.signup_domains)

    def check_signup(self, email: str) -> None:
        """Check that a new user may have this address. `email` must be normalized.

        Raises NotAllowed `signup_closed`, `invitation_required` or `domain_not_allowed`.
        """
        self.check_invited()
        if self.access == "invited":
            message = "Signing up needs an invitation: ask an administrator of an account for one."
            raise NotAllowed(message, code="invitation_required")
        if self.domains and email.rpartition("@")[2].lower() not in self.domains:
            message = "E-mail addresses of this domain cannot sign up here."
            raise NotAllowed(message, param="email", code="domain_not_allowed")

    def needs_invitation(self, email: str) -> bool:
        """Return whether this normalized address may sign up with an invitation only."""
        foreign = bool(self.domains) and email.rpartition("@")[2].lower() not in self.domains
        return self.access == "invited" or (self.access == "open" and foreign)

    def check_invited(self) -> None:
        """Check that an invited person may become a user. Raises NotAllowed `signup_closed`."""
        if self.access == "closed":
            raise NotAllowed("Signing up is closed on this installation.", code="signup_closed")


#: Admits anybody.
OPEN = SignupPolicy()
