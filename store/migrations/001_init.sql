-- What Footbridge remembers. Ids of networks are kept as they are, letters are sealed, times are
-- milliseconds since 1970 as told by the caller. Rows are never renumbered (AUTOINCREMENT).

-- Single values of the store itself.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Which room is joined to which channel. Never deleted: tallies and debts name it.
CREATE TABLE portal (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    room_place    TEXT    NOT NULL,
    channel_place TEXT    NOT NULL,
    room          TEXT    NOT NULL, -- the three names of the configuration
    silo          TEXT    NOT NULL,
    channel       TEXT    NOT NULL,
    active        INTEGER NOT NULL CHECK (active IN (0, 1)),
    opened_at     INTEGER NOT NULL,
    UNIQUE (room_place, channel_place)
) STRICT;

-- Facts, each accepted once.
CREATE TABLE journal (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    place       TEXT    NOT NULL,
    fact        TEXT    NOT NULL,
    accepted_at INTEGER NOT NULL,
    payload     BLOB,    -- sealed; gone when no debt needs it any more
    session     TEXT,    -- the session whose key is missing; then the payload is the event as received
    hold_until  INTEGER, -- how long lanes wait for that key
    UNIQUE (place, fact),
    CHECK ((session IS NULL) = (hold_until IS NULL)),
    CHECK (session IS NULL OR payload IS NOT NULL)
) STRICT;

CREATE INDEX journal_waiting ON journal (session) WHERE session IS NOT NULL;

-- Debts. A row is deleted when it is settled, so the table is the backlog.
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    entry_id     INTEGER NOT NULL REFERENCES journal (id),
    portal_id    INTEGER NOT NULL REFERENCES portal (id),
    toward       TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    to_place     TEXT    NOT NULL,
    key          TEXT    NOT NULL, -- fixed before the first try
    plan         BLOB,             -- sealed; made once
    steps_done   INTEGER NOT NULL DEFAULT 0,
    attempts     INTEGER NOT NULL DEFAULT 0,
    due          INTEGER NOT NULL DEFAULT 0,
    unsure_since INTEGER,          -- nobody knows whether the present step happened
    accepted_at  INTEGER NOT NULL,
    late         INTEGER NOT NULL DEFAULT 0 CHECK (late IN (0, 1)),
    UNIQUE (entry_id, to_place)
) STRICT;

CREATE INDEX outbox_lane ON outbox (portal_id, toward, id);
-- A delivery that has begun is finished before an older one that was filled late.
CREATE INDEX outbox_begun ON outbox (portal_id, toward, id)
    WHERE steps_done > 0 OR unsure_since IS NOT NULL;
CREATE INDEX outbox_unsure ON outbox (to_place) WHERE unsure_since IS NOT NULL;

-- Where each copy of an entry lives, the original included. Rows outlive the copy, so that a late echo of a
-- message that was taken back is still known as ours.
CREATE TABLE link (
    place    TEXT    NOT NULL,
    remote   TEXT    NOT NULL,
    entry_id INTEGER NOT NULL REFERENCES journal (id),
    part     INTEGER NOT NULL,
    thread   TEXT,
    sent_at  INTEGER NOT NULL,
    gone     INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)),
    PRIMARY KEY (place, remote),
    UNIQUE (entry_id, place, part)
) STRICT, WITHOUT ROWID;

-- accepted = delivered + failed + skipped + rows in the outbox, per lane, at every commit.
CREATE TABLE tally (
    portal_id INTEGER NOT NULL REFERENCES portal (id),
    toward    TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    accepted  INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    failed    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (portal_id, toward)
) STRICT, WITHOUT ROWID;

CREATE TABLE tally_skipped (
    portal_id INTEGER NOT NULL,
    toward    TEXT    NOT NULL,
    rule      TEXT    NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (portal_id, toward, rule),
    FOREIGN KEY (portal_id, toward) REFERENCES tally (portal_id, toward)
) STRICT, WITHOUT ROWID;

-- Our account: at most one.
CREATE TABLE account (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    user_id      TEXT    NOT NULL,
    device_id    TEXT    NOT NULL,
    homeserver   TEXT    NOT NULL,
    ed25519      TEXT,
    master_key   TEXT,
    session      BLOB    NOT NULL, -- sealed
    recovery_key BLOB,             -- sealed
    saved_at     INTEGER NOT NULL
) STRICT;

-- How far each listener has read.
CREATE TABLE cursor (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What must still be fetched: at most one stretch per place.
CREATE TABLE gap (
    place    TEXT PRIMARY KEY NOT NULL,
    from_pos TEXT NOT NULL,
    stop     TEXT
) STRICT, WITHOUT ROWID;

-- What is true of a place for ever.
CREATE TABLE flag (
    place TEXT NOT NULL,
    flag  TEXT NOT NULL,
    PRIMARY KEY (place, flag)
) STRICT, WITHOUT ROWID;
