"""The routes of webhook endpoints, deliveries and events."""

from web.access.rights import Rights
from web.api.job_object import JobObject
from web.api.routing import Route
from web.api.webhooks import deliveries, endpoints, events
from web.api.webhooks.schemas import (
    CreateWebhookEndpoint,
    EventObject,
    EventTypeList,
    ReplayEvents,
    RotateSecret,
    TestWebhookEndpoint,
    UpdateWebhookEndpoint,
    WebhookDeliveryObject,
    WebhookEndpointDeleted,
    WebhookEndpointObject,
    WebhookEndpointTest,
    WebhookEndpointWithSecret,
)
from web.http.paging import Listing
from web.http.responses import Page

ENDPOINT = "/v1/webhook_endpoints/{endpoint_id}"

WEBHOOK_ROUTES = (
    Route("GET", "/v1/webhook_event_types", endpoints.list_event_types, Rights.READ, response=EventTypeList),
    Route("POST", "/v1/webhook_endpoints", endpoints.create, Rights.ADMIN, body=CreateWebhookEndpoint,
          response=WebhookEndpointWithSecret, creates=True, restores=True),
    Route("GET", "/v1/webhook_endpoints", endpoints.list_endpoints, Rights.ADMIN, query=Listing,
          response=Page[WebhookEndpointObject]),
    Route("GET", ENDPOINT, endpoints.read, Rights.ADMIN, response=WebhookEndpointObject),
    Route("POST", ENDPOINT, endpoints.update, Rights.ADMIN, body=UpdateWebhookEndpoint,
          response=WebhookEndpointObject),
    Route("DELETE", ENDPOINT, endpoints.delete, Rights.ADMIN, response=WebhookEndpointDeleted, cost=0),
    Route("POST", f"{ENDPOINT}/rotate_secret", endpoints.rotate_secret, Rights.ADMIN, body=RotateSecret,
          response=WebhookEndpointWithSecret, creates=True),
    Route("POST", f"{ENDPOINT}/test", endpoints.test, Rights.ADMIN, body=TestWebhookEndpoint,
          response=WebhookEndpointTest),
    Route("POST", f"{ENDPOINT}/enable", endpoints.enable, Rights.ADMIN, response=WebhookEndpointObject),
    Route("POST", f"{ENDPOINT}/disable", endpoints.disable, Rights.ADMIN, response=WebhookEndpointObject),
    Route("POST", f"{ENDPOINT}/replay", endpoints.replay, Rights.ADMIN, body=ReplayEvents, response=JobObject,
          status=202, creates=True, restores=True),
    Route("GET", "/v1/webhook_deliveries", deliveries.list_deliveries, Rights.ADMIN, query=deliveries.ListDeliveries,
          response=Page[WebhookDeliveryObject]),
    Route("GET", "/v1/webhook_deliveries/{delivery_id}", deliveries.read, Rights.ADMIN,
          response=WebhookDeliveryObject),
    Route("POST", "/v1/webhook_deliveries/{delivery_id}/replay", deliveries.replay, Rights.ADMIN,
          response=WebhookDeliveryObject),
    Route("GET", "/v1/events", events.list_events, Rights.ADMIN, query=events.ListEvents,
          response=Page[EventObject]),
    Route("GET", "/v1/events/{event_id}", events.read, Rights.ADMIN, response=EventObject),
)  # fmt: skip
