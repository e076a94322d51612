-- roll: expand
-- Changes of the number of memories, by quarter of an hour. Each statement inserts a row a user; a job merges the rows
-- of past quarter hours (models/reports/memory_counts.py). So reports add up all rows, whenever they are merged.
-- No reference to accounts: the numbers outlive them.
CREATE TABLE memory_counts (
    quarter      timestamptz NOT NULL,
    account_id   text        NOT NULL,
    user_id      text        NOT NULL,
    memory_kind  text        NOT NULL,
    merged       boolean     NOT NULL,
    created      bigint      NOT NULL,
    deleted      bigint      NOT NULL,
    living       bigint      NOT NULL   -- by how much the number grows of those that are neither deleted nor closed
);
CREATE INDEX memory_counts_account ON memory_counts (account_id, quarter);
CREATE INDEX memory_counts_quarter ON memory_counts (quarter);
CREATE INDEX memory_counts_unmerged ON memory_counts (quarter) WHERE NOT merged;

CREATE FUNCTION count_created_memories() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memory_counts (quarter, account_id, user_id, memory_kind, merged, created, deleted, living)
    SELECT date_bin('15 minutes', now(), '2000-01-01 00:00+00'), account_id, user_id, kind, false, count(*), 0,
           count(*) FILTER (WHERE closed_at IS NULL)
    FROM changed GROUP BY account_id, user_id, kind;
    RETURN NULL;
END $$;

CREATE FUNCTION count_deleted_memories() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memory_counts (quarter, account_id, user_id, memory_kind, merged, created, deleted, living)
    SELECT date_bin('15 minutes', now(), '2000-01-01 00:00+00'), account_id, user_id, kind, false, 0, count(*),
           - count(*) FILTER (WHERE closed_at IS NULL)
    FROM changed GROUP BY account_id, user_id, kind;
    RETURN NULL;
END $$;

CREATE FUNCTION count_closed_memory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memory_counts (quarter, account_id, user_id, memory_kind, merged, created, deleted, living)
    VALUES (date_bin('15 minutes', now(), '2000-01-01 00:00+00'), new.account_id, new.user_id, new.kind, false, 0, 0,
            CASE WHEN new.closed_at IS NULL THEN 1 ELSE -1 END);
    RETURN NULL;
END $$;

CREATE TRIGGER memories_created AFTER INSERT ON memories REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION count_created_memories();
CREATE TRIGGER memories_deleted AFTER DELETE ON memories REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_memories();
CREATE TRIGGER memories_closed AFTER UPDATE ON memories FOR EACH ROW
WHEN ((old.closed_at IS NULL) <> (new.closed_at IS NULL))
EXECUTE FUNCTION count_closed_memory();

-- The memories that exist, by the time of their creation. Writers wait meanwhile: a million take two seconds.
INSERT INTO memory_counts (quarter, account_id, user_id, memory_kind, merged, created, deleted, living)
SELECT date_bin('15 minutes', created_at, '2000-01-01 00:00+00'), account_id, user_id, kind, true, count(*), 0,
       count(*) FILTER (WHERE closed_at IS NULL)
FROM memories GROUP BY 1, 2, 3, 4;
