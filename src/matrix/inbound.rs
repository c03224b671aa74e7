//! What comes in: the parts that the sync loop of one device calls, from a sync response to the journal.

use std::sync::Arc;

use super::{
    MatrixError, audit::Auditor, device::DeviceParts, gaps::GapFiller, invites::Invitee,
    journal_writer::JournalWriter, key_waits::KeyWaits, late_keys::LateKeys,
    plaintext_rooms::PlaintextRooms, refusals::Refusals, rooms::PortalRooms,
    sync_coverage::SyncCoverage, sync_response::SyncResponses, timeline::Timeline,
    undecryptable::UndecryptableNotices, unjoined_rooms::UnjoinedRooms,
    unsigned_devices::UnsignedNotices, unverified_sessions::UnverifiedSessions,
    wait_timer::WaitTimer,
};

/// The parts of one device that read.
#[derive(Debug)]
pub(super) struct Inbound {
    pub coverage: SyncCoverage,
    pub responses: SyncResponses,
    pub gaps: GapFiller,
    pub auditor: Auditor,
    pub late_keys: Arc<LateKeys>,
    pub key_waits: KeyWaits,
    pub notices: Arc<UndecryptableNotices>,
    pub portal_rooms: PortalRooms,
    pub plaintext_rooms: Arc<PlaintextRooms>,
    pub unjoined_rooms: Arc<UnjoinedRooms>,
    pub invitee: Invitee,
}

/// What the parts that read share.
struct Reading {
    timeline: Arc<Timeline>,
    journal: Arc<JournalWriter>,
    notices: Arc<UndecryptableNotices>,
    late_keys: Arc<LateKeys>,
    key_waits: KeyWaits,
}

impl Reading {
    async fn of(parts: &DeviceParts) -> Result<Self, MatrixError> {
        let DeviceParts {
            network,
            account,
            identities,
            authors,
            reader,
            ..
        } = parts;
        let (store, clock) = (&network.store, network.clock);
        let (policy, timeouts) = (&network.policy, &network.policy.timeouts);
        let refusals = Arc::new(Refusals::of(network.security.clone()));
        let unsigned_notices = Arc::new(UnsignedNotices::load(store).await?);
        let unverified_sessions = Arc::new(UnverifiedSessions::of(
            policy.key_wait,
            timeouts.device_wait,
        ));
        let wait_timer = Arc::new(WaitTimer::of(timeouts.notice_after));
        let timeline = Arc::new(Timeline {
            account: account.clone(),
            clock,
            key_wait: policy.key_wait,
            reader: reader.clone(),
            identities: identities.clone(),
            authors: authors.clone(),
            refusals: refusals.clone(),
            unverified_sessions: unverified_sessions.clone(),
            wait_timer: wait_timer.clone(),
            unsigned_notices: unsigned_notices.clone(),
            peer_bridges: network.peer_bridges.clone(),
        });
        let notices = Arc::new(UndecryptableNotices {
            account: account.clone(),
            store: store.clone(),
            trust: policy.trust,
            key_limit: timeouts.key_limit,
            flags: network.flags.clone(),
            decryptor: parts.decryptor.clone(),
            identities: identities.clone(),
            unsigned_notices: unsigned_notices.clone(),
        });
        let journal = Arc::new(JournalWriter::of(
            account.client().clone(),
            unverified_sessions.clone(),
            refusals.clone(),
            notices.clone(),
        ));
        let late_keys = Arc::new(LateKeys {
            account: account.clone(),
            store: store.clone(),
            clock,
            reader: reader.clone(),
            identities: identities.clone(),
            unverified_sessions,
            refusals,
            notices: notices.clone(),
            unsigned_notices,
            journal: journal.clone(),
        });
        let key_waits = KeyWaits {
            store: store.clone(),
            clock,
            notice_after: timeouts.notice_after,
            key_limit: timeouts.key_limit,
            timer: wait_timer,
            notices: notices.clone(),
            late_keys: late_keys.clone(),
        };
        Ok(Self {
            timeline,
            journal,
            notices,
            late_keys,
            key_waits,
        })
    }
}

impl Inbound {
    /// Loads what was said about unsigned devices from the store.
    ///
    /// # Errors
    /// [`MatrixError::Store`] where the store cannot be read.
    pub(super) async fn of(parts: &DeviceParts) -> Result<Self, MatrixError> {
        let Reading {
            timeline,
            journal,
            notices,
            late_keys,
            key_waits,
        } = Reading::of(parts).await?;
        let DeviceParts {
            network,
            account,
            sync,
            decryptor,
            unjoined_rooms,
            ..
        } = parts;
        let (store, clock, flags) = (&network.store, network.clock, &network.flags);
        let plaintext_rooms = Arc::new(PlaintextRooms::of(
            account.clone(),
            store.clone(),
            flags.clone(),
        ));
        let coverage = SyncCoverage::of(
            account.clone(),
            parts.keys.clone(),
            store.clone(),
            clock,
            sync.clone(),
        );
        let gaps = GapFiller::of(
            account.clone(),
            store.clone(),
            flags.clone(),
            timeline.clone(),
            journal.clone(),
        );
        Ok(Self {
            coverage,
            responses: SyncResponses {
                account: account.clone(),
                store: store.clone(),
                clock,
                flags: flags.clone(),
                plaintext_rooms: plaintext_rooms.clone(),
                unjoined_rooms: unjoined_rooms.clone(),
                rotation: parts.rotation.clone(),
                decryptor: decryptor.clone(),
                timeline: timeline.clone(),
                journal: journal.clone(),
            },
            gaps,
            auditor: Auditor {
                account: account.clone(),
                store: store.clone(),
                flags: flags.clone(),
                timeline,
                journal,
                sync: sync.clone(),
                every: network.policy.timeouts.audit,
            },
            key_waits,
            late_keys,
            notices,
            portal_rooms: PortalRooms::of(account.clone(), store.clone(), decryptor.clone()),
            plaintext_rooms,
            unjoined_rooms: unjoined_rooms.clone(),
            invitee: Invitee {
                account: account.clone(),
                store: store.clone(),
                clock,
                policy: network.invites.clone(),
                unjoined_rooms: unjoined_rooms.clone(),
            },
        })
    }
}
