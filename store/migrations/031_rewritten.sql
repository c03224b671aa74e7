-- What a message says in one place where an edit of it was taken in before the message went there. The journal keeps the
-- message's own letter: other places may still need it, and it counts again where the edit is redacted.
CREATE TABLE rewritten (
    id       INTEGER PRIMARY KEY,
    entry_id INTEGER NOT NULL REFERENCES journal (id), -- the message
    to_place TEXT    NOT NULL,
    edit_id  INTEGER NOT NULL REFERENCES journal (id), -- the newest of them is what it says
    payload  BLOB,                                     -- sealed; null once the message is not owed or kept anywhere
    UNIQUE (entry_id, to_place, edit_id)
) STRICT;
CREATE INDEX rewritten_by_edit ON rewritten (edit_id);
-- From here on crossed also names the messages whose own text went to a place.
INSERT OR IGNORE INTO crossed (entry_id, to_place)
SELECT DISTINCT j.id, l.place FROM journal j
JOIN link l ON l.entry_id = j.id AND l.place <> j.place AND l.made_by IS NULL
WHERE j.text_of IS NULL AND j.place LIKE 'matrix:%'
AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.entry_id = j.id AND o.to_place = l.place)
AND NOT EXISTS (SELECT 1 FROM skipped s WHERE s.entry_id = j.id AND s.to_place = l.place)
AND NOT EXISTS (SELECT 1 FROM parked p
    WHERE p.entry_id = j.id AND p.to_place = l.place AND p.state <> 'delivered');
