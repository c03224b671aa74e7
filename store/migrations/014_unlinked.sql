-- What was seen of a room while it was joined to nothing. It was not said to the bridge, and does not cross when a
-- homeserver shows it again later.
CREATE TABLE unlinked_event (
    id INTEGER PRIMARY KEY,
    place TEXT NOT NULL,
    -- The id of an event, or the digest of its ciphertext.
    mark TEXT NOT NULL,
    UNIQUE (place, mark)
) STRICT;
CREATE INDEX unlinked_event_by_age ON unlinked_event (place, id);

-- Per room key the last message of it that was read then.
CREATE TABLE unlinked_index (
    session TEXT PRIMARY KEY,
    place TEXT NOT NULL,
    last INTEGER NOT NULL
) STRICT;
CREATE INDEX unlinked_index_by_place ON unlinked_index (place);
