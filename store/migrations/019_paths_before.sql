-- Stores in which something waited when paths were introduced: it goes on from where it was said.

-- Said in a room that was replaced before: the room that took its place is on the path. Of a room of which no portal knows
-- any more, it begins at the near end of its lane.
CREATE TEMP TABLE moved AS
SELECT s.from_place AS old, s.portal_id, s.toward, coalesce(
    (SELECT p.room_place FROM portal p WHERE p.active = 1 AND EXISTS (
        SELECT 1 FROM journal j WHERE j.place = 'bridge:notice'
        AND j.fact = 'followed-' || s.from_place || '-' || p.room_place)),
    (SELECT iif(s.toward = 'silo', p.room_place, p.channel_place) FROM portal p
     WHERE p.id = s.portal_id)) AS new
FROM (SELECT from_place, portal_id, toward FROM outbox
      UNION SELECT from_place, portal_id, toward FROM parked WHERE kept = 1) s
WHERE s.from_place <> 'bridge:notice'
AND EXISTS (SELECT 1 FROM portal p WHERE p.id = s.portal_id AND p.active = 1)
AND NOT EXISTS (SELECT 1 FROM portal p WHERE s.from_place IN (p.room_place, p.channel_place));

UPDATE outbox SET from_place = m.new FROM moved m
WHERE m.old = from_place AND m.portal_id = outbox.portal_id AND m.toward = outbox.toward;
UPDATE parked SET from_place = m.new FROM moved m
WHERE m.old = from_place AND m.portal_id = parked.portal_id AND m.toward = parked.toward;
DROP TABLE moved;

-- The clock may have been put back since the portal was linked: what it owes, and what was said at one of its ends and is
-- still owed, was said to it.
UPDATE portal SET opened_after = min(opened_after, coalesce((
    SELECT min(o.entry_id) - 1 FROM
        (SELECT entry_id, portal_id, from_place FROM outbox
         UNION ALL SELECT entry_id, portal_id, from_place FROM parked WHERE kept = 1) o
    WHERE o.portal_id = portal.id
    OR o.from_place IN (portal.room_place, portal.channel_place)), opened_after))
WHERE active = 1;
