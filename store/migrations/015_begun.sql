-- Whether the delay of a consent is over, by what was heard in the room: what was said before that stays there.
ALTER TABLE consent ADD COLUMN begun INTEGER NOT NULL DEFAULT 0 CHECK (begun IN (0, 1));
UPDATE consent SET begun = 1;
