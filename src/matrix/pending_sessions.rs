//! Olm sessions that an unfinished sync has established or advanced: kept in memory beside the crypto store until the
//! room keys that came through them can be written with them. This module holds them; `crypto_store` decides when.

use std::{collections::HashMap, fmt};

use matrix_sdk_crypto::{
    DeviceData, Session,
    store::types::{Changes, DeviceChanges, IdentityChanges},
};
use ruma::{DeviceId, OwnedDeviceId, UserId};

/// A session, and its sender's device with the wedging index that the session has raised.
#[derive(Clone)]
struct PendingSession {
    session: Session,
    device: Option<DeviceData>,
}

/// The held sessions, oldest first.
#[derive(Clone, Default)]
pub(super) struct PendingSessions(Vec<PendingSession>);

impl fmt::Debug for PendingSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PendingSessions")
            .field(&self.0.len())
            .finish()
    }
}

impl PendingSessions {
    /// Holds changes of the shape that [`single_session`] accepts.
    pub(super) fn keep(&mut self, changes: Changes) {
        let mut devices = changes.devices.changed.into_iter();
        for session in changes.sessions {
            let known = self.0.iter().position(|entry| entry.session == session);
            let older = known.and_then(|at| self.0.remove(at).device);
            let device = devices.next().or(older);
            self.0.push(PendingSession { session, device });
        }
    }

    pub(super) fn has(&self, session_id: &str) -> bool {
        self.0
            .iter()
            .any(|entry| entry.session.session_id() == session_id)
    }

    /// The changes together with what must be written with them, and what stays held once they are written. The end of
    /// a sync includes everything that is held, other changes nothing. Where both have a session or a device, the
    /// changes are newer.
    pub(super) fn join(&self, mut changes: Changes) -> (Changes, Self) {
        let ends_sync = changes.next_batch_token.is_some();
        let (mut sessions, mut devices) = (Vec::new(), Vec::new());
        let mut rest = Self::default();
        for entry in &self.0 {
            let mut entry = entry.clone();
            entry.device = entry
                .device
                .filter(|device| !names(&changes.devices, device.user_id(), device.device_id()));
            if !ends_sync {
                rest.0.push(entry);
                continue;
            }
            devices.extend(entry.device);
            if !changes.sessions.contains(&entry.session) {
                sessions.push(entry.session);
            }
        }
        sessions.append(&mut changes.sessions);
        changes.sessions = sessions;
        // Written one after the other: of one device's entries the last is the newest.
        devices.append(&mut changes.devices.changed);
        changes.devices.changed = devices;
        (changes, rest)
    }

    /// A sender's sessions: the stored ones and the held ones, which replace older copies.
    pub(super) fn overlay_sessions(
        &self,
        sender_key: &str,
        stored: Option<Vec<Session>>,
    ) -> Option<Vec<Session>> {
        let mut sessions = stored.unwrap_or_default();
        for PendingSession { session, .. } in &self.0 {
            if session.sender_key().to_base64() == sender_key {
                sessions.retain(|stored| stored != session);
                sessions.push(session.clone());
            }
        }
        (!sessions.is_empty()).then_some(sessions)
    }

    /// A user's devices: the stored ones, with the held ones in their place.
    pub(super) fn overlay_devices(
        &self,
        user: &UserId,
        stored: &mut HashMap<OwnedDeviceId, DeviceData>,
    ) {
        for device in self.0.iter().filter_map(|entry| entry.device.as_ref()) {
            if device.user_id() == user {
                stored.insert(device.device_id().to_owned(), device.clone());
            }
        }
    }
}

fn names(changes: &DeviceChanges, user: &UserId, device: &DeviceId) -> bool {
    [&changes.new, &changes.changed, &changes.deleted]
        .into_iter()
        .flatten()
        .any(|named| named.user_id() == user && named.device_id() == device)
}

/// The session of changes that contain one session, at most one changed device, and nothing else. Every field is named,
/// so that a field that the SDK adds must be considered here.
pub(super) fn single_session(changes: &Changes) -> Option<&Session> {
    let Changes {
        private_identity,
        backup_version,
        backup_decryption_key,
        dehydrated_device_pickle_key,
        sessions,
        message_hashes,
        inbound_group_sessions,
        outbound_group_sessions,
        key_requests,
        identities:
            IdentityChanges {
                new: new_identities,
                changed: changed_identities,
                // Never written.
                unchanged: _,
            },
        devices:
            DeviceChanges {
                new: new_devices,
                changed: changed_devices,
                deleted: deleted_devices,
            },
        withheld_session_info,
        room_settings,
        secrets,
        next_batch_token,
        received_room_key_bundles,
        room_key_backups_fully_downloaded,
        rooms_pending_key_bundle,
    } = changes;
    let alone = private_identity.is_none()
        && backup_version.is_none()
        && backup_decryption_key.is_none()
        && dehydrated_device_pickle_key.is_none()
        && message_hashes.is_empty()
        && inbound_group_sessions.is_empty()
        && outbound_group_sessions.is_empty()
        && key_requests.is_empty()
        && new_identities.is_empty()
        && changed_identities.is_empty()
        && new_devices.is_empty()
        && changed_devices.len() <= 1
        && deleted_devices.is_empty()
        && withheld_session_info.is_empty()
        && room_settings.is_empty()
        && secrets.is_empty()
        && next_batch_token.is_none()
        && received_room_key_bundles.is_empty()
        && room_key_backups_fully_downloaded.is_empty()
        && rooms_pending_key_bundle.is_empty();
    match sessions.as_slice() {
        [session] if alone => Some(session),
        _ => None,
    }
}
