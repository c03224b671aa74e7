//! Refused invites, as `status` shows them.

use footbridge_store::{Millis, Portal, RefusedInvite, Snapshot};

/// How many refused invites are shown.
const MAX_SHOWN: usize = 10;

/// When the invite to a portal's room was refused, if the account has not joined the room since.
pub(super) fn refused_here(snapshot: &Snapshot, portal: &Portal) -> Option<Millis> {
    let mut refused = snapshot.refused.iter();
    refused
        .find(|invite| portal.active && invite.room == portal.room)
        .map(|invite| invite.at)
}

/// The newest refused invites to rooms that no portal names, newest first.
pub(super) fn refused_nowhere(snapshot: &Snapshot) -> Vec<&RefusedInvite> {
    let is_named = |invite: &&RefusedInvite| {
        let mut portals = snapshot.portals.iter();
        portals.any(|portal| portal.active && portal.room == invite.room)
    };
    let refused = snapshot.refused.iter().filter(|invite| !is_named(invite));
    refused.take(MAX_SHOWN).collect()
}
