"""The routes of payments, payment methods, and the events of gateways."""

from web.access.rights import Rights
from web.api.billing import admin_payments, payment_methods, payments, simulator_pages, webhooks
from web.api.routing import Route
from web.http.paging import Listing
from web.http.responses import Page

PAYMENT_ROUTES = (
    Route("GET", "/billing/payments", payments.list_payments, Rights.BILLING, query=payments.ListPayments,
          response=Page[payments.PaymentObject]),
    Route("GET", "/billing/payments/{payment_id}", payments.retrieve, Rights.BILLING,
          response=payments.PaymentWithRefunds),
    Route("GET", "/billing/payment_methods", payment_methods.list_methods, Rights.BILLING, query=Listing,
          response=Page[payment_methods.PaymentMethodObject]),
    Route("POST", "/billing/payment_methods", payment_methods.create, Rights.BILLING,
          body=payment_methods.AddPaymentMethod, response=payment_methods.PaymentMethodObject, status=201,
          other_responses={202: payment_methods.PaymentMethodSetUp}, creates=True),
    Route("POST", "/billing/payment_methods/{payment_method_id}/default", payment_methods.make_default, Rights.BILLING,
          response=payment_methods.PaymentMethodObject),
    Route("DELETE", "/billing/payment_methods/{payment_method_id}", payment_methods.delete, Rights.BILLING,
          response=payment_methods.PaymentMethodDeleted),
    Route("POST", "/billing/portal", payment_methods.open_portal, Rights.BILLING, body=payment_methods.OpenPortal,
          response=payment_methods.PortalObject),
    Route("GET", "/billing/simulator/charges/{charge_id}", simulator_pages.confirm_charge, Rights.PUBLIC,
          query=simulator_pages.AnswerCharge, has_side_effects=True, purpose="simulator"),
    Route("GET", "/billing/simulator/methods/{customer_id}", simulator_pages.choose_method, Rights.PUBLIC,
          query=simulator_pages.ChooseMethod, has_side_effects=True, purpose="simulator"),
    Route("POST", "/webhooks/{gateway}", webhooks.receive, Rights.PUBLIC, response=webhooks.WebhookReceived, cost=0,
          max_body=webhooks.MAX_BODY),
    Route("POST", "/admin/billing/payments/{payment_id}/refund", admin_payments.refund, Rights.OPERATOR,
          body=admin_payments.RefundPayment, response=payments.RefundObject, status=201, creates=True),
    Route("POST", "/admin/billing/payments/{payment_id}/mark_paid", admin_payments.mark_paid, Rights.OPERATOR,
          body=admin_payments.MarkPaid, response=payments.PaymentObject),
)  # fmt: skip
