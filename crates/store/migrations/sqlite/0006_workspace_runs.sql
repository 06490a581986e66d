-- A workspace run outlives its sandbox and its archive as a record. `spec` is what was asked for
-- and never changes, `state` what has become of it; both are JSON that only the server understands.
-- Every change of a row raises `version` by one and happens only to the version that was read.
CREATE TABLE workspace_runs (
    id          TEXT PRIMARY KEY,
    org_id      TEXT NOT NULL,
    project_id  TEXT NOT NULL,
    node_id     TEXT NOT NULL,
    status      TEXT NOT NULL,
    version     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    finished_at INTEGER,
    spec        TEXT NOT NULL,
    state       TEXT NOT NULL,
    created_by  TEXT NOT NULL,
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id),
    CHECK ((finished_at IS NOT NULL) = (status IN ('succeeded', 'failed', 'canceled')))
) STRICT, WITHOUT ROWID;
CREATE INDEX workspace_runs_newest ON workspace_runs (org_id, created_at, id);
CREATE INDEX workspace_runs_open ON workspace_runs (node_id, created_at, id)
    WHERE finished_at IS NULL;

-- What happened in a run, beside what its command printed: that is in the command's log, and has
-- the numbers between these.
CREATE TABLE workspace_run_events (
    run_id TEXT NOT NULL REFERENCES workspace_runs (id),
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    event  TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

-- Archives that come in two steps. `expired` is not stored: time says it.
CREATE TABLE workspace_run_uploads (
    id         TEXT PRIMARY KEY,
    run_id     TEXT NOT NULL REFERENCES workspace_runs (id),
    sha256     TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    status     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX workspace_run_uploads_of_run ON workspace_run_uploads (run_id, id);
