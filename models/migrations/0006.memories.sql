-- Memory: what was said (episodes), what follows from it (facts), and what meditation makes of it (insights).

-- A user's memories in an account, as a corpus. Whoever writes into it locks this row first: ordinals and statistics
-- have one writer at a time.
CREATE TABLE memory_spaces (
    id            bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id    text    NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id       text    NOT NULL REFERENCES users ON DELETE CASCADE,
    next_ordinal  integer NOT NULL DEFAULT 0,
    live          integer NOT NULL DEFAULT 0,       -- memories that recall looks at
    indexed_at    timestamptz,                      -- since when an HNSW index of this space's own stands
    extracted     integer NOT NULL DEFAULT 0,       -- the ordinal up to which facts have been looked for
    index_asked_at timestamptz,                     -- when the job that makes or drops it was enqueued last
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
    importance        real         NOT NULL DEFAULT 0.5 CHECK (importance BETWEEN 0 AND 1),
    recalled          integer      NOT NULL DEFAULT 0,
    recalled_at       timestamptz,
    valid_from        timestamptz,
    closed_at         timestamptz,                         -- replaced, merged or its sources are gone: recall passes it by
    closed_by         text,                                -- the memory that took its place
    unique_key        text,                                -- remembering the same again changes nothing
    terms             text[]       NOT NULL DEFAULT '{}',  -- where it stands in the postings: what to take out of them
    asks              boolean      NOT NULL DEFAULT false, -- whether it only asks: its answer comes next
    created_at        timestamptz  NOT NULL DEFAULT now(),
    updated_at        timestamptz  NOT NULL DEFAULT now(),
    UNIQUE (space_id, ordinal)
) WITH (fillfactor = 90);  -- recall counts its uses: that should change one page

CREATE INDEX memories_listed ON memories (account_id, user_id, id DESC);
CREATE INDEX memories_conversation ON memories (space_id, coalesce(conversation_id, ''), occurred_at, ordinal)
    INCLUDE (kind, closed_at, conversation_id, speaker, response_id);
CREATE INDEX memories_time ON memories (space_id, occurred_at) INCLUDE (ordinal);
CREATE UNIQUE INDEX memories_unique ON memories (space_id, unique_key) WHERE unique_key IS NOT NULL;

-- Facts and insights cite what they come from.
CREATE TABLE memory_sources (
    memory_id   text  NOT NULL REFERENCES memories ON DELETE CASCADE,
    source_id   text  NOT NULL REFERENCES memories ON DELETE CASCADE,
    PRIMARY KEY (memory_id, source_id)
);

CREATE INDEX memory_sources_source ON memory_sources (source_id);

-- Apart from the memories, which change as they are used: an update of a row with a vector would write it into its HNSW
-- index once more. Plain, so that a scan finds the vectors in the row.
CREATE TABLE memory_vectors (
    space_id   bigint        NOT NULL,
    ordinal    integer       NOT NULL,
    live       boolean       NOT NULL DEFAULT true,
    embedding  halfvec(384)  NOT NULL,
    PRIMARY KEY (space_id, ordinal),
    FOREIGN KEY (space_id, ordinal) REFERENCES memories (space_id, ordinal) ON DELETE CASCADE
);

ALTER TABLE memory_vectors ALTER COLUMN embedding SET STORAGE PLAIN;

-- Whose words a space has, and how many of its live memories are theirs: a question may name them.
CREATE TABLE memory_speakers (
    space_id  bigint  NOT NULL REFERENCES memory_spaces ON DELETE CASCADE,
    name      text    NOT NULL,
    live      integer NOT NULL,
    PRIMARY KEY (space_id, name)
);

-- The inverted index: for a term, the memories of a block of ordinals that have it, as packed entries
-- (models/memory/postings.py). One row holds what a table of terms would need hundreds of rows for.
CREATE TABLE memory_postings (
    space_id  bigint  NOT NULL REFERENCES memory_spaces ON DELETE CASCADE,
    term      text    COLLATE "C" NOT NULL,
    block     integer NOT NULL,
    entries   bytea   NOT NULL,
    PRIMARY KEY (space_id, term, block)
);

ALTER TABLE memory_postings ALTER COLUMN entries SET STORAGE EXTERNAL;

-- A turn tells what was recalled for it, and whether it has still to be remembered itself.
ALTER TABLE responses
    ADD COLUMN recalled    jsonb   NOT NULL DEFAULT '[]',
    ADD COLUMN unremembered boolean NOT NULL DEFAULT false;

CREATE INDEX responses_unremembered ON responses (account_id, user_id, id) WHERE unremembered;
