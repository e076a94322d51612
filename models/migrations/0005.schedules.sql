-- What is to happen at some time, or again and again, and what came of it.

-- The platform's own timetable and what users ask for, in one table: whoever leads takes what is due, by the clock of
-- this database.
CREATE TABLE schedules (
    id             text        PRIMARY KEY,
    account_id     text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id        text,                                 -- whom it acts for; null: the platform's own
    name           text        NOT NULL,
    kind           text        NOT NULL,                 -- of the work: which part of the house starts it
    asked          jsonb       NOT NULL DEFAULT '{}',    -- the work, in the words of who asked for it
    plan           jsonb       NOT NULL DEFAULT '{}',    -- the work, in the words of what starts it
    trigger        jsonb       NOT NULL,
    if_missed      text        NOT NULL CHECK (if_missed IN ('run_once', 'skip')),
    grace_seconds  integer     NOT NULL CHECK (grace_seconds > 0),   -- a firing that is later than this was missed
    paused_at      timestamptz,
    next_fire_at   timestamptz,                          -- null: paused, or there is no next time
    planned_at     timestamptz NOT NULL DEFAULT now(),   -- when that was worked out: in the future, the clock went back
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    -- It goes with its maker's place in the account.
    FOREIGN KEY (account_id, user_id) REFERENCES memberships ON DELETE CASCADE
);

CREATE INDEX schedules_account ON schedules (account_id, id DESC);
CREATE INDEX schedules_maker ON schedules (account_id, user_id);
CREATE INDEX schedules_due ON schedules (next_fire_at) WHERE next_fire_at IS NOT NULL;
CREATE INDEX schedules_planned ON schedules (planned_at) WHERE next_fire_at IS NOT NULL;

-- A time at which a schedule fired: inserted together with its job, once, whoever leads and however often.
CREATE TABLE firings (
    id            text        PRIMARY KEY,
    schedule_id   text        NOT NULL REFERENCES schedules ON DELETE CASCADE,
    account_id    text        NOT NULL,
    fire_time     timestamptz NOT NULL,                  -- when it should have been
    fired_at      timestamptz NOT NULL DEFAULT now(),    -- when it was
    missed_since  timestamptz,                           -- the first of the missed times for which it stands
    status        text        NOT NULL CHECK (status IN ('started', 'skipped', 'refused')),
    job_id        text,                                  -- no reference: the history outlives the job
    error         jsonb,
    UNIQUE (schedule_id, fire_time)
);

CREATE INDEX firings_history ON firings (schedule_id, id DESC);
CREATE INDEX firings_account ON firings (account_id);
CREATE INDEX firings_age ON firings (fired_at);
