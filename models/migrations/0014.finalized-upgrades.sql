-- roll: expand
-- When a process of an earlier version was last seen connected. An upgrade is finalized a day later, which raises
-- `oldest_code`: from then on formats are written, and contract migrations applied, that earlier versions do not know.
ALTER TABLE schema_compatibility ADD COLUMN older_seen_at timestamptz NOT NULL DEFAULT now();
