-- Invites that were refused because no portal named their rooms: the newest of them, so that people learn why the bridge is
-- not in a room that a portal names later.
CREATE TABLE refused_invite (
    room       TEXT NOT NULL PRIMARY KEY,
    refused_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
