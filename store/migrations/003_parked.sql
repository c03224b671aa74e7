-- Failures: what a debt that is tried again and again has behind it, what failed and is kept to be tried again,
-- what people were told about it, and what they asked.

-- When the present step was last tried, and how often any step was.
ALTER TABLE outbox ADD COLUMN tried_at INTEGER;
ALTER TABLE outbox ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
-- What speaks against the message itself, and not against the whole other side: answers that look like never,
-- and the time in which it failed although the side was well.
ALTER TABLE outbox ADD COLUMN rejections INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN blamed_ms INTEGER NOT NULL DEFAULT 0;
-- The kind of the last error: a short fixed word.
ALTER TABLE outbox ADD COLUMN trouble TEXT;

-- What the bridge itself has to say goes before the backlog of its lane: it is no part of any order.
ALTER TABLE outbox ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0 CHECK (urgent IN (0, 1));
CREATE INDEX outbox_urgent ON outbox (portal_id, toward, id) WHERE urgent = 1;

-- The last message of each author in each place, the author by a keyed hash.
CREATE TABLE author (
    place    TEXT NOT NULL,
    author   TEXT NOT NULL,
    entry_id INTEGER NOT NULL REFERENCES journal (id),
    PRIMARY KEY (place, author)
) STRICT, WITHOUT ROWID;

-- Notices that change with what they speak of.
CREATE TABLE bulletin (
    fact       TEXT    PRIMARY KEY NOT NULL, -- the notice's
    portal_id  INTEGER NOT NULL REFERENCES portal (id), -- the lane that shows it
    toward     TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    topic      TEXT    NOT NULL CHECK (topic IN ('failure', 'closed')),
    said       INTEGER NOT NULL DEFAULT 0 CHECK (said IN (0, 1)),  -- whether it has a text yet
    stale      INTEGER NOT NULL DEFAULT 1 CHECK (stale IN (0, 1)), -- whether the text is not right (any more)
    touched_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX bulletin_stale ON bulletin (touched_at) WHERE stale = 1;
CREATE INDEX bulletin_lane ON bulletin (portal_id, toward, touched_at);

-- Debts that ended as failed, and what came of them since. The letter stays in the journal while `kept`; the
-- reason stays as long as the links do.
CREATE TABLE parked (
    id          INTEGER PRIMARY KEY, -- the debt's number, which it gets back when it is tried again
    entry_id    INTEGER NOT NULL REFERENCES journal (id),
    portal_id   INTEGER NOT NULL REFERENCES portal (id),
    toward      TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    to_place    TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    plan        BLOB,             -- sealed as in the outbox
    steps_done  INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    tries       INTEGER NOT NULL,
    failed_at   INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    about       TEXT,             -- the message it would have changed, in the place it came from
    state       TEXT    NOT NULL CHECK (state IN ('failed', 'again', 'delivered', 'skipped')),
    kept        INTEGER NOT NULL CHECK (kept IN (0, 1)),
    untold      INTEGER NOT NULL CHECK (untold IN (0, 1)),
    bulletin    TEXT REFERENCES bulletin (fact),
    UNIQUE (entry_id, to_place),
    CHECK (kept = 0 OR state = 'failed')
) STRICT;

CREATE INDEX parked_kept ON parked (portal_id, toward, failed_at) WHERE kept = 1;
CREATE INDEX parked_lane ON parked (portal_id, toward, failed_at);
CREATE INDEX parked_untold ON parked (id) WHERE untold = 1;
CREATE INDEX parked_bulletin ON parked (bulletin) WHERE bulletin IS NOT NULL;

-- Which rule ended a debt, for whoever asks.
CREATE TABLE skipped (
    entry_id INTEGER NOT NULL REFERENCES journal (id),
    to_place TEXT    NOT NULL,
    rule     TEXT    NOT NULL,
    PRIMARY KEY (entry_id, to_place)
) STRICT, WITHOUT ROWID;

-- Lanes whose place does not let us in, or did not when we last tried.
CREATE TABLE closed (
    portal_id INTEGER NOT NULL REFERENCES portal (id),
    toward    TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    since     INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    opened_at INTEGER,
    bulletin  TEXT REFERENCES bulletin (fact),
    PRIMARY KEY (portal_id, toward)
) STRICT, WITHOUT ROWID;

-- What people asked of the bridge and has no answer yet. The letter is the entry's.
CREATE TABLE command (
    entry_id INTEGER PRIMARY KEY REFERENCES journal (id)
) STRICT;
