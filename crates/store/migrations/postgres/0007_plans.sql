-- The plan of an organization; NULL is the server's default.
ALTER TABLE organizations ADD COLUMN plan TEXT;
