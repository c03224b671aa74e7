-- Of an emptied copy: whether something of the message stands there all the same, which the other side does not let us take
-- away without the answers of others. It goes when the message is deleted.
ALTER TABLE link ADD COLUMN kept INTEGER NOT NULL DEFAULT 0 CHECK (kept IN (0, 1));
