-- One logical schema for both databases. Times are microseconds since the Unix epoch, ids are
-- made by the program, JSON is text. COLLATE "C" orders ids by their bytes, as SQLite does.

CREATE TABLE organizations (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX organizations_newest ON organizations (created_at, id);

CREATE TABLE users (
    id         TEXT COLLATE "C" PRIMARY KEY,
    org_id     TEXT COLLATE "C" NOT NULL REFERENCES organizations (id),
    name       TEXT NOT NULL,
    email      TEXT,
    role       TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX users_newest ON users (org_id, created_at, id);

CREATE TABLE projects (
    id         TEXT COLLATE "C" PRIMARY KEY,
    org_id     TEXT COLLATE "C" NOT NULL REFERENCES organizations (id),
    name       TEXT NOT NULL,
    is_default BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    -- What a row of another table points to when it names both: a project of that organization.
    UNIQUE (org_id, id)
);
CREATE INDEX projects_newest ON projects (org_id, created_at, id);
CREATE UNIQUE INDEX projects_default ON projects (org_id) WHERE is_default = TRUE;

CREATE TABLE api_keys (
    id                 TEXT COLLATE "C" PRIMARY KEY,
    org_id             TEXT COLLATE "C" NOT NULL REFERENCES organizations (id),
    name               TEXT NOT NULL,
    prefix             TEXT NOT NULL,
    last4              TEXT NOT NULL,
    hash               BYTEA NOT NULL UNIQUE,
    scopes             TEXT NOT NULL,
    project_ids        TEXT,
    created_by_user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    created_at         BIGINT NOT NULL,
    revoked_at         BIGINT,
    last_used_at       BIGINT
);
CREATE INDEX api_keys_newest ON api_keys (org_id, created_at, id);

CREATE TABLE sandboxes (
    id                  TEXT COLLATE "C" PRIMARY KEY,
    org_id              TEXT COLLATE "C" NOT NULL,
    project_id          TEXT COLLATE "C" NOT NULL,
    node_id             TEXT COLLATE "C" NOT NULL,
    status              TEXT NOT NULL,
    template_slug       TEXT NOT NULL,
    template_id         TEXT COLLATE "C" NOT NULL,
    template_version    TEXT NOT NULL,
    template_version_id TEXT COLLATE "C" NOT NULL,
    ttl_ms              BIGINT NOT NULL,
    created_at          BIGINT NOT NULL,
    ready_at            BIGINT,
    expires_at          BIGINT NOT NULL,
    destroyed_at        BIGINT,
    destroyed_reason    TEXT,
    metadata            TEXT NOT NULL,
    runtime             TEXT,
    network_mode        TEXT NOT NULL,
    created_by          TEXT COLLATE "C" NOT NULL,
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id),
    CHECK ((destroyed_at IS NOT NULL) = (status IN ('destroyed', 'failed')))
);
CREATE INDEX sandboxes_newest ON sandboxes (org_id, created_at, id);
CREATE INDEX sandboxes_live ON sandboxes (org_id, created_at, id) WHERE destroyed_at IS NULL;
CREATE INDEX sandboxes_live_of_node ON sandboxes (node_id, expires_at, id)
    WHERE destroyed_at IS NULL;

CREATE TABLE contexts (
    id         TEXT COLLATE "C" PRIMARY KEY,
    sandbox_id TEXT COLLATE "C" NOT NULL REFERENCES sandboxes (id),
    org_id     TEXT COLLATE "C" NOT NULL,
    language   TEXT NOT NULL,
    cwd        TEXT NOT NULL,
    is_default BOOLEAN NOT NULL,
    isolation  TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX contexts_newest ON contexts (sandbox_id, created_at, id);
CREATE UNIQUE INDEX contexts_default ON contexts (sandbox_id, language) WHERE is_default = TRUE;

CREATE TABLE idempotency (
    scope_key    BYTEA PRIMARY KEY,
    request_hash BYTEA NOT NULL,
    owner_node   TEXT COLLATE "C" NOT NULL,
    owner_boot   TEXT COLLATE "C" NOT NULL,
    begun_at     BIGINT NOT NULL,
    -- All three are NULL while the request is in flight.
    status       BIGINT,
    content_type TEXT,
    body         BYTEA
);
CREATE INDEX idempotency_oldest ON idempotency (begun_at);

-- No foreign keys: an entry outlives everything it names.
CREATE TABLE audit_events (
    id            TEXT COLLATE "C" PRIMARY KEY,
    org_id        TEXT COLLATE "C" NOT NULL,
    project_id    TEXT COLLATE "C",
    at            BIGINT NOT NULL,
    actor_kind    TEXT NOT NULL,
    actor_id      TEXT COLLATE "C" NOT NULL,
    action        TEXT NOT NULL,
    resource_kind TEXT NOT NULL,
    resource_id   TEXT COLLATE "C" NOT NULL,
    outcome       TEXT NOT NULL,
    request_id    TEXT COLLATE "C",
    details       TEXT NOT NULL
);
CREATE INDEX audit_events_newest ON audit_events (org_id, at, id);
CREATE INDEX audit_events_of_resource ON audit_events (org_id, resource_id, at, id);

CREATE TABLE nodes (
    id               TEXT COLLATE "C" PRIMARY KEY,
    boot_id          TEXT COLLATE "C" NOT NULL,
    address          TEXT NOT NULL,
    lease_expires_at BIGINT NOT NULL
);

CREATE TABLE usage_events (
    id          TEXT COLLATE "C" PRIMARY KEY,
    org_id      TEXT COLLATE "C" NOT NULL,
    project_id  TEXT COLLATE "C",
    resource_id TEXT COLLATE "C",
    metric      TEXT NOT NULL,
    amount      BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);
CREATE INDEX usage_events_newest ON usage_events (org_id, created_at, id);
