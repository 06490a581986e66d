-- Snapshots of the file systems of sandboxes. The bytes are in one file of the node that made them;
-- a row is there before its file and goes after it.
CREATE TABLE snapshots (
    id                  TEXT PRIMARY KEY,
    org_id              TEXT NOT NULL,
    project_id          TEXT NOT NULL,
    sandbox_id          TEXT NOT NULL REFERENCES sandboxes (id),
    node_id             TEXT NOT NULL,
    state               TEXT NOT NULL,
    name                TEXT,
    template_slug       TEXT NOT NULL,
    template_version_id TEXT NOT NULL,
    size_bytes          INTEGER NOT NULL,
    entries             INTEGER NOT NULL,
    failure             TEXT,
    created_at          INTEGER NOT NULL,
    changed_at          INTEGER NOT NULL,
    created_by          TEXT NOT NULL,
    CHECK (state IN ('creating', 'ready', 'failed', 'deleting'))
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshots_newest ON snapshots (org_id, created_at, id);
CREATE INDEX snapshots_of_node ON snapshots (node_id, created_at, id);
