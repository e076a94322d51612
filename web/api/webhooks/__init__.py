"""`/v1/webhook_endpoints`, `/v1/webhook_deliveries` and `/v1/events`."""
