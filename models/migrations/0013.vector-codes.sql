-- roll: expand
-- Binary codes of the vectors of large spaces, packed in blocks (models/memory/vector_codes.py). They replace the HNSW
-- index of each large space, which the nightly pruning drops. The columns `indexed_at` and `index_asked_at` of
-- memory_spaces are still used by the previous version.
CREATE TABLE memory_vector_codes (
    space_id  bigint   NOT NULL REFERENCES memory_spaces ON DELETE CASCADE,
    block     integer  NOT NULL,
    codes     bytea    NOT NULL,   -- 48 bytes per ordinal; empty: no memory of the block is live
    version   uuid     NOT NULL,   -- another one after each change, for copies in workers
    PRIMARY KEY (space_id, block)
);

ALTER TABLE memory_vector_codes ALTER COLUMN codes SET STORAGE EXTERNAL;
