-- Addresses of ports in sandboxes. A row is active while `ended_at` is NULL; after that it is a
-- record of what was reachable, from when to when.
CREATE TABLE previews (
    id                TEXT COLLATE "C" PRIMARY KEY,
    slug              TEXT COLLATE "C" NOT NULL UNIQUE,
    org_id            TEXT COLLATE "C" NOT NULL,
    project_id        TEXT COLLATE "C" NOT NULL,
    sandbox_id        TEXT COLLATE "C" NOT NULL REFERENCES sandboxes (id),
    port              BIGINT NOT NULL,
    auth_mode         TEXT NOT NULL,
    -- Hash of the token that opens one session; NULL once it did, or when there never was one.
    token_hash        BYTEA,
    -- What its sessions are signed with.
    session_key       BYTEA NOT NULL,
    source_command_id TEXT COLLATE "C",
    created_by        TEXT COLLATE "C" NOT NULL,
    created_at        BIGINT NOT NULL,
    revoked_at        BIGINT,
    ended_at          BIGINT,
    CHECK (revoked_at IS NULL OR ended_at IS NOT NULL)
);
CREATE UNIQUE INDEX previews_active ON previews (sandbox_id, port) WHERE ended_at IS NULL;
CREATE INDEX previews_active_of_org ON previews (org_id) WHERE ended_at IS NULL;
CREATE INDEX previews_newest ON previews (sandbox_id, created_at, id);
