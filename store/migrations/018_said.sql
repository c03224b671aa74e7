-- What events of ours say that are read back before they are changed: keyed digests of it, nothing else.
CREATE TABLE said (
    place  TEXT NOT NULL,
    remote TEXT NOT NULL,
    digest TEXT NOT NULL, -- what it says
    next   TEXT,          -- what it was about to say when it was last changed
    PRIMARY KEY (place, remote)
) STRICT, WITHOUT ROWID;
