"""Endpoints, events and deliveries are exported without secrets, and erased with their account."""

import orjson

from models.accounts import account_data, account_exports
from models.platform.database import fetch_all

TABLES = ("webhook_deliveries", "webhook_endpoints", "account_events")


def test_an_export_has_no_secrets(webhooks, receiver, database):
    # Given an endpoint with a delivery
    endpoint, secret = webhooks.create(receiver.url, "file.*", description="ours")
    webhooks.record()
    # When the account is exported
    with database.transaction() as connection:
        exported = {
            name: [
                row
                for page in account_exports.export_rows(connection, name, webhooks.caller.account_id)
                for row in page
            ]
            for name in TABLES
        }
    # Then it has the rows, and no secret
    assert [len(rows) for rows in exported.values()] == [1, 1, 1]
    assert exported["webhook_endpoints"][0]["description"] == "ours"
    text = orjson.dumps(exported, default=str).decode()
    assert secret not in text
    assert endpoint.secret not in text


def test_an_erasure_deletes_all(webhooks, receiver, database):
    # Given endpoints with deliveries, of which one is pending
    endpoint = webhooks.add(receiver.url)
    for _ in range(2):
        webhooks.record()
    webhooks.step(endpoint)
    # When the account is erased
    with database.connection() as connection:
        for table in (name for name in account_data.ERASED if name in TABLES):
            while account_data.erase_batch(connection, table, webhooks.caller.account_id):
                pass
        # Then nothing is left
        for table in TABLES:
            statement = f"SELECT id FROM {table} WHERE account_id = %s"
            assert fetch_all(connection, statement, (webhooks.caller.account_id,)) == []
    # And the job that waited sends nothing
    webhooks.step(endpoint)
    assert len(receiver.requests) == 1
