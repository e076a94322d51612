"""Rights of a route: the minimum role in the account, and the scope that an API key needs."""

from dataclasses import dataclass
from typing import ClassVar

from models.accounts.accounts import Caller, Role, Scope
from models.platform.errors import NotAllowed


@dataclass(frozen=True, slots=True)
class Rights:
    """Named in each row of the route table by one of the constants below.

    role      the minimum role; None: public, without authentication
    scope     the scope that an API key needs; None: API keys are rejected, only logged-in users are admitted
    any_scope  API keys with any scope are admitted: the endpoint checks the rights of each operation
    operator  only operators of the installation are admitted, who work across accounts
    local     requests from this machine are admitted without authentication, unless there may be a proxy on it
    """

    role: Role | None
    scope: Scope | None = None
    operator: bool = False
    local: bool = False
    any_scope: bool = False

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
    METRICS: ClassVar["Rights"]
    OPERATIONS: ClassVar["Rights"]

    @property
    def public(self) -> bool:
        """Whether the route needs no authentication."""
        return self.role is None

    def check(self, caller: Caller) -> None:
        """Check that a caller has these rights. Raises NotAllowed, naming the missing one."""
        if self.role is not None and not caller.role.covers(self.role):
            raise NotAllowed(f"This requires the role '{self.role}' in the account; your role is '{caller.role}'.")
        if caller.key_id is not None and not self.any_scope:
            self._check_key(caller)
        if self.operator and not caller.operator:
            raise NotAllowed("Only operators of the installation can do this.", code="operator_required")

    def _check_key(self, caller: Caller) -> None:
        if self.scope is None:
            raise NotAllowed("API keys cannot do this; log in and use an access token.", code="person_required")
        if self.scope not in caller.scopes:
            raise NotAllowed(f"This requires an API key with the scope '{self.scope}'.", code="insufficient_scope")


Rights.PUBLIC = Rights(None)
Rights.READ = Rights(Role.MEMBER, Scope.READ)
Rights.WRITE = Rights(Role.MEMBER, Scope.WRITE)
Rights.INFERENCE = Rights(Role.MEMBER, Scope.INFERENCE)
Rights.PERSON = Rights(Role.MEMBER)  # the user's own sessions and password
Rights.KEYS = Rights(Role.MEMBER, Scope.ADMIN)  # the user's own API keys; only an admin's key can have this scope
Rights.BILLING = Rights(Role.ADMIN, Scope.BILLING)
Rights.ADMIN = Rights(Role.ADMIN, Scope.ADMIN)
Rights.OWNER = Rights(Role.OWNER)  # what cannot be undone
Rights.OPERATOR = Rights(Role.MEMBER, operator=True)
Rights.METRICS = Rights(Role.MEMBER, operator=True, local=True)
Rights.OPERATIONS = Rights(Role.MEMBER, any_scope=True)  # a route of many operations
