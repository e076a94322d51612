-- Accounts own all other rows. Users are members with a role, and may be members of several accounts.

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE accounts (
    id          text        PRIMARY KEY,
    name        text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    id             text        PRIMARY KEY,
    email          text        NOT NULL,
    password_hash  text,                                -- Argon2id; null: the user logs in by OIDC only
    created_at     timestamptz NOT NULL DEFAULT now()
);

-- E-mail addresses are compared without case.
CREATE UNIQUE INDEX users_email ON users (lower(email));

CREATE TABLE memberships (
    account_id  text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id     text        NOT NULL REFERENCES users ON DELETE CASCADE,
    role        text        NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, user_id)
);

CREATE INDEX memberships_user ON memberships (user_id);
