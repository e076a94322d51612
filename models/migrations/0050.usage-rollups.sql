-- roll: expand
-- What reports need of each job's usage, and sums of it by quarter of an hour.

-- The transaction that has changed a row last. Rows from before this migration have 0, which no transaction is.
ALTER TABLE usage_records
    ADD COLUMN changed_in           xid8 NOT NULL DEFAULT '0',
    ADD COLUMN usage_kind           text,  -- of the job; null: written by an earlier version
    ADD COLUMN usage_class          text,
    ADD COLUMN queue_seconds        real,  -- until the first attempt
    ADD COLUMN first_token_seconds  real,  -- from the request; null: several attempts have answered it
    ADD COLUMN tokens_per_second    real;  -- of the last attempt
ALTER TABLE usage_records ALTER COLUMN changed_in SET DEFAULT pg_current_xact_id();

-- Whatever version changes a row marks it. An invoice changes `billed_on` only, which no report has.
CREATE FUNCTION mark_changed_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    new.changed_in := pg_current_xact_id();
    RETURN new;
END $$;

CREATE TRIGGER usage_records_changed BEFORE UPDATE ON usage_records FOR EACH ROW
WHEN ((old.model, old.input_tokens, old.cached_tokens, old.output_tokens, old.billed_amount, old.billed_currency,
       old.billed_user_id, old.billed_key_id, old.billed_agent, old.usage_kind, old.usage_class, old.queue_seconds,
       old.first_token_seconds, old.tokens_per_second)
      IS DISTINCT FROM
      (new.model, new.input_tokens, new.cached_tokens, new.output_tokens, new.billed_amount, new.billed_currency,
       new.billed_user_id, new.billed_key_id, new.billed_agent, new.usage_kind, new.usage_class, new.queue_seconds,
       new.first_token_seconds, new.tokens_per_second))
EXECUTE FUNCTION mark_changed_usage();

-- Sums of usage records. They name ids, and outlive the accounts and users that have them. Empty texts stand for null.
CREATE TABLE usage_rollups (
    account_id     text        NOT NULL,
    quarter        timestamptz NOT NULL,
    user_id        text        NOT NULL,
    key_id         text        NOT NULL,
    agent          text        NOT NULL,
    model          text        NOT NULL,
    class          text        NOT NULL,
    job_kind       text        NOT NULL,
    currency       text        NOT NULL,
    jobs           bigint      NOT NULL,
    input_tokens   bigint      NOT NULL,
    cached_tokens  bigint      NOT NULL,
    output_tokens  bigint      NOT NULL,
    amount         numeric     NOT NULL
);
CREATE INDEX usage_rollups_account ON usage_rollups (account_id, quarter);
CREATE INDEX usage_rollups_quarter ON usage_rollups (quarter);

-- Histograms: how many jobs had a measure within the bounds of a bucket (models/reports/histograms.py).
CREATE TABLE latency_rollups (
    account_id  text        NOT NULL,
    quarter     timestamptz NOT NULL,
    user_id     text        NOT NULL,
    key_id      text        NOT NULL,
    agent       text        NOT NULL,
    model       text        NOT NULL,
    class       text        NOT NULL,
    job_kind    text        NOT NULL,
    measure     text        NOT NULL,
    bucket      smallint    NOT NULL,
    samples     bigint      NOT NULL
);
CREATE INDEX latency_rollups_account ON latency_rollups (account_id, quarter);
CREATE INDEX latency_rollups_quarter ON latency_rollups (quarter);

-- Which quarter hours the roll-ups have: those of the accounts up to `rolled_up_to`, null: of all, without those that
-- have a record which `watermark` or a later transaction has changed.
CREATE TABLE rollup_state (
    only_row      boolean  PRIMARY KEY DEFAULT true CHECK (only_row),
    watermark     xid8     NOT NULL,
    server        bigint   NOT NULL,            -- that has numbered the transactions
    rolled_up_to  text     DEFAULT ''
);
INSERT INTO rollup_state (watermark, server)
SELECT pg_snapshot_xmin(pg_current_snapshot()), system_identifier FROM pg_control_system();
