"""Add and remove payment methods, which the gateway stores: it shows the page where the customer enters a card."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.billing import billing_details, payment_methods
from models.billing.payment_methods import PaymentMethod
from models.platform.database import Connection, Database
from models.platform.errors import NotFound, PermanentFailure, Unavailable
from pipelines.billing.gateways.gateway import CustomerMissing, Gateway, GatewayFailed


def set_up(
    database: Database,
    gateway: Gateway,
    caller: Caller,
    origin: RequestOrigin,
    *,
    return_url: str,
    method: str | None = None,
) -> PaymentMethod | str:
    """Begin to add a payment method. Returns the URL where the customer adds it, or the method of the simulator.

    Raises InvalidRequest, Conflict for a gateway without payment methods, and Unavailable.
    """
    customer = _customer(database, gateway, caller.account_id)
    begin = partial(gateway.set_up_method, caller.account_id, return_url=return_url, method=method)
    with _answering():
        try:
            result = begin(customer)
        except CustomerMissing:
            result = begin(_replace_customer(database, gateway, caller.account_id, customer))
    if result.method is None:
        assert result.url is not None
        return result.url
    with database.transaction() as connection:
        stored = payment_methods.add(
            connection,
            caller.account_id,
            gateway=gateway.name,
            gateway_method_id=result.method.gateway_method_id,
            label=result.method.label,
        )
        assert stored is not None, "the gateway has just created it for this account"
        _record(connection, "payment_method.added", caller, origin, stored)
    return stored


def set_default(database: Database, caller: Caller, origin: RequestOrigin, method_id: str) -> PaymentMethod:
    """Make a method the account's default. Raises NotFound."""
    with database.transaction() as connection:
        method = payment_methods.set_default(connection, method_id, caller.account_id)
        _record(connection, "payment_method.made_default", caller, origin, method)
    return method


def remove(
    database: Database, gateway: Gateway, caller: Caller, origin: RequestOrigin, method: PaymentMethod
) -> PaymentMethod:
    """Delete a method at its gateway and here. Raises NotFound and Unavailable."""
    with _answering():
        gateway.detach_method(method.gateway_method_id)
    with database.transaction() as connection:
        with suppress(NotFound):  # the gateway's event was faster
            payment_methods.detach(connection, method.id, caller.account_id)
        _record(connection, "payment_method.removed", caller, origin, method)
    return method


def open_portal(database: Database, gateway: Gateway, caller: Caller, *, return_url: str) -> str:
    """Return the URL of the gateway's page for the account's payment methods. Raises Conflict and Unavailable."""
    customer = _customer(database, gateway, caller.account_id)
    with _answering():
        return gateway.portal(customer, return_url=return_url)


def _customer(database: Database, gateway: Gateway, account_id: str) -> str:
    """Return the account's customer at the gateway, created if there is none."""
    with database.transaction() as connection:
        details = billing_details.ensure(connection, account_id)
        customer = payment_methods.read_customer(connection, account_id, gateway.name)
    if customer is not None:
        return customer
    with _answering():
        created = gateway.create_customer(account_id, details.name)
    with database.transaction() as connection:
        return payment_methods.store_customer(connection, account_id, gateway.name, created)


def _replace_customer(database: Database, gateway: Gateway, account_id: str, missing: str) -> str:
    """Create a customer instead of one that the gateway does not have, with whose methods nothing can be charged."""
    with database.transaction() as connection:
        details = billing_details.ensure(connection, account_id)
    created = gateway.create_customer(account_id, details.name, instead_of=missing)
    with database.transaction() as connection:
        return payment_methods.replace_customer(connection, account_id, gateway.name, missing, created)


@contextmanager
def _answering() -> Iterator[None]:
    """Raise Unavailable for a call that the gateway does not answer, or refuses although we send what it documents."""
    try:
        yield
    except (GatewayFailed, PermanentFailure) as error:
        raise Unavailable("The payment gateway is unavailable. Retry the request.", retry_after=5) from error


def _record(connection: Connection, action: str, caller: Caller, origin: RequestOrigin, method: PaymentMethod) -> None:
    audit.record(
        connection,
        action,
        origin,
        account_id=caller.account_id,
        user_id=caller.user_id,
        target=method.id,
        details={"label": method.label, "gateway": method.gateway},
    )
