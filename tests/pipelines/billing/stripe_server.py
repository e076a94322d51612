"""A local server that answers as Stripe's API does: real HTTP, Stripe's shapes, idempotency keys, and its faults.

Payment methods decide what happens: `pm_visa`, `pm_declined`, `pm_insufficient`, `pm_authenticate` (3-D Secure),
`pm_processing`. `faults` are taken by the next calls that change something: `lost` closes the connection after the call
has had its effect, `unsent` before; a number is answered as an error with this status.
"""

import json
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipelines.billing.gateways import signatures

API_KEY, WEBHOOK_SECRET = "sk_test_local", "whsec_local_secret"
VERSION = "2026-10-28.endive"

#: The parameters that each call takes here; Stripe rejects unknown ones, too.
PARAMETERS = {
    "POST /v1/payment_intents": {"amount", "currency", "customer", "payment_method", "confirm", "off_session",
                                 "capture_method", "metadata", "expand"},
    "GET /v1/payment_intents": {"customer", "created", "limit", "expand", "starting_after"},
    "GET /v1/payment_intents/ID": {"expand"},
    "POST /v1/payment_intents/ID/confirm": {"payment_method", "return_url", "expand"},
    "POST /v1/payment_intents/ID/cancel": set(),
    "POST /v1/refunds": {"payment_intent", "amount", "metadata"},
    "GET /v1/refunds": {"payment_intent", "limit", "starting_after"},
    "GET /v1/refunds/ID": set(),
    "GET /v1/disputes": {"payment_intent", "limit", "starting_after"},
    "POST /v1/customers": {"name", "metadata"},
    "GET /v1/customers/ID": set(),
    "POST /v1/checkout/sessions": {"mode", "customer", "payment_method_types", "success_url", "cancel_url", "metadata"},
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


class StripeError(Exception):
    """An answer with an error."""

    def __init__(self, status: int, **error: Any) -> None:
        super().__init__(error.get("message", ""))
        self.status, self.error = status, {"type": "invalid_request_error", **error}


class Stripe:
    """The objects of one account at Stripe, and the calls that were made."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, tuple[object, int, Any]] = {}
        self.calls: list[str] = []
        self.faults: deque[str | int] = deque()
        self.lock = threading.RLock()
        for name in ("visa", "declined", "insufficient", "authenticate", "processing"):
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

    def dispute(self, intent_id: str, status: str = "needs_response") -> dict[str, Any]:
        """Let the customer's bank take a payment back."""
        intent = self.objects[intent_id]
        self.objects[intent["latest_charge"]]["disputed"] = True
        fields = {"payment_intent": intent_id, "amount": intent["amount"], "currency": intent["currency"]}
        return self.create("dp", "dispute", {**fields, "status": status})

    def event(self, event_type: str, subject: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
        """Return the body and headers of a webhook."""
        event = {"id": f"evt_{uuid.uuid4().hex}", "object": "event", "type": event_type, "data": {"object": subject}}
        body = json.dumps(event).encode()
        return body, {"content-type": "application/json", "stripe-signature": signatures.sign(body, WEBHOOK_SECRET)}

    def answer(self, method: str, path: str, parameters: dict[str, Any], key: str | None) -> tuple[int, Any]:
        """Answer a call; one with a known idempotency key as before."""
        with self.lock:
            if key in self.answers and method == "POST":
                asked, status, body = self.answers[key]
                if asked != (path, parameters):
                    return 400, {
                        "error": {"type": "idempotency_error", "message": "The key was used for another call."}
                    }
                return status, body
            try:
                status, body = 200, self._perform(method, path, parameters)
            except StripeError as error:
                status, body = error.status, {"error": error.error}
            body = json.loads(json.dumps(body))
            if key and method == "POST":
                self.answers[key] = ((path, parameters), status, body)
            return status, body

    def _perform(self, method: str, path: str, parameters: dict[str, Any]) -> Any:
        generic = re.sub(r"/(pi|re|dp|cus|cs|pm)_\w+", "/ID", path)
        call = f"{method} {generic}"
        if call not in PARAMETERS:
            raise StripeError(404, message=f"Unrecognized request URL ({call})")
        if unknown := set(parameters) - PARAMETERS[call]:
            raise StripeError(400, code="parameter_unknown", message=f"Received unknown parameters: {unknown}")
        self.calls.append(call)
        found = re.search(r"/((?:pi|re|dp|cus|cs|pm)_\w+)", path)
        subject = self._require(found[1]) if found else {}
        handler = getattr(self, "_" + re.sub(r"\W+", "_", call.lower().replace("/v1", "").replace("/id", "_id")))
        return self._expanded(handler(subject, parameters), parameters)

    def _require(self, object_id: str) -> dict[str, Any]:
        if object_id not in self.objects:
            raise StripeError(404, code="resource_missing", message=f"No such object: {object_id}")
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

    def _post_payment_intents(self, _: Any, parameters: dict[str, Any]) -> Any:
        amount = int(parameters["amount"])
        if parameters["currency"] in ("kwd", "bhd") and amount % 10:
            raise StripeError(400, code="amount_invalid", message="The last digit must be 0.")
        if "customer" in parameters:
            self._require(parameters["customer"])
        behaviour = self._require(parameters["payment_method"])["id"]
        intent = self.create("pi", "payment_intent", {
            "amount": amount, "currency": parameters["currency"], "customer": parameters["customer"],
            "metadata": parameters["metadata"], "status": "processing" if behaviour == "pm_processing" else "",
            "latest_charge": None, "last_payment_error": None, "next_action": None,
        })  # fmt: skip
        if behaviour in DECLINES:
            intent["status"] = "requires_payment_method"
            intent["last_payment_error"] = {"type": "card_error", **DECLINES[behaviour]}
            raise StripeError(402, **{**intent["last_payment_error"], "payment_intent": intent})
        if behaviour != "pm_processing":
            self._succeed(intent)
        return intent

    def _succeed(self, intent: dict[str, Any]) -> None:
        transaction = self.create("txn", "balance_transaction", {"fee": 59, "currency": intent["currency"]})
        fields = {"payment_intent": intent["id"], "balance_transaction": transaction["id"], "disputed": False}
        intent |= {"status": "succeeded", "next_action": None,
                   "latest_charge": self.create("ch", "charge", fields)["id"]}  # fmt: skip

    def _post_payment_intents_id_confirm(self, intent: Any, parameters: dict[str, Any]) -> Any:
        url = f"https://bank.example/{intent['id']}"
        action = {"type": "redirect_to_url", "redirect_to_url": {"url": url, "return_url": parameters["return_url"]}}
        intent |= {"status": "requires_action", "next_action": action, "last_payment_error": None}
        return intent

    def _post_payment_intents_id_cancel(self, intent: Any, parameters: Any) -> Any:
        if intent["status"] == "succeeded":
            raise StripeError(400, code="payment_intent_unexpected_state", message="It has succeeded.")
        intent["status"] = "canceled"
        return intent

    def _get_payment_intents(self, _: Any, parameters: dict[str, Any]) -> Any:
        since = int(parameters["created"]["gte"])
        return self._page([each for each in self.of_type("payment_intent")
                           if each["customer"] == parameters["customer"] and each["created"] >= since])  # fmt: skip

    def _get_payment_intents_id(self, intent: Any, parameters: Any) -> Any:
        return intent

    def _post_refunds(self, _: Any, parameters: dict[str, Any]) -> Any:
        intent, amount = self._require(parameters["payment_intent"]), int(parameters["amount"])
        returned = sum(each["amount"] for each in self._refunds_of(intent["id"]))
        if returned + amount > intent["amount"]:
            raise StripeError(400, code="charge_already_refunded", message="More than was charged.")
        return self.create("re", "refund", {
            "payment_intent": intent["id"], "amount": amount, "currency": intent["currency"], "status": "succeeded",
            "metadata": parameters.get("metadata", {}), "failure_reason": None,
        })  # fmt: skip

    def _refunds_of(self, intent_id: str) -> list[dict[str, Any]]:
        return [each for each in self.of_type("refund") if each["payment_intent"] == intent_id]

    def _get_refunds(self, _: Any, parameters: dict[str, Any]) -> Any:
        return self._page(self._refunds_of(parameters["payment_intent"]))

    def _get_refunds_id(self, refund: Any, parameters: Any) -> Any:
        return refund

    def _get_disputes(self, _: Any, parameters: dict[str, Any]) -> Any:
        return self._page([each for each in self.of_type("dispute")
                           if each["payment_intent"] == parameters["payment_intent"]])  # fmt: skip

    def _post_customers(self, _: Any, parameters: dict[str, Any]) -> Any:
        return self.create("cus", "customer", parameters)

    def _get_customers_id(self, customer: Any, parameters: Any) -> Any:
        return customer

    def _post_checkout_sessions(self, _: Any, parameters: dict[str, Any]) -> Any:
        self._require(parameters["customer"])
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

    def _page(self, data: list[dict[str, Any]]) -> dict[str, Any]:
        return {"object": "list", "data": data, "has_more": False, "url": "/"}


def parse_form(text: str) -> dict[str, Any]:
    """Parse a form with keys such as `metadata[payment]` into nested dictionaries."""
    parsed: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        keys, target = re.findall(r"[^\[\]]+", name), parsed
        for each in keys[:-1]:
            target = target.setdefault(each, {})
        target[keys[-1]] = value
    return parsed


def _handler(state: Stripe) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET", urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._answer("POST", self.rfile.read(int(self.headers.get("content-length") or 0)).decode())

        def _answer(self, method: str, form: str) -> None:
            fault = state.faults.popleft() if state.faults and method == "POST" else None
            if fault == "unsent":
                self.close_connection = True
                return
            if isinstance(fault, int):
                self._send(fault, {"error": {"type": "api_error", "message": "Try again."}})
                return
            if self.headers["authorization"] != f"Bearer {API_KEY}" or self.headers["stripe-version"] != VERSION:
                self._send(401, {"error": {"type": "invalid_request_error", "message": "Invalid API key or version."}})
                return
            path, key = urlsplit(self.path).path, self.headers["idempotency-key"]
            status, body = state.answer(method, path, parse_form(form), key)
            if fault == "lost":
                self.close_connection = True
                return
            self._send(status, body)

        def _send(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.send_header("request-id", "req_local")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Log nothing."""

    return Handler


@contextmanager
def run_stripe():
    """Run the server on a free port; yields its state and its URL."""
    state = Stripe()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
