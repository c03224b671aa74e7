-- Portals that were linked while a place was followed already: what is said there does not pass such a portal until all
-- that had been said there before the link has been taken in. Numbers grow, so that they tell what came before what.
CREATE TABLE opening (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    portal_id INTEGER NOT NULL REFERENCES portal (id),
    place     TEXT    NOT NULL,
    UNIQUE (portal_id, place)
) STRICT;
