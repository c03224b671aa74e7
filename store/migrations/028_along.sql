-- Which messages go with one that we delete, where the other side deletes a thread with its first message. Written down before
-- the request: its answer may be lost, and whoever reads later that they are deleted must know that nobody else did it.
CREATE TABLE along (
    place       TEXT    NOT NULL,
    root        TEXT    NOT NULL, -- the message that we delete
    remote      TEXT    NOT NULL, -- one that goes with it; the message itself has a row, too
    until       INTEGER NOT NULL, -- when the last of them was written: whatever is written later goes with it, too
    delivery_id INTEGER NOT NULL, -- what deletes it
    PRIMARY KEY (place, root, remote)
) STRICT, WITHOUT ROWID;

CREATE INDEX along_delivery ON along (delivery_id);
