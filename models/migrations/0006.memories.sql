-- Memories: what was said (episodes), what follows from it (facts), and the conclusions of meditations (insights).

-- The memories of a user in an account. Writers lock this row first, so ordinals and statistics
-- have one writer at a time.
CREATE TABLE memory_spaces (
    id            bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id    text    NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id       text    NOT NULL REFERENCES users ON DELETE CASCADE,
    next_ordinal  integer NOT NULL DEFAULT 0,
    live          integer NOT NULL DEFAULT 0,       -- number of memories that recall considers
    indexed_at    timestamptz,                      -- since when the space has an HNSW index
    extracted     integer NOT NULL DEFAULT 0,       -- ordinal up to which facts have been extracted
    index_asked_at timestamptz,                     -- when the job that builds or drops it was last enqueued
    UNIQUE (account_id, user_id)
);

CREATE TABLE memories (
    id                text         PRIMARY KEY,
    account_id        text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id           text         NOT NULL REFERENCES users ON DELETE CASCADE,
    space_id          bigint       NOT NULL REFERENCES memory_spaces ON DELETE CASCADE,
    ordinal           integer      NOT NULL,               -- its number in the postings; never reused
    kind              text         NOT NULL DEFAULT 'episode' CHECK (kind IN ('episode', 'fact', 'insight')),
    text              text         NOT NULL,
    speaker           text         NOT NULL DEFAULT '',
    occurred_at       timestamptz  NOT NULL,
    conversation_id   text,                                -- an id, or the caller's name of a session
    response_id       text,                                -- the turn that it is from
    metadata          jsonb        NOT NULL DEFAULT '{}',
    importance        real         NOT NULL DEFAULT 0.5 CHECK (importance BETWEEN 0 AND 1),
    recalled          integer      NOT NULL DEFAULT 0,
    recalled_at       timestamptz,
    valid_from        timestamptz,
    closed_at         timestamptz,                         -- replaced, merged, or its sources deleted: recall ignores it
    closed_by         text,                                -- the memory that replaced it
    unique_key        text,                                -- remembering the same again inserts nothing
    terms             text[]       NOT NULL DEFAULT '{}',  -- its terms in the postings, to remove it from them
    asks              boolean      NOT NULL DEFAULT false, -- whether it only asks: the answer follows
    created_at        timestamptz  NOT NULL DEFAULT now(),
    updated_at        timestamptz  NOT NULL DEFAULT now(),
    UNIQUE (space_id, ordinal)
) WITH (fillfactor = 90);  -- recall counts uses: an update should change one page

CREATE INDEX memories_listed ON memories (account_id, user_id, id DESC);
CREATE INDEX memories_conversation ON memories (space_id, coalesce(conversation_id, ''), occurred_at, ordinal)
    INCLUDE (kind, closed_at, conversation_id, speaker, response_id);
CREATE INDEX memories_time ON memories (space_id, occurred_at) INCLUDE (ordinal);
CREATE UNIQUE INDEX memories_unique ON memories (space_id, unique_key) WHERE unique_key IS NOT NULL;

-- The sources of facts and insights.
CREATE TABLE memory_sources (
    memory_id   text  NOT NULL REFERENCES memories ON DELETE CASCADE,
    source_id   text  NOT NULL REFERENCES memories ON DELETE CASCADE,
    PRIMARY KEY (memory_id, source_id)
);

CREATE INDEX memory_sources_source ON memory_sources (source_id);

-- Apart from memories, which change when they are used: an update of a row with a vector would insert it into the HNSW
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

-- The speakers of a space with their numbers of live memories: a query may name them.
CREATE TABLE memory_speakers (
    space_id  bigint  NOT NULL REFERENCES memory_spaces ON DELETE CASCADE,
    name      text    NOT NULL,
    live      integer NOT NULL,
    PRIMARY KEY (space_id, name)
);

-- The inverted index: for a term and a block of ordinals, the memories with that term, as packed entries
-- (models/memory/postings.py). A row replaces hundreds of rows of a plain table of terms.
CREATE TABLE memory_postings (
    space_id  bigint  NOT NULL REFERENCES memory_spaces ON DELETE CASCADE,
    term      text    COLLATE "C" NOT NULL,
    block     integer NOT NULL,
    entries   bytea   NOT NULL,
    PRIMARY KEY (space_id, term, block)
);

ALTER TABLE memory_postings ALTER COLUMN entries SET STORAGE EXTERNAL;

-- The memories in a turn's prompt, and whether the turn is still to be remembered.
ALTER TABLE responses
    ADD COLUMN recalled    jsonb   NOT NULL DEFAULT '[]',
    ADD COLUMN unremembered boolean NOT NULL DEFAULT false;

CREATE INDEX responses_unremembered ON responses (account_id, user_id, id) WHERE unremembered;
