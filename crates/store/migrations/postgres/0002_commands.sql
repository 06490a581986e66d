-- A command outlives its sandbox as a record. `exec` is the number that init knows the process by.
-- Of the environment only the names are kept: values are often secrets. What it printed is in log
-- segments, not here.
CREATE TABLE commands (
    id                 TEXT COLLATE "C" PRIMARY KEY,
    org_id             TEXT COLLATE "C" NOT NULL,
    project_id         TEXT COLLATE "C" NOT NULL,
    sandbox_id         TEXT COLLATE "C" NOT NULL REFERENCES sandboxes (id),
    exec               BIGINT NOT NULL,
    command            TEXT NOT NULL,
    cwd                TEXT NOT NULL,
    env_names          TEXT NOT NULL,
    background         BOOLEAN NOT NULL,
    status             TEXT NOT NULL,
    created_at         BIGINT NOT NULL,
    finished_at        BIGINT,
    duration_ms        BIGINT,
    exit_code          BIGINT,
    termination_signal TEXT,
    killed_reason      TEXT,
    cancel_mode        TEXT,
    canceled_at        BIGINT,
    stdout_bytes       BIGINT NOT NULL,
    stderr_bytes       BIGINT NOT NULL,
    log_omitted_bytes  BIGINT NOT NULL,
    collect            TEXT,
    collect_status     TEXT NOT NULL,
    collect_errors     TEXT,
    created_by         TEXT NOT NULL,
    CHECK ((finished_at IS NOT NULL)
        = (status IN ('exited', 'failed', 'canceled', 'timed_out', 'killed')))
);
CREATE INDEX commands_newest ON commands (sandbox_id, created_at, id);
CREATE INDEX commands_running ON commands (sandbox_id, id) WHERE finished_at IS NULL;
