-- As in the directory for SQLite, with PostgreSQL's types.
CREATE TABLE snapshots (
    id                  TEXT COLLATE "C" PRIMARY KEY,
    org_id              TEXT COLLATE "C" NOT NULL,
    project_id          TEXT COLLATE "C" NOT NULL,
    sandbox_id          TEXT COLLATE "C" NOT NULL REFERENCES sandboxes (id),
    node_id             TEXT COLLATE "C" NOT NULL,
    state               TEXT NOT NULL,
    name                TEXT COLLATE "C",
    template_slug       TEXT NOT NULL,
    template_version_id TEXT NOT NULL,
    size_bytes          BIGINT NOT NULL,
    entries             BIGINT NOT NULL,
    failure             TEXT,
    created_at          BIGINT NOT NULL,
    changed_at          BIGINT NOT NULL,
    created_by          TEXT NOT NULL,
    CHECK (state IN ('creating', 'ready', 'failed', 'deleting'))
);
CREATE INDEX snapshots_newest ON snapshots (org_id, created_at, id);
CREATE INDEX snapshots_of_node ON snapshots (node_id, created_at, id);
