-- roll: expand
-- How many turns were moved between local models and endpoints, for the metric.
CREATE TABLE route_moves (
    moved_endpoint text   NOT NULL,
    moved_reason   text   NOT NULL,
    moved_turns    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (moved_endpoint, moved_reason)
);

-- `local`: no turn of this key's requests leaves the operator's network. NULL: as the account says.
ALTER TABLE api_keys ADD COLUMN key_residency text;
