-- roll: expand
-- Passages of long memories, and the version of the terms under which the memories of a space are indexed.
--
-- The previous version reads and writes terms of version 1. A space gets version 2 once the upgrade is finalized
-- (pipelines/memory/reindex.py), so both versions find all memories during a rolling deploy.
ALTER TABLE memory_spaces
    ADD COLUMN term_version   smallint NOT NULL DEFAULT 1,  -- of what writers add
    ADD COLUMN reindex_below  integer  NOT NULL DEFAULT 0,  -- memories below this ordinal may have the version before
    ADD COLUMN next_passage   integer  NOT NULL DEFAULT 0;  -- number of the next passage; never reused

-- A part of a long memory. Its postings have the ordinal -1 - number.
CREATE TABLE memory_passages (
    space_id   bigint   NOT NULL,
    number     integer  NOT NULL,
    ordinal    integer  NOT NULL,               -- its memory's
    start      integer  NOT NULL,               -- its first character
    length     integer  NOT NULL,               -- characters
    terms      text[]   NOT NULL DEFAULT '{}',  -- its terms in the postings, to remove it from them
    embedding  halfvec(384),                    -- null until a job has embedded it
    PRIMARY KEY (space_id, number),
    FOREIGN KEY (space_id, ordinal) REFERENCES memories (space_id, ordinal) ON DELETE CASCADE
);

ALTER TABLE memory_passages ALTER COLUMN embedding SET STORAGE PLAIN;

CREATE INDEX memory_passages_memory ON memory_passages (space_id, ordinal);
CREATE INDEX memory_passages_missing ON memory_passages (space_id) WHERE embedding IS NULL;
