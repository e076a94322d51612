-- Schedules and their firings.

-- The platform's own schedules and those of users. Schedulers lock and fire due ones, by the clock of
-- this database.
CREATE TABLE schedules (
    id             text        PRIMARY KEY,
    account_id     text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id        text,                                 -- for whom it acts; null: the platform's own
    name           text        NOT NULL,
    kind           text        NOT NULL,                 -- what it starts
    asked          jsonb       NOT NULL DEFAULT '{}',    -- parameters as requested
    plan           jsonb       NOT NULL DEFAULT '{}',    -- parameters as passed to the starter
    trigger        jsonb       NOT NULL,
    if_missed      text        NOT NULL CHECK (if_missed IN ('run_once', 'skip')),
    grace_seconds  integer     NOT NULL CHECK (grace_seconds > 0),   -- a firing later than this counts as missed
    paused_at      timestamptz,
    next_fire_at   timestamptz,                          -- null: paused, or there is no next time
    planned_at     timestamptz NOT NULL DEFAULT now(),   -- when that was computed; in the future: the clock was set back
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    -- Deleted with its creator's membership.
    FOREIGN KEY (account_id, user_id) REFERENCES memberships ON DELETE CASCADE
);

CREATE INDEX schedules_account ON schedules (account_id, id DESC);
CREATE INDEX schedules_maker ON schedules (account_id, user_id);
CREATE INDEX schedules_due ON schedules (next_fire_at) WHERE next_fire_at IS NOT NULL;
CREATE INDEX schedules_planned ON schedules (planned_at) WHERE next_fire_at IS NOT NULL;

-- Firings, inserted in the transaction of their job: once per schedule and time.
CREATE TABLE firings (
    id            text        PRIMARY KEY,
    schedule_id   text        NOT NULL REFERENCES schedules ON DELETE CASCADE,
    account_id    text        NOT NULL,
    fire_time     timestamptz NOT NULL,                  -- when it was due
    fired_at      timestamptz NOT NULL DEFAULT now(),    -- when it happened
    missed_since  timestamptz,                           -- the first of the missed times that it replaces
    status        text        NOT NULL CHECK (status IN ('started', 'skipped', 'refused')),
    job_id        text,                                  -- no reference: kept when the job is deleted
    error         jsonb,
    UNIQUE (schedule_id, fire_time)
);

CREATE INDEX firings_history ON firings (schedule_id, id DESC);
CREATE INDEX firings_account ON firings (account_id);
CREATE INDEX firings_age ON firings (fired_at);
