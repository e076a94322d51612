"""The objects of an account at Stripe, in Stripe's shapes, and the calls that change them.

Payment methods decide what happens: `pm_visa`, `pm_declined`, `pm_insufficient`, `pm_authenticate` (3-D Secure),
`pm_processing`, and `pm_slow_refund`, whose refunds stay pending. The events that Stripe would send are in `sent`.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.billing.gateways import signatures

#: The parameters that each call takes here; Stripe rejects unknown ones, too.
PARAMETERS = {
    "POST /v1/payment_intents": {"amount", "currency", "customer", "payment_method", "confirm", "off_session",
                                 "return_url", "capture_method", "metadata", "expand"},
    "GET /v1/payment_intents": {"customer", "created", "limit", "expand", "starting_after"},
    "GET /v1/payment_intents/ID": {"expand"},
    "POST /v1/payment_intents/ID/confirm": {"payment_method", "return_url", "off_session", "expand"},
    "POST /v1/payment_intents/ID/cancel": set(),
    "POST /v1/refunds": {"payment_intent", "amount", "metadata"},
    "GET /v1/refunds": {"payment_intent", "limit", "starting_after"},
    "GET /v1/refunds/ID": set(),
    "GET /v1/disputes": {"payment_intent", "limit", "starting_after"},
    "POST /v1/customers": {"name", "metadata"},
    "GET /v1/customers/ID": set(),
    "DELETE /v1/customers/ID": set(),
    "POST /v1/checkout/sessions": {"mode", "customer", "allowed_payment_method_types", "success_url", "cancel_url",
                                  "metadata"},
    "GET /v1/checkout/sessions/ID": {"expand"},
    "GET /v1/payment_methods/ID": set(),
    "POST /v1/payment_methods/ID/detach": set(),
    "POST /v1/billing_portal/sessions": {"customer", "return_url"},
}  # fmt: skip

DECLINES = {
    "pm_declined": {"code": "card_declined", "decline_code": "generic_decline", "message": "Your card was declined."},
    "pm_insufficient": {"code": "card_declined", "decline_code": "insufficient_funds", "message": "Not enough money."},
    "pm_authenticate": {"code": "authentication_required", "message": "Authenticate this payment."},
}

#: Currencies of which Stripe's smallest unit must be a multiple.
MULTIPLES = {"bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10, "isk": 100, "ugx": 100}


class StripeError(Exception):
    """An answer with an error."""

    def __init__(self, status: int, **error: Any) -> None:
        super().__init__(error.get("message", ""))
        self.status, self.error = status, {"type": "invalid_request_error", **error}


class StripeState:
    """The objects of one account at Stripe, and the calls that were made."""

    def __init__(self, webhook_secret: str) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.on_event: Callable[[str, Mapping[str, Any]], None] = lambda event_type, subject: None
        self.page_size = 100
        self._webhook_secret = webhook_secret
        for name in ("visa", "declined", "insufficient", "authenticate", "processing", "slow_refund"):
            self.add_method(f"pm_{name}", None)

    def add_method(self, method_id: str, customer: str | None) -> None:
        """Store a payment method."""
        card = {"brand": "visa", "last4": "4242"}
        self.objects[method_id] = {"id": method_id, "object": "payment_method", "type": "card", "card": card,
                                   "customer": customer}  # fmt: skip

    def of_type(self, name: str) -> list[dict[str, Any]]:
        """Return the objects of a type, the newest first."""
        return [each for each in reversed(self.objects.values()) if each["object"] == name]

    def create(self, prefix: str, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Store a new object."""
        created = {"id": f"{prefix}_{uuid.uuid4().hex}", "object": name, "created": int(time.time()), "metadata": {}}
        self.objects[created["id"]] = created | dict(fields)
        return self.objects[created["id"]]

    def confirm_by_customer(self, intent_id: str) -> None:
        """Do what the customer does on the bank's page."""
        self._succeed(self.objects[intent_id])

    def reject_by_customer(self, intent_id: str) -> None:
        """Fail the authentication on the bank's page."""
        error = {"type": "invalid_request_error", "code": "payment_intent_authentication_failure", "message": "Failed."}
        self.objects[intent_id] |= {"status": "requires_payment_method", "next_action": None,
                                    "last_payment_error": error}  # fmt: skip

    def dispute(self, intent_id: str, status: str = "needs_response", amount: int | None = None) -> dict[str, Any]:
        """Let the customer's bank take a payment, or a part of it, back."""
        intent = self.objects[intent_id]
        self.objects[intent["latest_charge"]]["disputed"] = True
        fields = {"payment_intent": intent_id, "charge": intent["latest_charge"], "amount": amount or intent["amount"],
                  "currency": intent["currency"], "balance_transactions": []}  # fmt: skip
        return self.create("dp", "dispute", {**fields, "status": status})

    def event(self, event_type: str, subject: Mapping[str, Any], **fields: Any) -> tuple[bytes, dict[str, str]]:
        """Return the body and headers of a webhook."""
        event = {"id": f"evt_{uuid.uuid4().hex}", "object": "event", "type": event_type, "livemode": False,
                 "data": {"object": subject}, **fields}  # fmt: skip
        body = json.dumps(event).encode()
        return body, {"content-type": "application/json",
                      "stripe-signature": signatures.sign(body, self._webhook_secret)}  # fmt: skip

    def perform(self, method: str, path: str, parameters: dict[str, Any]) -> Any:
        """Execute a call. Raises StripeError."""
        generic = re.sub(r"/(pi|re|dp|cus|cs|pm)_\w+", "/ID", path)
        call = f"{method} {generic}"
        if call not in PARAMETERS:
            raise StripeError(404, code="url_unknown", message=f"Unrecognized request URL ({call})")
        if unknown := set(parameters) - PARAMETERS[call]:
            raise StripeError(400, code="parameter_unknown", message=f"Received unknown parameters: {unknown}")
        self.calls.append(call)
        found = re.search(r"/((?:pi|re|dp|cus|cs|pm)_\w+)", path)
        subject = self._require(found[1]) if found else {}
        handler = getattr(self, "_" + re.sub(r"\W+", "_", call.lower().replace("/v1", "").replace("/id", "_id")))
        body = self._expanded(handler(subject, parameters), parameters)
        return {**body, "url": path} if body["object"] == "list" else body

    def _require(self, object_id: str, param: str = "id") -> dict[str, Any]:
        if object_id not in self.objects:
            status = 404 if param == "id" else 400
            raise StripeError(status, code="resource_missing", param=param, message=f"No such object: {object_id}")
        return self.objects[object_id]

    def _expanded(self, body: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
        paths = parameters.get("expand", {}).values()
        if body.get("object") == "list":
            return {**body, "data": [self._inner(each, [path.removeprefix("data.") for path in paths])
                                     for each in body["data"]]}  # fmt: skip
        return self._inner(body, list(paths))

    def _inner(self, body: dict[str, Any], paths: list[str]) -> dict[str, Any]:
        for path in paths:
            name, _, rest = path.partition(".")
            if isinstance(body.get(name), str):
                body = {**body, name: self._inner(self.objects[body[name]], [rest] if rest else [])}
        return body

    def _send(self, event_type: str, subject: Mapping[str, Any]) -> None:
        self.sent.append((event_type, dict(subject)))
        self.on_event(event_type, subject)

    def _post_payment_intents(self, _: Any, parameters: dict[str, Any]) -> Any:
        amount = int(parameters["amount"])
        if amount % MULTIPLES.get(parameters["currency"], 1):
            raise StripeError(400, code="invalid_charge_amount_no_decimal_compatible", message="Invalid amount.")
        if "customer" in parameters:
            self._require(parameters["customer"])
        if parameters["confirm"] == "true" and "return_url" not in parameters:
            raise StripeError(400, code="parameter_missing", message="You must provide a return_url.")
        method = self._require(parameters["payment_method"])["id"]
        intent = self.create("pi", "payment_intent", {
            "amount": amount, "amount_received": 0, "currency": parameters["currency"],
            "customer": parameters["customer"], "metadata": parameters["metadata"], "status": "requires_confirmation",
            "payment_method": method, "latest_charge": None, "last_payment_error": None, "next_action": None,
        })  # fmt: skip
        return self._confirmed(intent, method) if parameters["confirm"] == "true" else intent

    def _confirmed(self, intent: dict[str, Any], method: str) -> dict[str, Any]:
        """Charge a method without the customer. Raises StripeError where the bank declines."""
        if method in DECLINES:
            intent |= {"status": "requires_payment_method", "payment_method": None,
                       "last_payment_error": {"type": "card_error", **DECLINES[method]}}  # fmt: skip
            self._send("payment_intent.payment_failed", intent)
            raise StripeError(402, **{**intent["last_payment_error"], "payment_intent": intent})
        if method == "pm_processing":
            intent["status"] = "processing"
            return intent
        return self._succeed(intent)

    def _succeed(self, intent: dict[str, Any]) -> dict[str, Any]:
        transaction = self.create("txn", "balance_transaction", {"fee": 59, "currency": intent["currency"]})
        fields = {"payment_intent": intent["id"], "balance_transaction": transaction["id"], "disputed": False,
                  "amount": intent["amount"], "amount_refunded": 0, "currency": intent["currency"],
                  "status": "succeeded"}  # fmt: skip
        intent |= {"status": "succeeded", "next_action": None, "last_payment_error": None,
                   "amount_received": intent["amount"],
                   "latest_charge": self.create("ch", "charge", fields)["id"]}  # fmt: skip
        self._send("payment_intent.succeeded", intent)
        return intent

    def _post_payment_intents_id_confirm(self, intent: Any, parameters: dict[str, Any]) -> Any:
        if intent["status"] not in ("requires_confirmation", "requires_payment_method"):
            raise StripeError(400, code="payment_intent_unexpected_state", message=f"It is {intent['status']}.")
        if parameters.get("off_session") == "true":
            return self._confirmed(intent, parameters["payment_method"])
        url = f"https://bank.example/{intent['id']}"
        action = {"type": "redirect_to_url", "redirect_to_url": {"url": url, "return_url": parameters["return_url"]}}
        intent |= {"status": "requires_action", "next_action": action, "last_payment_error": None}
        self._send("payment_intent.requires_action", intent)
        return intent

    def _post_payment_intents_id_cancel(self, intent: Any, parameters: Any) -> Any:
        if intent["status"] in ("succeeded", "processing", "canceled"):
            raise StripeError(400, code="payment_intent_unexpected_state", message=f"It is {intent['status']}.")
        intent |= {"status": "canceled", "next_action": None}
        self._send("payment_intent.canceled", intent)
        return intent

    def _get_payment_intents(self, _: Any, parameters: dict[str, Any]) -> Any:
        created = {name: int(value) for name, value in parameters.get("created", {}).items()}
        customer = parameters.get("customer")
        return self._page([each for each in self.of_type("payment_intent")
                           if customer in (None, each["customer"]) and each["created"] >= created.get("gte", 0)
                           and each["created"] < created.get("lt", 1 << 40)], parameters)  # fmt: skip

    def _get_payment_intents_id(self, intent: Any, parameters: Any) -> Any:
        return intent

    def _post_refunds(self, _: Any, parameters: dict[str, Any]) -> Any:
        intent, amount = self._require(parameters["payment_intent"]), int(parameters["amount"])
        returned = sum(each["amount"] for each in self._refunds_of(intent["id"]) if each["status"] != "failed")
        if returned + amount > intent["amount"]:
            raise StripeError(400, code="charge_already_refunded", message="More than was charged.")
        self.objects[intent["latest_charge"]]["amount_refunded"] = returned + amount
        status = "pending" if intent["payment_method"] == "pm_slow_refund" else "succeeded"
        return self.create("re", "refund", {
            "payment_intent": intent["id"], "amount": amount, "currency": intent["currency"], "status": status,
            "metadata": parameters.get("metadata", {}), "failure_reason": None,
        })  # fmt: skip

    def _refunds_of(self, intent_id: str) -> list[dict[str, Any]]:
        return [each for each in self.of_type("refund") if each["payment_intent"] == intent_id]

    def _get_refunds(self, _: Any, parameters: dict[str, Any]) -> Any:
        return self._page(self._refunds_of(parameters["payment_intent"]), parameters)

    def _get_refunds_id(self, refund: Any, parameters: Any) -> Any:
        return refund

    def _get_disputes(self, _: Any, parameters: dict[str, Any]) -> Any:
        return self._page([each for each in self.of_type("dispute")
                           if each["payment_intent"] == parameters["payment_intent"]], parameters)  # fmt: skip

    def _post_customers(self, _: Any, parameters: dict[str, Any]) -> Any:
        return self.create("cus", "customer", parameters)

    def _get_customers_id(self, customer: Any, parameters: Any) -> Any:
        return customer

    def _delete_customers_id(self, customer: Any, parameters: Any) -> Any:
        del self.objects[customer["id"]]
        return {"id": customer["id"], "object": "customer", "deleted": True}

    def _post_checkout_sessions(self, _: Any, parameters: dict[str, Any]) -> Any:
        self._require(parameters["customer"], "customer")
        session = self.create("cs", "checkout.session", {**parameters, "setup_intent": None})
        session["url"] = f"https://checkout.example/{session['id']}"
        return session

    def _get_checkout_sessions_id(self, session: Any, parameters: Any) -> Any:
        return session

    def _get_payment_methods_id(self, method: Any, parameters: Any) -> Any:
        return method

    def _post_payment_methods_id_detach(self, method: Any, parameters: Any) -> Any:
        method["customer"] = None
        return method

    def _post_billing_portal_sessions(self, _: Any, parameters: dict[str, Any]) -> Any:
        self._require(parameters["customer"])
        return self.create("bps", "billing_portal.session", {"url": "https://portal.example/1"})

    def _page(self, data: list[dict[str, Any]], parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return a page of objects, the newest first."""
        if after := parameters.get("starting_after"):
            data = data[[each["id"] for each in data].index(after) + 1 :]
        limit = min(int(parameters.get("limit", 10)), self.page_size)
        return {"object": "list", "data": data[:limit], "has_more": len(data) > limit}
