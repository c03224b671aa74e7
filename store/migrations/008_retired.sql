-- A device of ours that another has taken the place of: it must still be logged out, and until its encryption store is
-- put away nothing else may be kept in the same place.
CREATE TABLE retired (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    device_id  TEXT    NOT NULL,
    homeserver TEXT    NOT NULL,
    session    BLOB    NOT NULL, -- sealed
    in_place   INTEGER NOT NULL CHECK (in_place IN (0, 1))
) STRICT;

-- What devices before the present one had sent when nobody had written down yet that they had: found in the rooms, by
-- the key of the delivery. An empty key says that there were events which could not be read.
CREATE TABLE former_send (
    place   TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    remote  TEXT    NOT NULL,
    sent_at INTEGER NOT NULL,
    PRIMARY KEY (place, key)
) STRICT, WITHOUT ROWID;
