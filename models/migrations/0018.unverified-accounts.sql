-- roll: expand
-- The plan of accounts whose owner has not verified an address; they get the plan `default` with the verification.
-- The previous version creates accounts with the plan `default`.
INSERT INTO plans (id, name, limits) VALUES ('unverified', 'Unverified', '{
    "requests_per_minute": 600, "tokens_per_minute": 200000, "streams": 20, "unfinished_jobs": 100,
    "tokens_per_month": 2000000, "stored_bytes": 67108864}')
ON CONFLICT (id) DO NOTHING;

-- E-mails that were sent within the last hour, to limit those to one mailbox.
CREATE TABLE sent_emails (
    job_id     text        PRIMARY KEY,   -- so that a repeated attempt counts once
    recipient  bytea       NOT NULL,      -- hash of the address
    template   text        NOT NULL,
    sent_at    timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX sent_emails_recipient ON sent_emails (recipient, template, sent_at);
CREATE INDEX sent_emails_age ON sent_emails (sent_at);

-- The user whose request has the key. Null: of the previous version, which has one row per account and key.
ALTER TABLE idempotency_keys ADD COLUMN requested_by text;
