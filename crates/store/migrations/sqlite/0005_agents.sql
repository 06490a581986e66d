-- Agents: programs that register by themselves and that a person lets into an organization.

CREATE TABLE agent_signing_keys (
    id          TEXT PRIMARY KEY,
    algorithm   TEXT NOT NULL,
    -- PKCS#8. Whoever reads this database could write tokens; it could as well write rows.
    private_key BLOB NOT NULL,
    public_key  BLOB NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_signing_keys_newest ON agent_signing_keys (created_at, id);

CREATE TABLE agent_registrations (
    id               TEXT PRIMARY KEY,
    kind             TEXT NOT NULL,
    status           TEXT NOT NULL,
    platform         TEXT,
    context_id       TEXT,
    login_hint       TEXT,
    requested_scopes TEXT NOT NULL,
    -- NULL once it was traded for a token, or revoked.
    claim_token_hash BLOB UNIQUE,
    -- What a person granted; all NULL or empty before.
    org_id           TEXT REFERENCES organizations (id),
    user_id          TEXT REFERENCES users (id),
    project_ids      TEXT,
    scopes           TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    -- Of a registration that nobody claims.
    expires_at       INTEGER NOT NULL,
    claimed_at       INTEGER,
    revoked_at       INTEGER,
    CHECK ((claimed_at IS NULL) = (org_id IS NULL))
) STRICT;
CREATE INDEX agent_registrations_newest ON agent_registrations (org_id, created_at, id);
CREATE INDEX agent_registrations_unclaimed ON agent_registrations (expires_at)
    WHERE claimed_at IS NULL;

CREATE TABLE agent_claims (
    id              TEXT PRIMARY KEY,
    registration_id TEXT NOT NULL REFERENCES agent_registrations (id),
    user_code       TEXT NOT NULL,
    email           TEXT NOT NULL,
    status          TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    polled_at       INTEGER,
    decided_at      INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_claims_newest ON agent_claims (registration_id, created_at, id);
CREATE UNIQUE INDEX agent_claims_pending ON agent_claims (user_code) WHERE status = 'pending';

CREATE TABLE agent_credentials (
    id              TEXT PRIMARY KEY,
    registration_id TEXT NOT NULL REFERENCES agent_registrations (id),
    phase           TEXT NOT NULL,
    org_id          TEXT,
    user_id         TEXT,
    project_ids     TEXT,
    scopes          TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    revoked_at      INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_credentials_of_registration ON agent_credentials (registration_id, expires_at);
CREATE INDEX agent_credentials_expired ON agent_credentials (expires_at);
