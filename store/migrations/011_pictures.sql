-- Pictures of people that were uploaded: once each, and then used again.
CREATE TABLE picture (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    which   TEXT    NOT NULL UNIQUE, -- a keyed hash of which picture, and of how it lies there
    letter  BLOB    NOT NULL,        -- sealed: where it lies, and what opens it
    kept_at INTEGER NOT NULL
) STRICT;
