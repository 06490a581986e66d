-- A terminal is a command that somebody types into: `terminal` says through what, and is NULL for
-- every other command.
ALTER TABLE commands ADD COLUMN terminal TEXT CHECK (terminal IN ('pty', 'pipe'));
