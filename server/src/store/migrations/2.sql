-- What an account may have. NULL is what the configuration says for all, -1 no limit.
ALTER TABLE accounts ADD COLUMN max_sessions INTEGER CHECK (max_sessions >= -1);
ALTER TABLE accounts ADD COLUMN max_endpoints INTEGER CHECK (max_endpoints >= -1);
ALTER TABLE accounts ADD COLUMN max_ports INTEGER CHECK (max_ports >= -1);
ALTER TABLE accounts ADD COLUMN max_visits INTEGER CHECK (max_visits >= -1);
ALTER TABLE accounts ADD COLUMN max_rate INTEGER CHECK (max_rate >= -1);
ALTER TABLE accounts ADD COLUMN max_monthly INTEGER CHECK (max_monthly >= -1);

-- Bytes of an account in a month (12 times the year, plus 0 to 11). The account may be a key that stands for itself.
CREATE TABLE traffic (
    account TEXT NOT NULL,
    month   INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    PRIMARY KEY (account, month)
) STRICT, WITHOUT ROWID;
