-- roll: expand
-- The oldest code that works with this schema, as the number of the newest migration that it knows. A contract migration
-- raises it, so that `sangha doctor --release` of an earlier version learns that it cannot run.
CREATE TABLE schema_compatibility (
    only_row      boolean  PRIMARY KEY DEFAULT true CHECK (only_row),
    oldest_code   text     NOT NULL
);

INSERT INTO schema_compatibility (oldest_code) VALUES ('0008');
