-- Authentication, and the limits of accounts.

-- An address belongs to the user who has verified it. Others may sign up with it, so that signing up with a known address
-- looks like signing up with an unknown one.
ALTER TABLE users
    ADD COLUMN name               text        NOT NULL DEFAULT '',
    ADD COLUMN email_verified_at  timestamptz,
    ADD COLUMN operator           boolean     NOT NULL DEFAULT false;

DROP INDEX users_email;
CREATE INDEX users_email ON users (lower(email), created_at);
CREATE UNIQUE INDEX users_verified_email ON users (lower(email)) WHERE email_verified_at IS NOT NULL;

-- The limits of accounts. `limits` has the fields of `models.accounts.plans.Limits`; null is unlimited.
CREATE TABLE plans (
    id          text        PRIMARY KEY,
    name        text        NOT NULL,
    limits      jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

INSERT INTO plans (id, name, limits) VALUES ('default', 'Default', '{
    "requests_per_minute": 60000, "tokens_per_minute": 60000000, "streams": 10000,
    "unfinished_jobs": 20000, "tokens_per_month": null}');

ALTER TABLE accounts
    ADD COLUMN plan_id    text        NOT NULL DEFAULT 'default' REFERENCES plans,
    ADD COLUMN limits     jsonb       NOT NULL DEFAULT '{}',   -- replace those of the plan
    ADD COLUMN erased_at  timestamptz;                         -- only billing data is left

-- Logins. The refresh tokens of a session are a family: only the newest is valid, the use of an older one ends the session.
CREATE TABLE sessions (
    id            text        PRIMARY KEY,
    user_id       text        NOT NULL REFERENCES users ON DELETE CASCADE,
    account_id    text        REFERENCES accounts ON DELETE SET NULL,   -- of its last token
    user_agent    text        NOT NULL DEFAULT '',
    ip            text        NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_used_at  timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz
);

CREATE INDEX sessions_user ON sessions (user_id, id DESC);
CREATE INDEX sessions_account ON sessions (account_id);

CREATE TABLE refresh_tokens (
    hash        bytea       PRIMARY KEY,      -- SHA-256 of a random token, which cannot be guessed
    session_id  text        NOT NULL REFERENCES sessions ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    used_at     timestamptz
);

CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- The generations of the key that signs access tokens. The newest signs; each is accepted for the lifetime of its tokens.
CREATE TABLE signing_keys (
    generation  integer     PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT now()
);

INSERT INTO signing_keys (generation) VALUES (1);

-- Credentials of applications. A key acts for its creator, within its scopes, while the creator is a member.
CREATE TABLE api_keys (
    id            text        PRIMARY KEY,
    account_id    text        NOT NULL,
    user_id       text        NOT NULL,
    name          text        NOT NULL,
    hint          text        NOT NULL,       -- the secret's beginning and end
    hash          bytea       NOT NULL UNIQUE,
    scopes        text[]      NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    -- Deleted with its creator's membership, so that a user who joins again has no old keys.
    FOREIGN KEY (account_id, user_id) REFERENCES memberships ON DELETE CASCADE
);

CREATE INDEX api_keys_account ON api_keys (account_id, id DESC);
CREATE INDEX api_keys_maker ON api_keys (user_id, account_id);

-- Tokens that are e-mailed to verify an address or to reset a password. Each is valid once, until it expires.
CREATE TABLE email_tokens (
    hash        bytea       PRIMARY KEY,
    purpose     text        NOT NULL CHECK (purpose IN ('verify', 'reset')),
    user_id     text        NOT NULL REFERENCES users ON DELETE CASCADE,
    email       text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);

CREATE INDEX email_tokens_user ON email_tokens (user_id);

CREATE TABLE invitations (
    id           text        PRIMARY KEY,
    account_id   text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    email        text        NOT NULL,
    role         text        NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    hash         bytea       NOT NULL UNIQUE,
    invited_by   text        REFERENCES users ON DELETE SET NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    accepted_at  timestamptz,
    revoked_at   timestamptz
);

CREATE INDEX invitations_account ON invitations (account_id, id DESC);

-- Identities of users at OIDC providers.
CREATE TABLE identities (
    provider    text        NOT NULL,
    subject     text        NOT NULL,
    user_id     text        NOT NULL REFERENCES users ON DELETE CASCADE,
    email       text        NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, subject)
);

CREATE INDEX identities_user ON identities (user_id);

-- Security events, written in the transaction of their action and never changed.
CREATE TABLE audit_events (
    id          text        PRIMARY KEY,
    account_id  text        REFERENCES accounts ON DELETE CASCADE,
    user_id     text,                         -- no reference: events are kept when the user is deleted
    action      text        NOT NULL,         -- noun.verb, such as `session.created`
    target      text        NOT NULL DEFAULT '',
    ip          text        NOT NULL DEFAULT '',
    user_agent  text        NOT NULL DEFAULT '',
    request_id  text        NOT NULL DEFAULT '',
    details     jsonb       NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX audit_events_account ON audit_events (account_id, id DESC);
CREATE INDEX audit_events_user ON audit_events (user_id, id DESC);

-- The first response to a creating request with an Idempotency-Key, which repeated requests get.
CREATE TABLE idempotency_keys (
    account_id    text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    key           text        NOT NULL,
    fingerprint   bytea       NOT NULL,       -- of method, path and body
    seed          text        NOT NULL,       -- source of the ids of created objects: a retry creates the same
    status        integer,                    -- null: in progress
    headers       jsonb,
    body          bytea,                      -- encrypted: it may contain a secret
    locked_until  timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, key)
);

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- An unfinished job reserves the most tokens that it can use.
ALTER TABLE jobs ADD COLUMN reserved_tokens bigint NOT NULL DEFAULT 0;
CREATE INDEX jobs_reserved ON jobs (account_id) INCLUDE (reserved_tokens)
    WHERE reserved_tokens > 0 AND state IN ('queued', 'running', 'waiting');
CREATE INDEX jobs_account_state ON jobs (account_id, state, id DESC);

-- Tokens billed per calendar month (UTC), the sum of the usage records. Each job adds to one of several slots, so that jobs
-- of an account that end at the same time do not wait for each other's commit.
CREATE TABLE quota_usage (
    account_id  text      NOT NULL REFERENCES accounts ON DELETE CASCADE,
    month       date      NOT NULL,
    slot        smallint  NOT NULL,
    tokens      bigint    NOT NULL,
    PRIMARY KEY (account_id, month, slot)
);

-- A turn with `store: false` is deleted when it was read, or after this time.
ALTER TABLE responses ADD COLUMN expires_at timestamptz;
CREATE INDEX responses_expiring ON responses (expires_at) WHERE expires_at IS NOT NULL;

-- jsonb does not keep the order of a schema's properties, which is the order in the generated answer.
ALTER TABLE responses ALTER COLUMN request TYPE json;

-- Unclaimed one-shot results.
CREATE INDEX jobs_unread ON jobs (finished_at) 
    WHERE kind IN ('embedding.create', 'tokens.count', 'memory.search');

-- The files of accounts; their content is in the object store.
CREATE TABLE files (
    id            text        PRIMARY KEY,
    account_id    text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id       text        REFERENCES users ON DELETE SET NULL,
    job_id        text,
    filename      text        NOT NULL,
    purpose       text        NOT NULL,
    content_type  text        NOT NULL,
    bytes         bigint      NOT NULL,
    object_key    text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz
);

CREATE INDEX files_account ON files (account_id, id DESC);
CREATE INDEX files_expiring ON files (expires_at) WHERE expires_at IS NOT NULL;
