-- One logical schema for both databases. Times are microseconds since the Unix epoch, ids are
-- made by the program, JSON is text. Booleans are 0 and 1. STRICT: a value of the wrong type
-- is refused, as PostgreSQL does.

CREATE TABLE organizations (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX organizations_newest ON organizations (created_at, id);

CREATE TABLE users (
    id         TEXT PRIMARY KEY,
    org_id     TEXT NOT NULL REFERENCES organizations (id),
    name       TEXT NOT NULL,
    email      TEXT,
    role       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX users_newest ON users (org_id, created_at, id);

CREATE TABLE projects (
    id         TEXT PRIMARY KEY,
    org_id     TEXT NOT NULL REFERENCES organizations (id),
    name       TEXT NOT NULL,
    is_default INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- What a row of another table points to when it names both: a project of that organization.
    UNIQUE (org_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX projects_newest ON projects (org_id, created_at, id);
CREATE UNIQUE INDEX projects_default ON projects (org_id) WHERE is_default = TRUE;

CREATE TABLE api_keys (
    id                 TEXT PRIMARY KEY,
    org_id             TEXT NOT NULL REFERENCES organizations (id),
    name               TEXT NOT NULL,
    prefix             TEXT NOT NULL,
    last4              TEXT NOT NULL,
    hash               BLOB NOT NULL UNIQUE,
    scopes             TEXT NOT NULL,
    project_ids        TEXT,
    created_by_user_id TEXT NOT NULL REFERENCES users (id),
    created_at         INTEGER NOT NULL,
    revoked_at         INTEGER,
    last_used_at       INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_newest ON api_keys (org_id, created_at, id);

CREATE TABLE sandboxes (
    id                  TEXT PRIMARY KEY,
    org_id              TEXT NOT NULL,
    project_id          TEXT NOT NULL,
    node_id             TEXT NOT NULL,
    status              TEXT NOT NULL,
    template_slug       TEXT NOT NULL,
    template_id         TEXT NOT NULL,
    template_version    TEXT NOT NULL,
    template_version_id TEXT NOT NULL,
    ttl_ms              INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    ready_at            INTEGER,
    expires_at          INTEGER NOT NULL,
    destroyed_at        INTEGER,
    destroyed_reason    TEXT,
    metadata            TEXT NOT NULL,
    runtime             TEXT,
    network_mode        TEXT NOT NULL,
    created_by          TEXT NOT NULL,
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id),
    CHECK ((destroyed_at IS NOT NULL) = (status IN ('destroyed', 'failed')))
) STRICT, WITHOUT ROWID;
CREATE INDEX sandboxes_newest ON sandboxes (org_id, created_at, id);
CREATE INDEX sandboxes_live ON sandboxes (org_id, created_at, id) WHERE destroyed_at IS NULL;
CREATE INDEX sandboxes_live_of_node ON sandboxes (node_id, expires_at, id)
    WHERE destroyed_at IS NULL;

CREATE TABLE contexts (
    id         TEXT PRIMARY KEY,
    sandbox_id TEXT NOT NULL REFERENCES sandboxes (id),
    org_id     TEXT NOT NULL,
    language   TEXT NOT NULL,
    cwd        TEXT NOT NULL,
    is_default INTEGER NOT NULL,
    isolation  TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX contexts_newest ON contexts (sandbox_id, created_at, id);
CREATE UNIQUE INDEX contexts_default ON contexts (sandbox_id, language) WHERE is_default = TRUE;

CREATE TABLE idempotency (
    scope_key    BLOB PRIMARY KEY,
    request_hash BLOB NOT NULL,
    owner_node   TEXT NOT NULL,
    owner_boot   TEXT NOT NULL,
    begun_at     INTEGER NOT NULL,
    -- All three are NULL while the request is in flight.
    status       INTEGER,
    content_type TEXT,
    body         BLOB
) STRICT;
CREATE INDEX idempotency_oldest ON idempotency (begun_at);

-- No foreign keys: an entry outlives everything it names.
CREATE TABLE audit_events (
    id            TEXT PRIMARY KEY,
    org_id        TEXT NOT NULL,
    project_id    TEXT,
    at            INTEGER NOT NULL,
    actor_kind    TEXT NOT NULL,
    actor_id      TEXT NOT NULL,
    action        TEXT NOT NULL,
    resource_kind TEXT NOT NULL,
    resource_id   TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    request_id    TEXT,
    details       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_events_newest ON audit_events (org_id, at, id);
CREATE INDEX audit_events_of_resource ON audit_events (org_id, resource_id, at, id);

CREATE TABLE nodes (
    id               TEXT PRIMARY KEY,
    boot_id          TEXT NOT NULL,
    address          TEXT NOT NULL,
    lease_expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_events (
    id          TEXT PRIMARY KEY,
    org_id      TEXT NOT NULL,
    project_id  TEXT,
    resource_id TEXT,
    metric      TEXT NOT NULL,
    amount      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_events_newest ON usage_events (org_id, created_at, id);
