-- Memory: what was said (episodes), what follows from it (facts), and what meditation makes of it (insights).

-- A user's memories in an account, as a corpus. Whoever writes into it locks this row first: ordinals and statistics
-- have one writer at a time.
CREATE TABLE memory_spaces (
    id            bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id    text    NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id       text    NOT NULL REFERENCES users ON DELETE CASCADE,
    next_ordinal  integer NOT NULL DEFAULT 0,
    live          integer NOT NULL DEFAULT 0,       -- memories that recall looks at
    terms         bigint  NOT NULL DEFAULT 0,       -- the sum of their lengths, for the average that BM25 needs
    indexed_at    timestamptz,                      -- since when an HNSW index of this space's own stands
    UNIQUE (account_id, user_id)
);

CREATE TABLE memories (
    id                text         PRIMARY KEY,
    account_id        text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id           text         NOT NULL REFERENCES users ON DELETE CASCADE,
    space_id          bigint       NOT NULL REFERENCES memory_spaces ON DELETE CASCADE,
    ordinal           integer      NOT NULL,               -- its place in the space's postings; never used twice
    kind              text         NOT NULL DEFAULT 'episode' CHECK (kind IN ('episode', 'fact', 'insight')),
    text              text         NOT NULL,
    speaker           text         NOT NULL DEFAULT '',
    occurred_at       timestamptz  NOT NULL,
    conversation_id   text,                                -- any text: of ours, or the caller's own name for a session
    response_id       text,                                -- the turn that it comes from
    metadata          jsonb        NOT NULL DEFAULT '{}',
    embedding         halfvec(384) NOT NULL,
    context_embedding halfvec(384),                        -- with what was said before it
    importance        real         NOT NULL DEFAULT 0.5 CHECK (importance BETWEEN 0 AND 1),
    recalled          integer      NOT NULL DEFAULT 0,
    recalled_at       timestamptz,
    valid_from        timestamptz,
    closed_at         timestamptz,                         -- replaced, merged or its sources are gone: recall passes it by
    closed_by         text,                                -- the memory that took its place
    unique_key        text,                                -- remembering the same again changes nothing
    created_at        timestamptz  NOT NULL DEFAULT now(),
    updated_at        timestamptz  NOT NULL DEFAULT now(),
    UNIQUE (space_id, ordinal)
);

CREATE INDEX memories_listed ON memories (account_id, user_id, id DESC);
CREATE INDEX memories_conversation ON memories (space_id, conversation_id, occurred_at, ordinal);
CREATE INDEX memories_time ON memories (space_id, occurred_at);
CREATE UNIQUE INDEX memories_unique ON memories (space_id, unique_key) WHERE unique_key IS NOT NULL;

-- Facts and insights cite what they come from.
CREATE TABLE memory_sources (
    memory_id   text  NOT NULL REFERENCES memories ON DELETE CASCADE,
    source_id   text  NOT NULL REFERENCES memories ON DELETE CASCADE,
    PRIMARY KEY (memory_id, source_id)
);

CREATE INDEX memory_sources_source ON memory_sources (source_id);

-- The inverted index: for a term, the memories of a block of ordinals that have it, as packed entries
-- (models/postings.py). One row holds what a table of terms would need hundreds of rows for.
CREATE TABLE memory_postings (
    space_id  bigint  NOT NULL REFERENCES memory_spaces ON DELETE CASCADE,
    term      text    NOT NULL,
    block     integer NOT NULL,
    entries   bytea   NOT NULL,
    PRIMARY KEY (space_id, term, block)
);

ALTER TABLE memory_postings ALTER COLUMN entries SET STORAGE EXTERNAL;
