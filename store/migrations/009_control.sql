-- Consent and control: who made a portal, what was agreed to, what holds it up, and whose messages stay.

-- Who made it: the configuration, the operator on the command line, or people in a chat. A desk joins a room to
-- nothing: the bridge only answers there.
ALTER TABLE portal ADD COLUMN origin TEXT NOT NULL DEFAULT 'file'
    CHECK (origin IN ('file', 'operator', 'chat', 'desk'));
-- Whether its room was seen in the clear since it was linked: then its encryption is news that nobody agreed to.
ALTER TABLE portal ADD COLUMN seen_clear INTEGER NOT NULL DEFAULT 0 CHECK (seen_clear IN (0, 1));

-- That what is said in an encrypted room may leave it: who agreed, when, and to which text.
CREATE TABLE consent (
    portal_id    INTEGER PRIMARY KEY REFERENCES portal (id),
    given_by     TEXT    NOT NULL,
    given_at     INTEGER NOT NULL,
    text_version INTEGER NOT NULL,
    effective_at INTEGER NOT NULL -- nothing crosses before
) STRICT;

-- What holds a portal up, both ways. Its queue is kept.
CREATE TABLE hold (
    portal_id INTEGER NOT NULL REFERENCES portal (id),
    reason    TEXT    NOT NULL CHECK (reason IN ('paused', 'upgraded')),
    since     INTEGER NOT NULL,
    by_whom   TEXT    NOT NULL,
    PRIMARY KEY (portal_id, reason)
) STRICT, WITHOUT ROWID;

-- People, by a keyed hash, whose messages stay where they are written: in this place, or ('') everywhere.
CREATE TABLE optout (
    person TEXT    NOT NULL,
    place  TEXT    NOT NULL,
    since  INTEGER NOT NULL,
    PRIMARY KEY (person, place)
) STRICT, WITHOUT ROWID;

-- Portals that somebody asked for in a chat, until it is proven that they may.
CREATE TABLE wish (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    room_place    TEXT    NOT NULL,
    channel_place TEXT    NOT NULL,
    room          TEXT    NOT NULL,
    silo          TEXT    NOT NULL,
    channel       TEXT    NOT NULL,
    asked_by      TEXT    NOT NULL,
    asked_in      TEXT    NOT NULL, -- the place where the answer is read
    code          TEXT    NOT NULL, -- what is to be posted in the channel
    expires_at    INTEGER NOT NULL,
    proven_at     INTEGER,          -- the code was heard; an encrypted room still has to agree
    UNIQUE (room_place, channel_place)
) STRICT;

-- Portals of the command line, by name, whose ends are found by the running bridge.
CREATE TABLE wanted (
    room     TEXT    NOT NULL,
    silo     TEXT    NOT NULL,
    channel  TEXT    NOT NULL,
    added_at INTEGER NOT NULL,
    PRIMARY KEY (room, silo, channel)
) STRICT, WITHOUT ROWID;

-- Who entered the room of a portal, by a keyed hash, and whether they were told where it leads.
CREATE TABLE newcomer (
    portal_id INTEGER NOT NULL REFERENCES portal (id),
    person    TEXT    NOT NULL,
    told_at   INTEGER,
    PRIMARY KEY (portal_id, person)
) STRICT, WITHOUT ROWID;

-- Rooms that say they have moved, until it is decided whether to follow.
CREATE TABLE upgrade (
    room_place TEXT    PRIMARY KEY NOT NULL,
    successor  TEXT    NOT NULL, -- room id
    sender     TEXT    NOT NULL,
    seen_at    INTEGER NOT NULL,
    refused    TEXT              -- why it is not followed
) STRICT, WITHOUT ROWID;
