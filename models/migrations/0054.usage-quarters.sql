-- roll: expand
-- Sums of usage records by quarter of an hour, with histograms in arrays, to which changes are added. They replace
-- `usage_rollups`, `latency_rollups` and `rollup_state`, which the version before keeps up to date for itself.

-- A group may have several rows, of which an update has inserted each: reports add them up. Rows of past quarter hours
-- are merged. They name ids, and outlive the accounts and users that have them. Empty texts stand for null.
CREATE TABLE usage_quarters (
    account_id     text        NOT NULL,
    quarter        timestamptz NOT NULL,
    user_id        text        NOT NULL,
    key_id         text        NOT NULL,
    agent          text        NOT NULL,
    model          text        NOT NULL,
    class          text        NOT NULL,
    job_kind       text        NOT NULL,
    currency       text        NOT NULL,
    merged         boolean     NOT NULL,
    jobs           bigint      NOT NULL,
    input_tokens   bigint      NOT NULL,
    cached_tokens  bigint      NOT NULL,
    output_tokens  bigint      NOT NULL,
    amount         numeric     NOT NULL,
    buckets        smallint[]  NOT NULL,  -- of all measures (models/reports/histograms.py)
    samples        bigint[]    NOT NULL   -- in each of these buckets
);
CREATE INDEX usage_quarters_account ON usage_quarters (account_id, quarter);
CREATE INDEX usage_quarters_quarter ON usage_quarters (quarter);
CREATE INDEX usage_quarters_unmerged ON usage_quarters (quarter) WHERE NOT merged;

-- Which records the sums have: those whose last change `counted` has, of the accounts up to `counted_accounts`, null:
-- of all.
CREATE TABLE usage_quarters_state (
    only_row          boolean      PRIMARY KEY DEFAULT true CHECK (only_row),
    counted           pg_snapshot  NOT NULL DEFAULT pg_current_snapshot(),
    counted_on        text         NOT NULL DEFAULT '',  -- the server and database that have numbered the transactions
    counted_accounts  text         DEFAULT ''
);
INSERT INTO usage_quarters_state DEFAULT VALUES;

-- What usage records had before they were changed or deleted, until it is subtracted from the sums.
CREATE TABLE replaced_usage (
    job_id               text         NOT NULL,
    account_id           text         NOT NULL,
    created_at           timestamptz  NOT NULL,
    model                text         NOT NULL,
    input_tokens         bigint       NOT NULL,
    cached_tokens        bigint       NOT NULL,
    output_tokens        bigint       NOT NULL,
    billed_amount        numeric,
    billed_currency      text,
    billed_user_id       text,
    billed_key_id        text,
    billed_agent         text,
    usage_kind           text,
    usage_class          text,
    queue_seconds        real,
    first_token_seconds  real,
    tokens_per_second    real,
    changed_in           xid8         NOT NULL,                                -- the transaction that wrote this
    replaced_in          xid8         NOT NULL DEFAULT pg_current_xact_id()    -- the one that has changed or deleted it
);

CREATE FUNCTION keep_replaced_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO replaced_usage (job_id, account_id, created_at, model, input_tokens, cached_tokens, output_tokens,
        billed_amount, billed_currency, billed_user_id, billed_key_id, billed_agent, usage_kind, usage_class,
        queue_seconds, first_token_seconds, tokens_per_second, changed_in)
    VALUES (old.job_id, old.account_id, old.created_at, old.model, old.input_tokens, old.cached_tokens,
        old.output_tokens, old.billed_amount, old.billed_currency, old.billed_user_id, old.billed_key_id,
        old.billed_agent, old.usage_kind, old.usage_class, old.queue_seconds, old.first_token_seconds,
        old.tokens_per_second, old.changed_in);
    RETURN NULL;
END $$;

-- `usage_records_changed` has set the mark by then. No transaction is 0: such a mark is set without a change.
CREATE TRIGGER usage_records_replaced AFTER UPDATE ON usage_records FOR EACH ROW
WHEN (old.changed_in <> new.changed_in AND new.changed_in <> '0')
EXECUTE FUNCTION keep_replaced_usage();
CREATE TRIGGER usage_records_deleted AFTER DELETE ON usage_records FOR EACH ROW
EXECUTE FUNCTION keep_replaced_usage();
