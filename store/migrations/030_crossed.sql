-- Which edit a letter says the text of: the message took it in before it went. Null where it says the message's own.
ALTER TABLE journal ADD COLUMN text_of INTEGER REFERENCES journal (id);
-- Edits of messages in rooms whose text certainly went to a place, by themselves or in their message. Ids only.
CREATE TABLE crossed (
    entry_id INTEGER NOT NULL REFERENCES journal (id), -- the edit
    to_place TEXT    NOT NULL,
    PRIMARY KEY (entry_id, to_place)
) STRICT, WITHOUT ROWID;
