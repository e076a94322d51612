-- Conversations and their turns. The status of a response is the state of its job.

CREATE TABLE conversations (
    id          text        PRIMARY KEY,
    account_id  text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    metadata    jsonb       NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX conversations_account ON conversations (account_id, id DESC);

CREATE TABLE responses (
    id                  text        PRIMARY KEY,
    account_id          text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id             text        REFERENCES users ON DELETE SET NULL,
    job_id              text        NOT NULL UNIQUE REFERENCES jobs ON DELETE CASCADE,
    conversation_id     text        REFERENCES conversations ON DELETE SET NULL,
    previous_id         text        REFERENCES responses ON DELETE SET NULL,
    thread              text        NOT NULL,             -- the conversation, or the first response of the chain
    request             jsonb       NOT NULL,             -- parameters: model, instructions, sampling, metadata …
    input               jsonb       NOT NULL,             -- the items of this turn
    output              jsonb       NOT NULL DEFAULT '[]',
    usage               jsonb,
    incomplete_details  jsonb,
    created_at          timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX responses_conversation ON responses (conversation_id) WHERE conversation_id IS NOT NULL;
CREATE INDEX responses_user ON responses (user_id);
CREATE INDEX responses_previous ON responses (previous_id) WHERE previous_id IS NOT NULL;

-- The items of conversations, in the order in which their turns ended.
CREATE TABLE conversation_items (
    id               text        PRIMARY KEY,
    position         bigint      GENERATED ALWAYS AS IDENTITY,
    conversation_id  text        NOT NULL REFERENCES conversations ON DELETE CASCADE,
    account_id       text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    response_id      text        REFERENCES responses ON DELETE SET NULL,
    item             jsonb       NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX conversation_items_order ON conversation_items (conversation_id, position);
CREATE INDEX conversation_items_response ON conversation_items (response_id) WHERE response_id IS NOT NULL;

-- Tokens billed: one row per ended turn, counted from its journal. It is kept when the turn is deleted.
CREATE TABLE usage_records (
    job_id         text        PRIMARY KEY,
    account_id     text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    model          text        NOT NULL,
    input_tokens   integer     NOT NULL,
    cached_tokens  integer     NOT NULL,
    output_tokens  integer     NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX usage_records_account ON usage_records (account_id, created_at);
