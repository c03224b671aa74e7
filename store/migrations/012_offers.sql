-- Files of rooms that can be fetched by a link: until it expires, or until the message is taken back.
CREATE TABLE offer (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    which      TEXT    NOT NULL UNIQUE,                 -- a keyed hash of which file, and for whom
    entry_id   INTEGER NOT NULL REFERENCES journal (id), -- the message
    letter     BLOB    NOT NULL,                        -- sealed: what it is, and what opens it
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX offer_entry ON offer (entry_id);
