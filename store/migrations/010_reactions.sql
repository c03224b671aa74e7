-- Who reacted to what, and what shows it where. One account speaks for many: what it shows stays as long as one of them
-- is of that mind.
CREATE TABLE reaction (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    target_id INTEGER NOT NULL REFERENCES journal (id), -- the message
    to_place  TEXT    NOT NULL,                         -- where it is shown
    who       TEXT    NOT NULL,                         -- a keyed hash of who, and with what
    entry_id  INTEGER NOT NULL REFERENCES journal (id), -- the reaction
    touched   INTEGER NOT NULL,                         -- the entry that changed it last
    letter    BLOB    NOT NULL,                         -- sealed: with what, and by whom
    gone      INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)), -- taken back
    shown     TEXT,                                     -- what shows it; kept by one row for all
    thread    TEXT,
    sent_at   INTEGER,
    line      INTEGER NOT NULL DEFAULT 0 CHECK (line IN (0, 1)), -- whether that is a line of text
    UNIQUE (target_id, to_place, who)
) STRICT;

CREATE INDEX reaction_entry ON reaction (entry_id);
CREATE INDEX reaction_touched ON reaction (touched);
CREATE INDEX reaction_shown ON reaction (to_place, shown) WHERE shown IS NOT NULL;
