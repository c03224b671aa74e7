//! Room upgrades. A portal follows only where the new room names the old one as its predecessor, the sender of the
//! tombstone has the permission, and encryption is kept (P19); otherwise it is put on hold, and the bridge says why.

use footbridge_core::{crash_points, persons::is_admin};
use footbridge_store::{self as store, RoomUpgrade};
use tracing::{info, warn};

use super::{
    Control,
    backend::{BackendError, Successor},
    notices,
    permissions::{MemberRights, PortalAction, check_permission},
    portals::payload,
};

/// Why the portal does not follow into a new room, for a person.
fn objection(
    upgrade: &RoomUpgrade,
    successor: &Successor,
    listed: bool,
    rights: &MemberRights,
) -> Option<String> {
    let tombstone = &upgrade.tombstone;
    if successor.predecessor.as_deref() != Some(tombstone.room.address()) {
        return Some("the new room does not name this room as its predecessor".to_owned());
    }
    if let Err(refusal) = check_permission(PortalAction::FollowUpgrade, listed, false, rights) {
        let why = notices::refusal(refusal).replace("Permission denied: y", "Y");
        return Some(format!(
            "{} may not move the portal ({why})",
            tombstone.sender
        ));
    }
    if upgrade.was_encrypted && !successor.encrypted {
        return Some("this room is encrypted, and the new one is not".to_owned());
    }
    None
}

impl Control {
    /// Follows the upgraded rooms where that is safe. Returns whether to check again soon.
    pub(super) async fn follow_upgrades(&self) -> Result<bool, store::Error> {
        let mut soon = false;
        for upgrade in self.store.room_upgrades().await? {
            if upgrade.refused.is_some() {
                continue;
            }
            match self.follow(&upgrade).await {
                Ok(None) => {}
                Ok(Some(why)) | Err(BackendError::Denied(why)) => {
                    self.hold_portal(&upgrade, &why).await?;
                }
                Err(BackendError::Store(error)) => return Err(error),
                Err(BackendError::Unavailable(why)) => {
                    soon = true;
                    if self
                        .shown
                        .is_first(&format!("later-{}", upgrade.tombstone.room))
                    {
                        warn!(
                            error = why,
                            "Room upgraded; the new room cannot be checked yet"
                        );
                    }
                }
            }
        }
        Ok(soon)
    }

    /// Follows an upgrade, or returns why not.
    async fn follow(&self, upgrade: &RoomUpgrade) -> Result<Option<String>, BackendError> {
        let tombstone = &upgrade.tombstone;
        let rights = self
            .backend
            .member_rights(&tombstone.room, &tombstone.sender)
            .await?;
        let listed = is_admin(&self.rules.admins, &tombstone.sender);
        // Checked before the bridge joins a room because somebody says so.
        if let Err(refusal) = check_permission(PortalAction::FollowUpgrade, listed, false, &rights)
        {
            let why = notices::refusal(refusal).replace("Permission denied: y", "Y");
            let why = format!("{} may not move the portal ({why})", tombstone.sender);
            return Ok(Some(why));
        }
        let successor = self.backend.successor(tombstone).await?;
        if let Some(why) = objection(upgrade, &successor, listed, &rights) {
            return Ok(Some(why));
        }
        let now = self.clock.now();
        let notice = payload(
            "The old room was upgraded to this room, and its portal has moved here.",
            now,
        );
        let (old, new) = (&tombstone.room, &successor.place);
        let lanes = self
            .store
            .follow_room_upgrade(old, new, successor.encrypted, &notice, now)
            .await?;
        crash_points::point("room.followed");
        info!("Portal moved to the upgraded room");
        self.signals.notify_portals_changed();
        for lane in lanes {
            self.signals.wake(lane);
        }
        Ok(None)
    }

    /// Leaves the portal on hold, and says why.
    async fn hold_portal(&self, upgrade: &RoomUpgrade, why: &str) -> Result<(), store::Error> {
        let room = &upgrade.tombstone.room;
        warn!(
            reason = why,
            "Room upgraded; its portal does not move to the new room"
        );
        if !self.shown.may_tell_of_move(room) {
            return self.store.refuse_room_upgrade(room, why).await;
        }
        let text = format!(
            "This room was upgraded, but its portal does not move to the new room: {why}. Messages wait. An admin \
             can link the new room, or send `!bridge resume` here."
        );
        let notice_id = format!("stays-{room}-{}", upgrade.seen_at.0);
        self.say(room, &notice_id, &text).await?;
        for portal in self.portals_of(room, None).await? {
            let text = "The Matrix room was upgraded, and its portal has not moved to the new room. Messages wait.";
            let notice_id = format!("{notice_id}-there-{}", portal.id);
            self.say(&portal.channel, &notice_id, text).await?;
        }
        self.store.refuse_room_upgrade(room, why).await
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::{Millis, Place, Tombstone};

    use super::*;

    #[test]
    fn p19_a_room_is_followed_only_with_predecessor_rights_and_encryption() {
        let standing = |level| MemberRights {
            joined: true,
            level,
            to_change_power: 100,
            state_default: 50,
            encrypted: true,
        };
        let upgrade = |was_encrypted| RoomUpgrade {
            tombstone: Tombstone {
                room: Place::room("!old:x"),
                successor: "!new:x".into(),
                sender: "@ann:x".into(),
            },
            seen_at: Millis(0),
            was_encrypted,
            refused: None,
        };
        let successor = |predecessor: Option<&str>, encrypted| Successor {
            place: Place::room("!new:x"),
            predecessor: predecessor.map(str::to_owned),
            encrypted,
        };
        for (was, predecessor, is, listed, level, follows) in [
            (true, Some("!old:x"), true, true, 100, true),
            (false, Some("!old:x"), false, true, 100, true),
            (false, Some("!old:x"), true, true, 100, true),
            (true, Some("!old:x"), false, true, 100, false),
            (true, Some("!other:x"), true, true, 100, false),
            (true, None, true, true, 100, false),
            (true, Some("!old:x"), true, false, 100, false),
            (true, Some("!old:x"), true, true, 99, false),
        ] {
            let found = objection(
                &upgrade(was),
                &successor(predecessor, is),
                listed,
                &standing(level),
            );
            assert_eq!(
                found.is_none(),
                follows,
                "{predecessor:?} {was} {is} {listed} {level}: {found:?}"
            );
        }
    }
}
