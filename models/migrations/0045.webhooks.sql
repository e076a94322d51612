-- roll: expand
-- What has happened in an account, kept for 30 days.
CREATE TABLE account_events (
    id          text        PRIMARY KEY,
    account_id  text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    event_type  text        NOT NULL,
    data        jsonb       NOT NULL,
    event_key   text,                                                 -- a second event of this type and key is ignored
    tested_id   text,                                                 -- a sample for a test of this endpoint
    recorded_in xid8        NOT NULL DEFAULT pg_current_xact_id(),    -- the order in which events are polled
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE UNIQUE INDEX account_events_key ON account_events (account_id, event_type, event_key)
    WHERE event_key IS NOT NULL;
CREATE INDEX account_events_account ON account_events (account_id, recorded_in, id);
CREATE INDEX account_events_created_at ON account_events (created_at);

CREATE TABLE webhook_endpoints (
    id                    text        PRIMARY KEY,
    account_id            text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    url                   text        NOT NULL,
    event_types           text[]      NOT NULL,                -- types, prefixes such as 'response.*', or '*'
    name                  text        NOT NULL DEFAULT '',
    description           text        NOT NULL DEFAULT '',
    metadata              jsonb       NOT NULL DEFAULT '{}',
    endpoint_status       text        NOT NULL DEFAULT 'enabled' CHECK (endpoint_status IN ('enabled', 'disabled')),
    disabled_reason       text        CHECK (disabled_reason IN ('requested', 'gone', 'failing')),
    secret                text        NOT NULL,                -- encrypted
    secret_hint           text        NOT NULL,                -- its last characters
    previous_secret       text,                                -- encrypted; signs, too, until `previous_secret_until`
    previous_secret_until timestamptz,
    failing_since         timestamptz,                         -- the first failure after the last success
    created_by            text,
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX webhook_endpoints_account ON webhook_endpoints (account_id, id);

CREATE TABLE webhook_deliveries (
    id              text        PRIMARY KEY,
    account_id      text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    endpoint_id     text        NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    event_id        text        NOT NULL REFERENCES account_events ON DELETE CASCADE,
    delivery_state  text        NOT NULL DEFAULT 'pending'
                                CHECK (delivery_state IN ('pending', 'held', 'delivered', 'failed')),
    delivery_job_id text        NOT NULL,             -- the last job that delivers it
    tries           integer     NOT NULL DEFAULT 0,   -- since the event, or since the last replay
    attempts        jsonb       NOT NULL DEFAULT '[]',
    next_attempt_at timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (event_id, endpoint_id)
);

CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (endpoint_id, id);
CREATE INDEX webhook_deliveries_account ON webhook_deliveries (account_id, id);

-- What waits for an attempt, or for an endpoint to be enabled, and what has failed.
CREATE INDEX webhook_deliveries_undelivered ON webhook_deliveries (endpoint_id, delivery_state, id)
    WHERE delivery_state <> 'delivered';
