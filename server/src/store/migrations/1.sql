CREATE TABLE accounts (
    name        TEXT PRIMARY KEY,
    description TEXT NOT NULL DEFAULT '',
    admin       INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
    made        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    fingerprint TEXT PRIMARY KEY,
    account     TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    public_key  TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    -- What it may bind: rules separated by blanks; empty is everything.
    acl         TEXT NOT NULL DEFAULT '',
    made        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_of_account ON keys (account);

CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    account     TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    -- SHA-256 of a secret of 256 random bits, which needs no slow hash.
    hash        BLOB NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    acl         TEXT NOT NULL DEFAULT '',
    made        INTEGER NOT NULL,
    expires     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_of_account ON tokens (account);

-- Who had a name or a port last. The account may be a key that stands for itself.
CREATE TABLE names (
    name    TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    seen    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE reservations (
    name    TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    made    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    account TEXT NOT NULL,
    source  TEXT NOT NULL,
    action  TEXT NOT NULL,
    object  TEXT NOT NULL,
    result  TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_account ON audit (account, id);
