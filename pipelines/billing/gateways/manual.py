"""The gateway `manual`: customers pay invoices by bank transfer, and an operator marks the payments as paid."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from models.billing.payments import GatewayName, PaymentOutcome
from models.billing.refunds import RefundOutcome
from models.platform.errors import Conflict, NotFound
from pipelines.billing.gateways.gateway import (
    BookedPayment,
    ChargeRequest,
    MethodSetUp,
    News,
    Notice,
    RefundRequest,
)


class ManualGateway:
    """A gateway without a provider. Refunds count as made: the operator who requests one transfers the money."""

    name: GatewayName = "manual"

    def charge(self, request: ChargeRequest) -> PaymentOutcome:
        """See Gateway. The payment stays pending."""
        return PaymentOutcome("pending", None, datetime.now(UTC))

    def look_up(self, request: ChargeRequest) -> PaymentOutcome | None:
        """See Gateway."""
        return self.charge(request)

    def cancel(self, request: ChargeRequest) -> PaymentOutcome:
        """See Gateway."""
        return self.charge(request)

    def refund(self, request: RefundRequest) -> RefundOutcome:
        """See Gateway."""
        return RefundOutcome("succeeded", request.refund_id)

    def look_up_refund(self, request: RefundRequest) -> RefundOutcome | None:
        """See Gateway."""
        return self.refund(request)

    def create_customer(self, account_id: str, name: str, *, instead_of: str = "") -> str:
        """See Gateway."""
        return account_id

    def delete_customer(self, customer: str) -> None:
        """See Gateway."""

    def set_up_method(
        self, account_id: str, customer: str, *, return_url: str, method: str | None = None
    ) -> MethodSetUp:
        """See Gateway. Raises Conflict."""
        raise Conflict("Invoices are paid by bank transfer, which needs no payment method.", code="no_payment_methods")

    def detach_method(self, gateway_method_id: str) -> None:
        """See Gateway."""

    def portal(self, customer: str, *, return_url: str) -> str:
        """See Gateway. Raises Conflict."""
        raise Conflict("Invoices are paid by bank transfer. There is no portal.", code="no_portal")

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Notice:
        """See Gateway. Raises NotFound."""
        raise NotFound("The gateway 'manual' sends no events.")

    def fetch(self, payload: str) -> News:
        """See Gateway."""
        return None

    def list_payments(self, start: datetime, end: datetime) -> Iterator[BookedPayment]:
        """See Gateway. There are no books but ours."""
        return iter(())

    def read_payment(self, gateway_payment_id: str) -> BookedPayment | None:
        """See Gateway."""
        return None
