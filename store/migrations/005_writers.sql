-- Who wrote a message, by a keyed hash: whether an edit comes from its author is decided without asking anybody.
-- NULL where it does not matter or is not known.
ALTER TABLE link ADD COLUMN writer TEXT;
