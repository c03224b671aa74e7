-- The message that an edit or a deletion is about, while that is owed: so that it is found before the message goes.
ALTER TABLE journal ADD COLUMN about TEXT;
CREATE INDEX journal_about ON journal (place, about) WHERE about IS NOT NULL;
