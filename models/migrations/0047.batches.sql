-- roll: expand
-- Batches: files of requests, each of which is a line here until the batch has ended.
CREATE TABLE batches (
    id                    text        PRIMARY KEY,
    account_id            text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id               text        REFERENCES users ON DELETE SET NULL,
    key_rights            jsonb,                  -- id, models, memory and residency of the API key; NULL: a session
    job_id                text        NOT NULL,
    endpoint              text        NOT NULL,
    input_file_id         text        NOT NULL,
    completion_window     text        NOT NULL,
    metadata              jsonb       NOT NULL DEFAULT '{}',
    status                text        NOT NULL DEFAULT 'validating' CHECK (status IN (
        'validating', 'in_progress', 'finalizing', 'completed', 'failed', 'expired', 'cancelling', 'cancelled')),
    ends_as               text        CHECK (ends_as IN ('completed', 'failed', 'expired', 'cancelled')),
    errors                jsonb       NOT NULL DEFAULT '[]',
    output_seconds        bigint,                 -- after which the files of results expire; NULL: never
    output_file_id        text,
    error_file_id         text,
    read_bytes            bigint      NOT NULL DEFAULT 0,   -- of the input file, while it is validated
    read_lines            integer     NOT NULL DEFAULT 0,   -- blank ones included
    total_lines           integer     NOT NULL DEFAULT 0,
    begun_lines           integer     NOT NULL DEFAULT 0,   -- lines begin in order
    completed_lines       integer     NOT NULL DEFAULT 0,
    failed_lines          integer     NOT NULL DEFAULT 0,
    input_tokens          bigint      NOT NULL DEFAULT 0,
    cached_tokens         bigint      NOT NULL DEFAULT 0,
    output_tokens         bigint      NOT NULL DEFAULT 0,
    reasoning_tokens      bigint      NOT NULL DEFAULT 0,
    created_at            timestamptz NOT NULL DEFAULT now(),
    expires_at            timestamptz NOT NULL,
    in_progress_at        timestamptz,
    finalizing_at         timestamptz,
    cancelling_at         timestamptz,
    ended_at              timestamptz
);
CREATE INDEX batches_account ON batches (account_id, id);
CREATE INDEX batches_in_progress ON batches (account_id) WHERE status = 'in_progress';

CREATE INDEX batches_ended_at ON batches (ended_at);

CREATE TABLE batch_lines (
    batch_id     text     NOT NULL REFERENCES batches ON DELETE CASCADE,
    position     integer  NOT NULL,      -- among the requests of the file, from 1
    account_id   text     NOT NULL REFERENCES accounts ON DELETE CASCADE,
    line         integer  NOT NULL,      -- of the file, from 1
    custom_id    text     NOT NULL,
    line_state   text     NOT NULL DEFAULT 'waiting'
                          CHECK (line_state IN ('waiting', 'running', 'completed', 'failed')),
    body         text     NOT NULL,      -- of the request; empty once the line has ended
    job_ids      text[]   NOT NULL DEFAULT '{}',
    answer       text,                   -- its line in the output or error file
    PRIMARY KEY (batch_id, position)
);
CREATE INDEX batch_lines_running ON batch_lines (batch_id, position) WHERE line_state = 'running';
CREATE INDEX batch_lines_account ON batch_lines (account_id);
