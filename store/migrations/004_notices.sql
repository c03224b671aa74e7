-- Notices of the bridge that can be changed later, and what people were told of missing keys.

-- What the bridge itself said, once per fact.
CREATE TABLE notice (
    fact      TEXT    PRIMARY KEY NOT NULL,
    portal_id INTEGER NOT NULL REFERENCES portal (id),
    toward    TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    changes   INTEGER NOT NULL DEFAULT 0 -- each is a fact of its own: fact.1, fact.2, …
) STRICT, WITHOUT ROWID;

-- Entries of one sender whose keys are missing and of which people were told together.
CREATE TABLE missing (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    place   TEXT    NOT NULL,
    sender  TEXT    NOT NULL,
    reason  TEXT    NOT NULL,           -- a fixed word
    told_at INTEGER NOT NULL,
    arrived INTEGER NOT NULL DEFAULT 0, -- entries whose keys came
    dropped INTEGER NOT NULL DEFAULT 0, -- entries that turned out to be none that cross
    failed  INTEGER NOT NULL DEFAULT 0, -- entries that were given up
    closed  INTEGER NOT NULL DEFAULT 0 CHECK (closed IN (0, 1))
) STRICT;

CREATE INDEX missing_sender ON missing (place, sender, told_at);
CREATE INDEX missing_open ON missing (id) WHERE closed = 0;

-- Which of them an entry belongs to, and for how long we have waited for its key while we ran, in milliseconds.
ALTER TABLE journal ADD COLUMN missing INTEGER REFERENCES missing (id);
ALTER TABLE journal ADD COLUMN waited INTEGER NOT NULL DEFAULT 0;
CREATE INDEX journal_missing ON journal (missing) WHERE session IS NOT NULL AND missing IS NOT NULL;

-- Since when a try of the present step may have happened whose answer nobody saw; of places that dedupe.
ALTER TABLE outbox ADD COLUMN unanswered_since INTEGER;

-- When we learnt it.
ALTER TABLE flag ADD COLUMN raised_at INTEGER NOT NULL DEFAULT 0;
