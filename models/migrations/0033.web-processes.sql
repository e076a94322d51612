-- roll: expand
-- Leases of web processes. The previous version's processes have none, and its turns name none.
CREATE TABLE web_processes (
    name    text        PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
);
