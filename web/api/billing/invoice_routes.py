"""The routes of billing details, invoices, credit notes and credits."""

from web.access.rights import Rights
from web.api.billing import admin_invoices, credits, details, invoices
from web.api.billing.invoice_schemas import (
    AdminInvoice,
    CreditNoteObject,
    GrantObject,
    InvoiceObject,
    InvoiceWithLines,
    LineUsageObject,
)
from web.api.routing import Route
from web.http.paging import Listing
from web.http.responses import Page

INVOICE_ROUTES = (
    Route("GET", "/billing/details", details.read, Rights.BILLING, response=details.BillingDetailsObject),
    Route("PUT", "/billing/details", details.update, Rights.BILLING, body=details.PutBillingDetails,
          response=details.BillingDetailsObject),
    Route("GET", "/billing/invoices", invoices.list_invoices, Rights.BILLING, query=invoices.ListInvoices,
          response=Page[InvoiceObject]),
    Route("GET", "/billing/invoices/{invoice_id}", invoices.read, Rights.BILLING, response=InvoiceWithLines),
    Route("GET", "/billing/invoices/{invoice_id}/usage", invoices.list_usage, Rights.BILLING,
          query=invoices.ListLineUsage, response=Page[LineUsageObject]),
    Route("GET", "/billing/invoices/{invoice_id}/html", invoices.page, Rights.BILLING),
    Route("GET", "/billing/invoices/{invoice_id}/pdf", invoices.pdf, Rights.BILLING, cost=5),
    Route("GET", "/billing/credit_notes/{credit_note_id}", invoices.read_credit_note, Rights.BILLING,
          response=CreditNoteObject),
    Route("GET", "/billing/credit_notes/{credit_note_id}/html", invoices.credit_note_page, Rights.BILLING),
    Route("GET", "/billing/credit_notes/{credit_note_id}/pdf", invoices.credit_note_pdf, Rights.BILLING, cost=5),
    Route("GET", "/billing/credits", credits.read, Rights.BILLING, query=Listing, response=credits.CreditsObject),
    Route("POST", "/billing/credits/top_up", credits.create_top_up, Rights.BILLING, body=credits.TopUp,
          response=credits.TopUpObject, creates=True),
    Route("PUT", "/billing/credits/auto_top_up", credits.put_auto_top_up, Rights.BILLING, body=credits.AutoTopUp,
          response=credits.AutoTopUpSet),
    Route("DELETE", "/billing/credits/auto_top_up", credits.delete_auto_top_up, Rights.BILLING,
          response=credits.AutoTopUpSet),
    Route("GET", "/admin/billing/seller", admin_invoices.read_seller, Rights.OPERATOR,
          response=admin_invoices.SellerObject),
    Route("PUT", "/admin/billing/seller", admin_invoices.update_seller, Rights.OPERATOR, body=admin_invoices.PutSeller,
          response=admin_invoices.SellerObject),
    Route("PUT", "/admin/billing/accounts/{account_id}/tax", admin_invoices.set_tax, Rights.OPERATOR,
          body=admin_invoices.PutTax, response=details.BillingDetailsObject),
    Route("POST", "/admin/billing/accounts/{account_id}/credits", admin_invoices.give_credits, Rights.OPERATOR,
          body=admin_invoices.GiveCredits, response=GrantObject, status=201, creates=True),
    Route("GET", "/admin/billing/invoices", admin_invoices.list_invoices, Rights.OPERATOR,
          query=admin_invoices.ListAccountInvoices, response=Page[AdminInvoice]),
    Route("POST", "/admin/billing/invoices/{invoice_id}/void", admin_invoices.void, Rights.OPERATOR,
          response=AdminInvoice),
    Route("POST", "/admin/billing/invoices/{invoice_id}/write_off", admin_invoices.write_off, Rights.OPERATOR,
          response=AdminInvoice),
    Route("POST", "/admin/billing/invoices/{invoice_id}/credit_notes", admin_invoices.create_credit_note,
          Rights.OPERATOR, body=admin_invoices.CreateCreditNote, response=CreditNoteObject, status=201, creates=True),
)  # fmt: skip
