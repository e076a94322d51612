-- roll: expand
-- Agents, the MCP servers whose tools turns may call, and the approvals that calls wait for.

-- `agents` has the current version of each agent; a turn keeps the version that it began with.
CREATE TABLE agents (
    id          text        PRIMARY KEY,
    account_id  text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    name        text        NOT NULL,                -- requests name it as the model `agent/NAME`
    version     integer     NOT NULL,
    metadata    jsonb       NOT NULL DEFAULT '{}',
    created_by  text,                                -- the user; null once the user is deleted
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz                          -- its versions are kept for turns that run
);

CREATE UNIQUE INDEX agents_by_name ON agents (account_id, name) WHERE deleted_at IS NULL;
CREATE INDEX agents_deleted ON agents (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE agent_versions (
    agent_id    text        NOT NULL REFERENCES agents ON DELETE CASCADE,
    version     integer     NOT NULL,
    definition  jsonb       NOT NULL,                -- see pipelines/agents/definitions.py
    created_by  text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent_id, version)
);

-- MCP servers of an account. `credentials` are encrypted with the installation's key.
CREATE TABLE mcp_servers (
    id               text        PRIMARY KEY,
    account_id       text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    label            text        NOT NULL,
    url              text        NOT NULL,
    description      text        NOT NULL DEFAULT '',
    credentials      bytea,
    allowed_tools    jsonb,                          -- names; null: all
    require_approval jsonb       NOT NULL DEFAULT '"always"',
    created_by       text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, label)
);

-- What a server has answered to `tools/list`, by a digest of its address and credentials.
CREATE TABLE mcp_tool_lists (
    account_id  text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    server_key  text        NOT NULL,
    tools       jsonb       NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (account_id, server_key)
);

CREATE INDEX mcp_tool_lists_expired ON mcp_tool_lists (expires_at);

-- The digest of each tool's definition when it was first seen, or approved after a change.
CREATE TABLE mcp_tool_pins (
    account_id  text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    server_key  text        NOT NULL,
    tool_name   text        NOT NULL,
    digest      text        NOT NULL,
    pinned_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, server_key, tool_name)
);

-- Decisions that calls wait for. One with a `gate_job_id` is decided through the API, which makes that job due in the
-- same transaction; without one the response has ended, and the next turn brings the decision.
CREATE TABLE approvals (
    id            text        PRIMARY KEY,
    account_id    text        NOT NULL,
    user_id       text,
    response_id   text        NOT NULL REFERENCES responses ON DELETE CASCADE,
    gate_job_id   text,
    reason        text        NOT NULL CHECK (reason IN ('policy', 'arguments', 'tool_changed', 'price', 'in_doubt')),
    server_label  text        NOT NULL,
    tool_name     text        NOT NULL,
    arguments     text        NOT NULL,              -- as the model wrote them; usually JSON
    agent_name    text,
    status        text        NOT NULL DEFAULT 'pending'
                              CHECK (status IN ('pending', 'approved', 'denied', 'expired', 'cancelled')),
    decided_by    text,                              -- the user; null: nobody, or deleted
    decision_text text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    decided_at    timestamptz,
    expires_at    timestamptz NOT NULL
);

CREATE INDEX approvals_by_account ON approvals (account_id, id);
CREATE INDEX approvals_by_response ON approvals (response_id);
CREATE INDEX approvals_expired ON approvals (expires_at) WHERE status = 'pending';
