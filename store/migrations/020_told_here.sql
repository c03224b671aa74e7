-- Who sent what cannot be read is told where it was sent, too, if it is something that they can end.
ALTER TABLE missing ADD COLUMN can_end INTEGER NOT NULL DEFAULT 0 CHECK (can_end IN (0, 1)); -- whether they can
ALTER TABLE missing ADD COLUMN here INTEGER NOT NULL DEFAULT 0 CHECK (here IN (0, 1)); -- whether a notice stands there
ALTER TABLE missing ADD COLUMN device TEXT; -- the device that they come from, where it is what is wrong
-- Whether the notices were left as they were when nothing of it waited any more: they stay true.
ALTER TABLE missing ADD COLUMN stands INTEGER NOT NULL DEFAULT 0 CHECK (stands IN (0, 1));
CREATE INDEX missing_stands ON missing (id) WHERE stands = 1;
