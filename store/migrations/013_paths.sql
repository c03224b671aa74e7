-- Paths: a message that is said in one place may reach another through several portals, and each of them may hold it up
-- or be unlinked.

-- The newest entry when the portal was linked: what is older was not said to it.
ALTER TABLE portal ADD COLUMN opened_after INTEGER NOT NULL DEFAULT 0;
UPDATE portal SET opened_after = coalesce(
    (SELECT max(j.id) FROM journal j WHERE j.accepted_at < portal.opened_at), 0);

-- Where a debt's path begins: where the message was said, or, of a notice about what was said somewhere, that place.
ALTER TABLE outbox ADD COLUMN from_place TEXT NOT NULL DEFAULT '';
UPDATE outbox SET from_place = (SELECT place FROM journal WHERE id = entry_id);
ALTER TABLE parked ADD COLUMN from_place TEXT NOT NULL DEFAULT '';
UPDATE parked SET from_place = (SELECT place FROM journal WHERE id = entry_id);

CREATE INDEX outbox_source ON outbox (portal_id, toward, from_place, id);

-- What a notice is about, if it is what was said in one place.
ALTER TABLE notice ADD COLUMN about_place TEXT NOT NULL DEFAULT 'bridge:notice';
