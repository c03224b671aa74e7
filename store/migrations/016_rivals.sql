-- Other bridges, and what shows reactions: bounded, and nothing of it to be read.

-- Accounts in a channel that a member of a room claims to be another bridge's: one of each claimant, all hashed.
CREATE TABLE rival (
    place    TEXT NOT NULL,
    claimant TEXT NOT NULL,
    account  TEXT NOT NULL,
    PRIMARY KEY (place, claimant)
) STRICT, WITHOUT ROWID;

-- They were cursors before, as many as anybody wrote.
DELETE FROM cursor WHERE name GLOB '*/bridge/*' AND value GLOB '@*';

-- What shows a reaction, sealed; `shown` is a keyed hash then. In some networks it names the emoji.
ALTER TABLE reaction ADD COLUMN shown_letter BLOB;
