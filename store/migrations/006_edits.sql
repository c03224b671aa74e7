-- The latest edit of a message that went (or was to go) to a place. One that was held up by a missing key must not
-- overwrite it.
CREATE TABLE edited (
    place    TEXT NOT NULL, -- where the message stands
    remote   TEXT NOT NULL,
    to_place TEXT NOT NULL,
    entry_id INTEGER NOT NULL REFERENCES journal (id), -- the edit
    PRIMARY KEY (place, remote, to_place)
) STRICT, WITHOUT ROWID;
