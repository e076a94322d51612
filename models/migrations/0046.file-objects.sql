-- roll: expand
-- Who may read a file: all members, admins, or its user and admins. NULL, of the previous version: admins an export,
-- all members another file.
ALTER TABLE files ADD COLUMN audience text;

-- Files that are not complete yet: their objects count for the account's limit and expire together.
CREATE TABLE uploads (
    id            text        PRIMARY KEY,
    account_id    text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id       text        REFERENCES users ON DELETE SET NULL,
    job_id        text,
    visible       boolean     NOT NULL,  -- /v1/uploads has it; false for what one request or job stores
    status        text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'completed', 'cancelled')),
    filename      text        NOT NULL DEFAULT '',
    purpose       text        NOT NULL DEFAULT '',
    content_type  text        NOT NULL DEFAULT '',
    audience      text,
    file_seconds  bigint,                -- after which the file expires; NULL: never
    bytes         bigint      NOT NULL,  -- declared, or reserved so far
    file_id       text,                  -- once completed
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL
);
CREATE INDEX uploads_account ON uploads (account_id);
CREATE INDEX uploads_expiring ON uploads (expires_at);

-- The parts of uploads, inserted once all of their objects are stored.
CREATE TABLE upload_parts (
    id            text        PRIMARY KEY,
    upload_id     text        NOT NULL REFERENCES uploads ON DELETE CASCADE,
    account_id    text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    bytes         bigint      NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX upload_parts_upload ON upload_parts (upload_id);
CREATE INDEX upload_parts_account ON upload_parts (account_id);

-- The objects of files and uploads, inserted before they are stored. A file of the previous version has none: its
-- object is files.object_key. Without a file and an upload, an object is left over.
CREATE TABLE file_objects (
    object_key    text        PRIMARY KEY,
    account_id    text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    upload_id     text        REFERENCES uploads ON DELETE SET NULL,
    part_id       text        NOT NULL,
    number        integer     NOT NULL,  -- in the part
    file_id       text        REFERENCES files ON DELETE SET NULL,
    position      integer,               -- in the file
    bytes         bigint      NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((file_id IS NULL) OR (position IS NOT NULL))
);
CREATE INDEX file_objects_file ON file_objects (file_id, position) WHERE file_id IS NOT NULL;
CREATE INDEX file_objects_upload ON file_objects (upload_id) WHERE upload_id IS NOT NULL;
CREATE INDEX file_objects_account ON file_objects (account_id);
CREATE INDEX file_objects_left ON file_objects (created_at) WHERE file_id IS NULL;
