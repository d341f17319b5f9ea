-- Times are UTC milliseconds (`*_at`), sizes bytes, booleans 0 or 1, JSON is TEXT and is never looked into by a query.
-- Every row that belongs to someone names its organisation and who made it; a build's own rows have them through the build.

-- The one row of the installation. Claims are serialised on it where the engine does not serialise writes by itself.
CREATE TABLE installation (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    queue_paused BIGINT NOT NULL DEFAULT 0 CHECK (queue_paused IN (0, 1)),
    key_check BYTEA,
    created_at BIGINT NOT NULL
);

CREATE TABLE orgs (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (id),
    created_by TEXT REFERENCES users (id),
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('administrator', 'member')),
    password_hash TEXT,
    created_at BIGINT NOT NULL
);

-- One open link a person: a new one replaces it. Nobody has made it where the server itself did.
CREATE TABLE setup_links (
    user_id TEXT NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    org_id TEXT NOT NULL REFERENCES orgs (id),
    created_by TEXT REFERENCES users (id),
    token_hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    token_hash TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    org_id TEXT NOT NULL REFERENCES orgs (id),
    created_by TEXT NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_expires_at ON sessions (expires_at);
CREATE INDEX sessions_user_id ON sessions (user_id);

CREATE TABLE secrets (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (id),
    created_by TEXT NOT NULL REFERENCES users (id),
    key_id TEXT NOT NULL,
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE services (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (id),
    created_by TEXT NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    git_url TEXT NOT NULL,
    default_branch TEXT NOT NULL,
    git_secret TEXT REFERENCES secrets (id),
    -- Each part counts its saves by itself: two people who change different parts are not in one another's way.
    source_version BIGINT NOT NULL DEFAULT 1,
    registry TEXT NOT NULL,
    registry_secret TEXT REFERENCES secrets (id),
    registry_version BIGINT NOT NULL DEFAULT 1,
    -- The image's reference without a tag, where the registry names one: two services must not push over each other.
    image_repository TEXT UNIQUE,
    settings TEXT NOT NULL,
    settings_version BIGINT NOT NULL,
    cache_generation BIGINT NOT NULL DEFAULT 1,
    -- The newest build's number.
    build_count BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    UNIQUE (org_id, name)
);

CREATE TABLE builds (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES orgs (id),
    created_by TEXT NOT NULL REFERENCES users (id),
    service_id TEXT NOT NULL REFERENCES services (id),
    number BIGINT NOT NULL,
    branch TEXT NOT NULL,
    commit_hash TEXT NOT NULL,
    request_key TEXT,
    status TEXT NOT NULL CHECK (status IN (
        'queued', 'starting', 'checking_out', 'building', 'pushing', 'success', 'failure', 'cancelled')),
    attempt BIGINT NOT NULL DEFAULT 1,
    queued_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    cancel_requested_at BIGINT,
    lease_owner TEXT,
    lease_epoch BIGINT NOT NULL DEFAULT 0,
    lease_until BIGINT,
    -- Whether the runner has let go of everything that the build left.
    released BIGINT NOT NULL DEFAULT 0 CHECK (released IN (0, 1)),
    image_tag TEXT,
    digest TEXT,
    image_size_bytes BIGINT,
    failure_code TEXT,
    diagnosis TEXT,
    log_verified BIGINT CHECK (log_verified IN (0, 1)),
    -- When the log grew too old; its pieces go in slices, and whether any may be left says the second column.
    log_removed_at BIGINT,
    log_kept BIGINT NOT NULL DEFAULT 1 CHECK (log_kept IN (0, 1)),
    snapshot TEXT NOT NULL,
    UNIQUE (service_id, number),
    UNIQUE (service_id, request_key),
    CHECK ((finished_at IS NOT NULL) = (status IN ('success', 'failure', 'cancelled'))),
    -- A process that was terminated is not a build that was cancelled.
    CHECK (status <> 'cancelled' OR cancel_requested_at IS NOT NULL)
);
-- One running build a service, whatever the program does.
CREATE UNIQUE INDEX builds_running ON builds (service_id)
    WHERE status IN ('starting', 'checking_out', 'building', 'pushing');
CREATE INDEX builds_queue ON builds (queued_at, number, id) WHERE status = 'queued';
-- The history's filters, each with the order of its pages.
CREATE INDEX builds_by_status ON builds (service_id, status, number);
CREATE INDEX builds_by_branch ON builds (service_id, branch, number);
CREATE INDEX builds_by_branch_and_status ON builds (service_id, branch, status, number);
CREATE INDEX builds_open ON builds (service_id, number) WHERE finished_at IS NULL;
CREATE INDEX builds_unreleased ON builds (id) WHERE released = 0 AND finished_at IS NOT NULL;
-- For retention: logs by their age, and those whose removal was begun.
CREATE INDEX builds_with_log ON builds (finished_at)
    WHERE finished_at IS NOT NULL AND log_removed_at IS NULL AND released = 1;
CREATE INDEX builds_losing_log ON builds (log_removed_at) WHERE log_removed_at IS NOT NULL AND log_kept = 1;

-- How far a build's log is stored and what it folds to; a finished build's summary.
CREATE TABLE build_progress (
    build_id TEXT NOT NULL PRIMARY KEY REFERENCES builds (id) ON DELETE CASCADE,
    pos BIGINT NOT NULL,
    -- Pieces before this position are not part of the log any more.
    log_from BIGINT NOT NULL DEFAULT 0,
    attempt BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    chain_count BIGINT NOT NULL,
    chain_hash TEXT NOT NULL,
    row_count BIGINT NOT NULL,
    -- What the log's open pieces hold together: when to seal them.
    open_pieces BIGINT NOT NULL,
    open_bytes BIGINT NOT NULL,
    view TEXT NOT NULL
);

-- The log, in pieces without holes: open ones hold what one append brought, sealed ones are compressed.
CREATE TABLE log_pieces (
    build_id TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    first_pos BIGINT NOT NULL,
    last_pos BIGINT NOT NULL,
    first_row BIGINT NOT NULL,
    row_count BIGINT NOT NULL,
    payload_bytes BIGINT NOT NULL,
    sealed BIGINT NOT NULL CHECK (sealed IN (0, 1)),
    body BYTEA NOT NULL,
    PRIMARY KEY (build_id, first_pos)
);
-- Bodies are compressed already, or will be soon.
ALTER TABLE log_pieces ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX log_pieces_by_row ON log_pieces (build_id, first_row) WHERE row_count > 0;
CREATE INDEX log_pieces_open ON log_pieces (build_id, first_pos) WHERE sealed = 0;

CREATE TABLE audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id TEXT NOT NULL,
    user_id TEXT,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX audit_by_time ON audit (org_id, created_at);
