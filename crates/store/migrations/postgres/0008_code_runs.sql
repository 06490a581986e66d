-- As in the directory for SQLite, with PostgreSQL's types.
CREATE TABLE code_runs (
    id                TEXT COLLATE "C" PRIMARY KEY,
    org_id            TEXT COLLATE "C" NOT NULL,
    project_id        TEXT COLLATE "C" NOT NULL,
    sandbox_id        TEXT COLLATE "C" NOT NULL REFERENCES sandboxes (id),
    context_id        TEXT COLLATE "C" NOT NULL,
    language          TEXT NOT NULL,
    run               BIGINT NOT NULL,
    status            TEXT NOT NULL,
    code              TEXT,
    options           TEXT NOT NULL,
    created_at        BIGINT NOT NULL,
    begun_at          BIGINT,
    finished_at       BIGINT,
    canceled_at       BIGINT,
    log_omitted_bytes BIGINT NOT NULL,
    result            TEXT,
    failure           TEXT,
    created_by        TEXT NOT NULL,
    CHECK ((finished_at IS NOT NULL) = (status NOT IN ('queued', 'running'))),
    CHECK (code IS NULL OR status = 'queued')
);
CREATE INDEX code_runs_newest ON code_runs (sandbox_id, created_at, id);
CREATE INDEX code_runs_unfinished ON code_runs (sandbox_id, created_at, id)
    WHERE finished_at IS NULL;
CREATE INDEX code_runs_finished ON code_runs (finished_at, id) WHERE finished_at IS NOT NULL;
