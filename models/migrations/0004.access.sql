-- Who may come in, by what proof, and how much of the house they may use.

-- An address belongs to whoever has proved it. Until then anyone may claim it, so that signing up with a known address
-- looks like signing up with an unknown one.
ALTER TABLE users
    ADD COLUMN name               text        NOT NULL DEFAULT '',
    ADD COLUMN email_verified_at  timestamptz,
    ADD COLUMN operator           boolean     NOT NULL DEFAULT false;

DROP INDEX users_email;
CREATE INDEX users_email ON users (lower(email), created_at);
CREATE UNIQUE INDEX users_verified_email ON users (lower(email)) WHERE email_verified_at IS NOT NULL;

-- What an account may use. `limits` has the fields of `models.accounts.plans.Limits`; null is no limit.
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
    ADD COLUMN limits     jsonb       NOT NULL DEFAULT '{}',   -- an operator's word, above the plan's
    ADD COLUMN erased_at  timestamptz;                         -- only what money needs is left

-- A login. Its refresh tokens are one family: the one that was given out last is good, an older one ends the session.
CREATE TABLE sessions (
    id            text        PRIMARY KEY,
    user_id       text        NOT NULL REFERENCES users ON DELETE CASCADE,
    account_id    text        REFERENCES accounts ON DELETE SET NULL,   -- that its last token was for
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
    hash        bytea       PRIMARY KEY,      -- SHA-256 of a random token: nothing to guess, so nothing slow is needed
    session_id  text        NOT NULL REFERENCES sessions ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    used_at     timestamptz
);

CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- The generations of the key that signs access tokens; the newest one signs, each holds as long as its tokens do.
CREATE TABLE signing_keys (
    generation  integer     PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT now()
);

INSERT INTO signing_keys (generation) VALUES (1);

-- What an application shows. It acts as the member who made it, within its scopes, as long as that member belongs.
CREATE TABLE api_keys (
    id            text        PRIMARY KEY,
    account_id    text        NOT NULL,
    user_id       text        NOT NULL,
    name          text        NOT NULL,
    hint          text        NOT NULL,       -- its beginning and end, to tell it from others
    hash          bytea       NOT NULL UNIQUE,
    scopes        text[]      NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    -- It goes with its maker's place in the account: whoever is taken in again finds none of their old keys alive.
    FOREIGN KEY (account_id, user_id) REFERENCES memberships ON DELETE CASCADE
);

CREATE INDEX api_keys_account ON api_keys (account_id, id DESC);
CREATE INDEX api_keys_maker ON api_keys (user_id, account_id);

-- What was mailed to prove an address or to reset a password: good once, for a while.
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

-- Who somebody is at an OIDC provider.
CREATE TABLE identities (
    provider    text        NOT NULL,
    subject     text        NOT NULL,
    user_id     text        NOT NULL REFERENCES users ON DELETE CASCADE,
    email       text        NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, subject)
);

CREATE INDEX identities_user ON identities (user_id);

-- What happened that matters for security. Written in the transaction of what it tells of; never changed.
CREATE TABLE audit_events (
    id          text        PRIMARY KEY,
    account_id  text        REFERENCES accounts ON DELETE CASCADE,
    user_id     text,                         -- no reference: what somebody did outlives them
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

-- The first answer to a creating request with an Idempotency-Key; the same request gets it again.
CREATE TABLE idempotency_keys (
    account_id    text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    key           text        NOT NULL,
    fingerprint   bytea       NOT NULL,       -- of method, path and body
    seed          text        NOT NULL,       -- the ids of what is created come from it: a second try creates the same
    status        integer,                    -- null: still in flight
    headers       jsonb,
    body          bytea,                      -- sealed: it may show a secret
    locked_until  timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, key)
);

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- A job reserves its worst case from its account's quota for as long as it is unfinished, however it ends.
ALTER TABLE jobs ADD COLUMN reserved_tokens bigint NOT NULL DEFAULT 0;
CREATE INDEX jobs_reserved ON jobs (account_id) INCLUDE (reserved_tokens)
    WHERE reserved_tokens > 0 AND state IN ('queued', 'running', 'waiting');
CREATE INDEX jobs_account_state ON jobs (account_id, state, id DESC);

-- Tokens billed in a calendar month (UTC), the sum of its usage records. Each job adds to one of several slots, so that
-- the jobs of an account that end at the same time need not wait for each other's commit.
CREATE TABLE quota_usage (
    account_id  text      NOT NULL REFERENCES accounts ON DELETE CASCADE,
    month       date      NOT NULL,
    slot        smallint  NOT NULL,
    tokens      bigint    NOT NULL,
    PRIMARY KEY (account_id, month, slot)
);

-- A turn with `store: false` goes once it has been read, at this time at the latest.
ALTER TABLE responses ADD COLUMN expires_at timestamptz;
CREATE INDEX responses_expiring ON responses (expires_at) WHERE expires_at IS NOT NULL;

-- The order of a schema's properties is the order in which an answer gives them; jsonb would not keep it.
ALTER TABLE responses ALTER COLUMN request TYPE json;

-- Jobs whose result is read once go by this where nobody comes to read it.
CREATE INDEX jobs_unread ON jobs (finished_at) 
    WHERE kind IN ('embedding.create', 'tokens.count', 'memory.search');

-- What an account has or was given as a file; the bytes are in the object store.
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
