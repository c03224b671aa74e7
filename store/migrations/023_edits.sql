-- The message that an event of ours replaces the text of; null for a message. Such an event belongs to the entry of that
-- message and is taken back with it, but is no copy: no later edit changes it.
ALTER TABLE link ADD COLUMN edits TEXT;
-- Which file of its message a copy carries: a digest of where the file lies. Empty for words, null for copies of
-- before.
ALTER TABLE link ADD COLUMN file TEXT;
