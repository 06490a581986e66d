-- Addresses of ports in sandboxes. A row is active while `ended_at` is NULL; after that it is a
-- record of what was reachable, from when to when.
CREATE TABLE previews (
    id                TEXT PRIMARY KEY,
    slug              TEXT NOT NULL UNIQUE,
    org_id            TEXT NOT NULL,
    project_id        TEXT NOT NULL,
    sandbox_id        TEXT NOT NULL REFERENCES sandboxes (id),
    port              INTEGER NOT NULL,
    auth_mode         TEXT NOT NULL,
    -- Hash of the token that opens one session; NULL once it did, or when there never was one.
    token_hash        BLOB,
    -- What its sessions are signed with.
    session_key       BLOB NOT NULL,
    source_command_id TEXT,
    created_by        TEXT NOT NULL,
    created_at        INTEGER NOT NULL,
    revoked_at        INTEGER,
    ended_at          INTEGER,
    CHECK (revoked_at IS NULL OR ended_at IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX previews_active ON previews (sandbox_id, port) WHERE ended_at IS NULL;
CREATE INDEX previews_active_of_org ON previews (org_id) WHERE ended_at IS NULL;
CREATE INDEX previews_newest ON previews (sandbox_id, created_at, id);
