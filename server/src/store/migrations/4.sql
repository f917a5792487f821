-- What was taken from who had it last, by another program than the server, which has that in memory: a name or a port, or all
-- that an account had. The server removes what it has seen.
CREATE TABLE released (
    of_account INTEGER NOT NULL CHECK (of_account IN (0, 1)),
    what       TEXT NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (of_account, what)
) STRICT, WITHOUT ROWID;
