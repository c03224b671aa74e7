-- Which message each edit in a room is of, and whether the edit itself was redacted. Ids only. An edit that was redacted while
-- its key was missing has no target before the key comes.
CREATE TABLE revision (
    place   TEXT    NOT NULL,
    fact    TEXT    NOT NULL, -- the edit
    target  TEXT,             -- the message
    sent_at INTEGER NOT NULL DEFAULT 0, -- when, by the homeserver's clock
    gone    INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)),
    PRIMARY KEY (place, fact)
) STRICT, WITHOUT ROWID;
CREATE INDEX revision_of ON revision (place, target);
-- The redaction of an edit for which the text of before was, or is being, restored.
ALTER TABLE edited ADD COLUMN restored_by INTEGER REFERENCES journal (id);
-- The edit that made a copy, or an event that replaces the text of one.
ALTER TABLE link ADD COLUMN made_by INTEGER REFERENCES journal (id);
