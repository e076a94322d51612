"""The routes of plans and subscriptions."""

from web.access.rights import Rights
from web.api.billing import pay_invoice, plans, subscriptions
from web.api.routing import Route
from web.http.responses import Page

SUBSCRIPTION_ROUTES = (
    Route("GET", "/billing/plans", plans.list_public, Rights.BILLING, response=Page[plans.PlanObject]),
    Route("POST", "/billing/subscribe", subscriptions.create, Rights.BILLING, body=subscriptions.Subscribe,
          response=subscriptions.SubscriptionConfirmation, creates=True, restores=True),
    Route("GET", "/billing/subscription", subscriptions.read, Rights.BILLING,
          response=subscriptions.SubscriptionObject),
    Route("PATCH", "/billing/subscription", subscriptions.change, Rights.BILLING,
          body=subscriptions.ChangeSubscription, response=subscriptions.SubscriptionConfirmation),
    Route("POST", "/billing/subscription/cancel", subscriptions.cancel, Rights.BILLING,
          body=subscriptions.CancelSubscription, response=subscriptions.SubscriptionObject, cost=0),
    Route("POST", "/billing/subscription/resume", subscriptions.resume, Rights.BILLING,
          response=subscriptions.SubscriptionObject),
    Route("POST", "/billing/invoices/{invoice_id}/pay", pay_invoice.pay, Rights.BILLING, body=pay_invoice.PayInvoice,
          response=pay_invoice.InvoicePayment, creates=True),
    Route("GET", "/admin/plans", plans.list_plans, Rights.OPERATOR, response=Page[plans.PlanObject]),
    Route("PUT", "/admin/plans/{plan_id}", plans.put_plan, Rights.OPERATOR, body=plans.PutPlan,
          response=plans.PlanObject),
    Route("GET", "/admin/plans/{plan_id}/versions", plans.list_versions, Rights.OPERATOR,
          response=Page[plans.PlanObject]),
)  # fmt: skip
