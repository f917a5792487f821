-- By whom an entry was caused: 0 anybody, 1 an admin as a publisher, 2 an admin or the operator who changed the server. Each
-- has a bound of its own.
ALTER TABLE audit ADD COLUMN class INTEGER NOT NULL DEFAULT 0;
UPDATE audit SET class = 2
    WHERE action NOT IN ('login', 'publish', 'audit') AND result <> 'only an admin may do that';
CREATE INDEX audit_by_class ON audit (class);
CREATE INDEX audit_by_class_and_account ON audit (class, account);
