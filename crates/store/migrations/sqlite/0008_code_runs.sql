-- Detached code runs; others have no row. `run` is the number that init knows one by. What it is to
-- run is kept as long as it waits for its turn and no longer; what it printed and showed is in log
-- segments. A row goes a day after its end.
CREATE TABLE code_runs (
    id                TEXT PRIMARY KEY,
    org_id            TEXT NOT NULL,
    project_id        TEXT NOT NULL,
    sandbox_id        TEXT NOT NULL REFERENCES sandboxes (id),
    context_id        TEXT NOT NULL,
    language          TEXT NOT NULL,
    run               INTEGER NOT NULL,
    status            TEXT NOT NULL,
    code              TEXT,
    options           TEXT NOT NULL,
    created_at        INTEGER NOT NULL,
    begun_at          INTEGER,
    finished_at       INTEGER,
    canceled_at       INTEGER,
    log_omitted_bytes INTEGER NOT NULL,
    result            TEXT,
    failure           TEXT,
    created_by        TEXT NOT NULL,
    CHECK ((finished_at IS NOT NULL) = (status NOT IN ('queued', 'running'))),
    CHECK (code IS NULL OR status = 'queued')
) STRICT, WITHOUT ROWID;
CREATE INDEX code_runs_newest ON code_runs (sandbox_id, created_at, id);
CREATE INDEX code_runs_unfinished ON code_runs (sandbox_id, created_at, id)
    WHERE finished_at IS NULL;
CREATE INDEX code_runs_finished ON code_runs (finished_at, id) WHERE finished_at IS NOT NULL;
