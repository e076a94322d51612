"""`/billing/invoices` and `/billing/credit_notes`: list and read them, also as a page or a PDF."""

from typing import Literal

from pydantic import Field
from starlette.responses import Response

from models.billing import credit_notes, invoice_lines, invoices, usage_lines
from models.billing.invoices import Invoice, InvoiceState
from models.platform.database import Connection
from models.platform.errors import Conflict
from pipelines.billing.invoice_document import Document, credit_note_document, invoice_document
from pipelines.billing.invoice_page import CONTENT_SECURITY_POLICY, render_page
from web.api.billing.invoice_schemas import (
    credit_note_object,
    invoice_object,
    invoice_with_lines,
    line_usage_object,
)
from web.api.request import Request
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response

#: Headers of what browsers show: it loads nothing, and is of one account.
DOCUMENT_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "private, no-store",
}


class ListInvoices(Listing):
    """The query of `GET /billing/invoices`."""

    state: InvoiceState | None = None


class ListLineUsage(Listing):
    """The query of `GET /billing/invoices/{id}/usage`. `line` is the position of a line of usage; omitted: all."""

    line: int | None = Field(None, ge=1, le=1_000_000)


def list_invoices(request: Request) -> Response:
    """`GET /billing/invoices`: list the account's invoices, newest first."""
    query = parse_query(request.query, ListInvoices)
    with request.platform.database.connection() as connection:
        records = invoices.list_invoices(
            connection, request.caller.account_id, state=query.state, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, invoice_object)


def read(request: Request) -> Response:
    """`GET /billing/invoices/{id}`: read an invoice with its lines and credit notes."""
    with request.platform.database.connection() as connection:
        invoice = _read(connection, request)
        lines = invoice_lines.read_lines(connection, invoice.id, invoice.account_id)
        notes = credit_notes.list_of_invoice(connection, invoice.id, invoice.account_id)
    return json_response(invoice_with_lines(invoice, lines, notes))


def list_usage(request: Request) -> Response:
    """`GET /billing/invoices/{id}/usage?line=N`: list the jobs that a line of usage sums up, oldest first."""
    query = parse_query(request.query, ListLineUsage)
    with request.platform.database.connection() as connection:
        invoice = _read(connection, request)
        records = usage_lines.usage_of_line(
            connection, invoice.id, invoice.account_id, query.line, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, line_usage_object)


def page(request: Request) -> Response:
    """`GET /billing/invoices/{id}/html`: serve an invoice as a page. Raises Conflict for a draft."""
    with request.platform.database.connection() as connection:
        invoice = _read(connection, request)
        document = _document(connection, invoice)
        notes = credit_notes.list_of_invoice(connection, invoice.id, invoice.account_id)
    content = render_page(document, invoice.state, credit_notes=[note.number for note in notes])
    return Response(content, headers=DOCUMENT_HEADERS, media_type="text/html")


def pdf(request: Request) -> Response:
    """`GET /billing/invoices/{id}/pdf`: serve an invoice as a PDF, which never changes. Raises Conflict for a draft."""
    with request.platform.database.connection() as connection:
        document = _document(connection, _read(connection, request))
    return _pdf(request, document, "invoice")


def read_credit_note(request: Request) -> Response:
    """`GET /billing/credit_notes/{id}`: read a credit note."""
    with request.platform.database.connection() as connection:
        note = credit_notes.read(connection, request.path_params["credit_note_id"], request.caller.account_id)
    return json_response(credit_note_object(note))


def credit_note_page(request: Request) -> Response:
    """`GET /billing/credit_notes/{id}/html`: serve a credit note as a page."""
    content = render_page(_credit_note_document(request))
    return Response(content, headers=DOCUMENT_HEADERS, media_type="text/html")


def credit_note_pdf(request: Request) -> Response:
    """`GET /billing/credit_notes/{id}/pdf`: serve a credit note as a PDF."""
    return _pdf(request, _credit_note_document(request), "credit-note")


def _credit_note_document(request: Request) -> Document:
    account_id = request.caller.account_id
    with request.platform.database.connection() as connection:
        note = credit_notes.read(connection, request.path_params["credit_note_id"], account_id)
        return credit_note_document(note, invoices.read(connection, note.invoice_id, account_id))


def _read(connection: Connection, request: Request) -> Invoice:
    return invoices.read(connection, request.path_params["invoice_id"], request.caller.account_id)


def _document(connection: Connection, invoice: Invoice) -> Document:
    if invoice.state == "draft":
        raise Conflict("The invoice is a draft: its usage is being collected.", code="invoice_state")
    return invoice_document(invoice, invoice_lines.read_lines(connection, invoice.id, invoice.account_id))


def _pdf(request: Request, document: Document, kind: Literal["invoice", "credit-note"]) -> Response:
    # Imported here: it takes a quarter of a second, and most web processes never need it.
    from pipelines.billing.invoice_pdf import render_pdf

    content = render_pdf(document, request.platform.settings.home / "fonts")
    name = f"{kind}-{document.title.rpartition(' ')[2]}.pdf"
    headers = {**DOCUMENT_HEADERS, "content-disposition": f'inline; filename="{name}"'}
    return Response(content, headers=headers, media_type="application/pdf")
