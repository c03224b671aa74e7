-- One event may carry several messages of a lane: their debts are paid together, and each of their entries is
-- linked to the same event.

-- The debt that pays this one along, and the place in the shared event. The first of them leads and has no leader.
ALTER TABLE outbox ADD COLUMN leader INTEGER;
ALTER TABLE outbox ADD COLUMN slot INTEGER;

CREATE INDEX outbox_led ON outbox (leader) WHERE leader IS NOT NULL;

-- The key of a link can only be changed by writing the table anew.
CREATE TABLE link_of_parts (
    place    TEXT    NOT NULL,
    remote   TEXT    NOT NULL,
    slot     INTEGER NOT NULL DEFAULT -1, -- which part of a shared event; -1: the whole of an event of its own
    entry_id INTEGER NOT NULL REFERENCES journal (id),
    part     INTEGER NOT NULL,
    thread   TEXT,
    sent_at  INTEGER NOT NULL,
    gone     INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)),
    PRIMARY KEY (place, remote, slot),
    UNIQUE (entry_id, place, part)
) STRICT, WITHOUT ROWID;

INSERT INTO link_of_parts (place, remote, entry_id, part, thread, sent_at, gone)
SELECT place, remote, entry_id, part, thread, sent_at, gone FROM link;

DROP TABLE link;
ALTER TABLE link_of_parts RENAME TO link;
