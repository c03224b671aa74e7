-- A message is judged by the identity under which its room key came. Another identity than the one by which a user is
-- believed, once seen, stays known until somebody in charge has accepted one of them, whatever is shown afterwards.

CREATE TABLE other_identity (
    user       TEXT    NOT NULL,
    master_key TEXT    NOT NULL,
    seen_at    INTEGER NOT NULL,
    PRIMARY KEY (user, master_key)
) STRICT, WITHOUT ROWID;

-- The identity under which the room key of the entry came; NULL where none has signed it, or nobody looked yet.
ALTER TABLE held ADD COLUMN master_key TEXT;
