//! What all devices of the bridge share: the store, what the operator decides, and what is known of users and rooms
//! whichever account sees them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use footbridge_core::{clock::Clock, peer_bridges::PeerBridges};
use footbridge_store::Store;
use ruma::OwnedUserId;

use super::{
    MatrixConfig, MatrixError, Timeouts, Trust, identity_pins::IdentityPins,
    invite_policy::InvitePolicy, own_accounts::OwnAccounts, room_flags::RoomFlags,
    security_metrics::SecurityMetrics,
};

/// What the operator decides, for every device.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// Whose messages are relayed, and which devices get room keys.
    pub trust: Trust,
    /// How long a lane waits for a missing room key before it delivers later messages.
    pub key_wait: Duration,
    pub timeouts: Timeouts,
    /// Who may verify the bridge.
    pub admins: Vec<OwnedUserId>,
}

/// The Matrix network, as far as it is the same for all devices of the bridge.
pub struct MatrixNetwork {
    pub(super) store: Store,
    pub(super) clock: Clock,
    /// For files, which the SDK would hold in memory.
    pub(super) http: reqwest::Client,
    pub(super) policy: Policy,
    pub(super) pins: Arc<IdentityPins>,
    pub(super) flags: Arc<RoomFlags>,
    pub(super) invites: Arc<InvitePolicy>,
    pub(super) peer_bridges: PeerBridges,
    pub(super) security: Arc<SecurityMetrics>,
    pub(super) own_accounts: Arc<OwnAccounts>,
}

impl MatrixNetwork {
    /// Loads the pinned identities from the store. Needs no network.
    ///
    /// # Errors
    /// [`MatrixError::Store`] where the store cannot be read.
    pub(super) async fn open(
        store: Store,
        config: &MatrixConfig,
        trust: Trust,
        http: reqwest::Client,
        clock: Clock,
    ) -> Result<Self, MatrixError> {
        let pins = Arc::new(IdentityPins::default());
        pins.load(&store, clock).await?;
        Ok(Self {
            policy: Policy {
                trust,
                key_wait: config.key_wait,
                timeouts: config.timeouts.clone(),
                admins: config.admins.clone(),
            },
            pins,
            flags: Arc::new(RoomFlags::of(store.clone(), clock)),
            invites: Arc::new(InvitePolicy::of(
                config.inviters.clone(),
                config.greeting.clone(),
            )),
            peer_bridges: PeerBridges::default(),
            security: Arc::default(),
            own_accounts: Arc::new(OwnAccounts::load(store.clone()).await?),
            store,
            clock,
            http,
        })
    }

    /// Which channels the rooms are linked to.
    #[must_use]
    pub fn peer_bridges(&self) -> &PeerBridges {
        &self.peer_bridges
    }

    /// How many events were refused by the trust policy since the start, by class.
    #[must_use]
    pub fn security_counts(&self) -> BTreeMap<String, u64> {
        self.security.counts()
    }

    /// An account has logged in or out.
    ///
    /// # Errors
    /// [`MatrixError::Store`] where the store cannot be read.
    pub async fn reload_accounts(&self) -> Result<(), MatrixError> {
        Ok(self.own_accounts.reload().await?)
    }

    /// Sets the rooms, by id or alias, of portals that are not resolved yet: an invite to one of them waits until its
    /// portal is open.
    pub fn set_awaited_rooms(&self, rooms: Vec<String>) {
        self.invites.set_awaited_rooms(rooms);
    }
}

impl std::fmt::Debug for MatrixNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MatrixNetwork").finish_non_exhaustive()
    }
}
