-- Secrets of the installation, the same for every server: what signed URLs are signed with. One
-- of each kind; whoever needs it first makes it.
CREATE TABLE server_secrets (
    id         TEXT COLLATE "C" PRIMARY KEY,
    kind       TEXT NOT NULL UNIQUE,
    secret     BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

-- Files that outlive their sandbox. The row is written before the object and goes through
-- pending, stored, removing, removed: whatever a crash leaves behind is named by a row.
CREATE TABLE artifacts (
    id                   TEXT COLLATE "C" PRIMARY KEY,
    org_id               TEXT COLLATE "C" NOT NULL,
    project_id           TEXT COLLATE "C" NOT NULL,
    sandbox_id           TEXT COLLATE "C" NOT NULL REFERENCES sandboxes (id),
    -- The node that writes the object while the artifact is pending.
    node_id              TEXT COLLATE "C" NOT NULL,
    state                TEXT NOT NULL CHECK (state IN ('pending', 'stored', 'removing', 'removed')),
    name                 TEXT NOT NULL,
    object_key           TEXT COLLATE "C" NOT NULL,
    size_bytes           BIGINT NOT NULL,
    sha256               TEXT,
    content_type         TEXT,
    source_path          TEXT,
    created_at           BIGINT NOT NULL,
    retention_expires_at BIGINT NOT NULL,
    deleted_at           BIGINT,
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id),
    CHECK ((deleted_at IS NOT NULL) = (state IN ('removing', 'removed')))
);
CREATE INDEX artifacts_of_sandbox ON artifacts (sandbox_id, created_at, id)
    WHERE state = 'stored';
CREATE INDEX artifacts_expiring ON artifacts (retention_expires_at, id) WHERE state = 'stored';
CREATE INDEX artifacts_unsettled ON artifacts (created_at, id)
    WHERE state IN ('pending', 'removing');
