-- roll: expand
-- Jobs that ended without success, by quarter of an hour. Each end inserts a row with a count of one; a job merges the
-- rows of past quarter hours (models/reports/error_counts.py). So reports add up all rows, whenever they are merged.
-- No reference to accounts: the numbers outlive them.
CREATE TABLE error_counts (
    quarter      timestamptz NOT NULL,
    account_id   text        NOT NULL,
    user_id      text        NOT NULL,
    key_id       text        NOT NULL,
    job_kind     text        NOT NULL,
    ended_state  text        NOT NULL,
    error_code   text        NOT NULL,
    merged       boolean     NOT NULL,
    jobs         bigint      NOT NULL
);
CREATE INDEX error_counts_account ON error_counts (account_id, quarter);
CREATE INDEX error_counts_quarter ON error_counts (quarter);
CREATE INDEX error_counts_unmerged ON error_counts (quarter) WHERE NOT merged;

CREATE FUNCTION count_error() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO error_counts (quarter, account_id, user_id, key_id, job_kind, ended_state, error_code, merged, jobs)
    VALUES (date_bin('15 minutes', new.finished_at, '2000-01-01 00:00+00'), new.account_id,
            coalesce(new.owner_id, ''), coalesce(new.arguments ->> 'key_id', ''), new.kind, new.state,
            CASE WHEN new.state = 'cancelled' THEN '' ELSE coalesce(new.error ->> 'code', '') END, false, 1);
    RETURN NULL;
END $$;

-- Jobs that complete, as nearly all do, pay for a comparison only.
CREATE TRIGGER jobs_error AFTER UPDATE ON jobs FOR EACH ROW
WHEN (new.state IN ('failed', 'cancelled', 'dead') AND new.finished_at IS NOT NULL AND old.finished_at IS NULL)
EXECUTE FUNCTION count_error();
