-- What guards against a homeserver that lies: which places in a room key's ratchet were used by which event, whose
-- identity is known, and what waits until somebody in charge has looked at a changed one.

-- One message of a room key is one event, for ever.
CREATE TABLE used_index (
    session TEXT    NOT NULL,
    place   INTEGER NOT NULL, -- in the ratchet
    event   TEXT    NOT NULL,
    sent_at INTEGER NOT NULL, -- as the homeserver said
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (session, place)
) STRICT, WITHOUT ROWID;

-- What is left of them when their key has not been used for long: used, nobody remembers by what.
CREATE TABLE used_range (
    session TEXT    NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (session, first)
) STRICT, WITHOUT ROWID;

-- The identity by which each user was first believed, or which somebody in charge has accepted since.
CREATE TABLE pin (
    user       TEXT    PRIMARY KEY NOT NULL,
    master_key TEXT    NOT NULL,
    pinned_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Entries that wait for somebody in charge, and not for a key. Of the ones that no longer wait, rows may stay behind.
CREATE TABLE held (
    entry_id INTEGER PRIMARY KEY REFERENCES journal (id),
    user     TEXT    NOT NULL
) STRICT;

CREATE INDEX held_user ON held (user);
