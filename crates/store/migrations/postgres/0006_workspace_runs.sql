-- As in the directory for SQLite, with PostgreSQL's types.
CREATE TABLE workspace_runs (
    id          TEXT COLLATE "C" PRIMARY KEY,
    org_id      TEXT COLLATE "C" NOT NULL,
    project_id  TEXT COLLATE "C" NOT NULL,
    node_id     TEXT COLLATE "C" NOT NULL,
    status      TEXT NOT NULL,
    version     BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    finished_at BIGINT,
    spec        TEXT NOT NULL,
    state       TEXT NOT NULL,
    created_by  TEXT COLLATE "C" NOT NULL,
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id),
    CHECK ((finished_at IS NOT NULL) = (status IN ('succeeded', 'failed', 'canceled')))
);
CREATE INDEX workspace_runs_newest ON workspace_runs (org_id, created_at, id);
CREATE INDEX workspace_runs_open ON workspace_runs (node_id, created_at, id)
    WHERE finished_at IS NULL;

CREATE TABLE workspace_run_events (
    run_id TEXT COLLATE "C" NOT NULL REFERENCES workspace_runs (id),
    seq    BIGINT NOT NULL,
    at     BIGINT NOT NULL,
    event  TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
);

CREATE TABLE workspace_run_uploads (
    id         TEXT COLLATE "C" PRIMARY KEY,
    run_id     TEXT COLLATE "C" NOT NULL REFERENCES workspace_runs (id),
    sha256     TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    status     TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX workspace_run_uploads_of_run ON workspace_run_uploads (run_id, id);
