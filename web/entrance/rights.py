"""Who may use a route: the least role in the account, and the scope that an API key needs."""

from dataclasses import dataclass
from typing import ClassVar

from models.accounts.accounts import Caller, Role, Scope
from models.platform.errors import NotAllowed


@dataclass(frozen=True, slots=True)
class Rights:
    """Stated in each row of the route table, by one of the names below.

    role      the least role; None: anyone, known or not
    scope     what an API key needs; None: no key opens this, only a person who has logged in
    operator  whether it takes one of the staff, who works across accounts
    """

    role: Role | None
    scope: Scope | None = None
    operator: bool = False

    PUBLIC: ClassVar["Rights"]
    READ: ClassVar["Rights"]
    WRITE: ClassVar["Rights"]
    INFERENCE: ClassVar["Rights"]
    PERSON: ClassVar["Rights"]
    KEYS: ClassVar["Rights"]
    BILLING: ClassVar["Rights"]
    ADMIN: ClassVar["Rights"]
    OWNER: ClassVar["Rights"]
    OPERATOR: ClassVar["Rights"]

    @property
    def public(self) -> bool:
        """Whether nobody needs to be asked who they are."""
        return self.role is None

    def check(self, caller: Caller) -> None:
        """Raise NotAllowed, saying what is missing."""
        if self.role is not None and not caller.role.covers(self.role):
            raise NotAllowed(f"This takes the role {self.role} in the account; yours is {caller.role}.")
        if caller.key_id is not None and self.scope is None:
            raise NotAllowed("API keys can't do this: it takes somebody who has logged in.", code="person_required")
        if caller.key_id is not None and self.scope not in caller.scopes:
            raise NotAllowed(f"This takes an API key with the scope '{self.scope}'.", code="insufficient_scope")
        if self.operator and not caller.operator:
            raise NotAllowed("This is for operators of the installation.", code="operator_required")


Rights.PUBLIC = Rights(None)  # anyone
Rights.READ = Rights(Role.MEMBER, Scope.READ)
Rights.WRITE = Rights(Role.MEMBER, Scope.WRITE)
Rights.INFERENCE = Rights(Role.MEMBER, Scope.INFERENCE)
Rights.PERSON = Rights(Role.MEMBER)  # what concerns the person: sessions, password
Rights.KEYS = Rights(Role.MEMBER, Scope.ADMIN)  # a person's own keys; only an admin's key can have that scope
Rights.BILLING = Rights(Role.ADMIN, Scope.BILLING)
Rights.ADMIN = Rights(Role.ADMIN, Scope.ADMIN)
Rights.OWNER = Rights(Role.OWNER)  # what can't be undone
Rights.OPERATOR = Rights(Role.MEMBER, operator=True)
