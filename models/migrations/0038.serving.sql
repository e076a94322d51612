-- roll: expand
-- The models that workers serve or have served, local ones and those of endpoints, as their workers describe them.
CREATE TABLE served_models (
    model_name     text        NOT NULL,             -- as clients name it
    model_endpoint text        NOT NULL DEFAULT '',  -- the upstream that serves it; empty: a local engine
    model_queue    text        NOT NULL,             -- of its interactive turns
    description    jsonb       NOT NULL,             -- see `models.serving.served_models.ModelDescription`
    described_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model_name, model_endpoint)
);

-- A circuit breaker for each endpoint, shared by all processes.
CREATE TABLE circuit_breakers (
    upstream          text        PRIMARY KEY,
    breaker_state     text        NOT NULL DEFAULT 'closed' CHECK (breaker_state IN ('closed', 'open', 'half_open')),
    forced_state      text        CHECK (forced_state IN ('closed', 'open')),  -- by an operator; it overrides the state
    open_reason       text,                              -- the kind of the last failure
    changed_at        timestamptz NOT NULL DEFAULT now(),
    probe_at          timestamptz,                       -- when an open one lets a probe through
    probe_job_id      text,                              -- the job that probes
    openings          int         NOT NULL DEFAULT 0,    -- in a row, each of which doubles the time until a probe
    window_from       timestamptz NOT NULL DEFAULT now(),
    window_requests   int         NOT NULL DEFAULT 0,
    window_failures   int         NOT NULL DEFAULT 0,
    timeouts_in_a_row int         NOT NULL DEFAULT 0,
    saturated_until   timestamptz                        -- the endpoint asked to be left alone until then
);

-- What was sent to endpoints on each day (UTC) for turns of local models: the spill budget.
CREATE TABLE spill_days (
    spill_day      date    NOT NULL,
    upstream       text    NOT NULL,
    spilled_turns  bigint  NOT NULL DEFAULT 0,
    reserved_cost  numeric NOT NULL DEFAULT 0,  -- the most that unfinished turns can cost
    spent_cost     numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (spill_day, upstream)
);

-- Turns that ended on each day (UTC), by queue. Workers add to it with their heartbeats.
CREATE TABLE turn_counts (
    turn_day    date   NOT NULL,
    turn_queue  text   NOT NULL,
    ended_turns bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (turn_day, turn_queue)
);

ALTER TABLE workers
    ADD COLUMN served       jsonb NOT NULL DEFAULT '[]',  -- the models: [{"model", "endpoint", "queue", "slots"}]
    ADD COLUMN mean_seconds jsonb NOT NULL DEFAULT '{}';  -- queue → mean seconds of its last attempts

-- `any` or `local`: whether turns of an account may leave the installation. NULL: as the settings say.
ALTER TABLE accounts ADD COLUMN account_residency text;
