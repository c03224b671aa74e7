//! The Matrix side: ordinary Matrix accounts, each on one device. The only package that awaits the SDK's futures; every
//! future it returns is boxed, so that other crates do not compile the SDK's futures again.

pub mod account;
mod account_client;
pub mod session;
mod databases;
mod lease;
mod device;
mod network;
pub mod verify;
pub mod device_reset;
mod client;
mod config;
mod crypto_store;
mod key_claims;
mod pending_sessions;
mod cross_signing;
mod security_metrics;
mod audit;
mod identity_pins;
mod identities;
mod trust_policy;
mod decrypt;
mod saved_account;
mod password_login;
pub mod personal_login;
mod old_device;
mod delivery_mark;
mod key_rotation;
mod refusals;
mod sync_coverage;
mod sync_loop;
mod inbound;
mod sync_state;
mod olm;
mod sync_response;
mod encryption_boundary;
mod plaintext_rooms;
mod timeline;
mod event_reader;
mod event_fields;
mod processed_event;
mod commands;
mod power_levels;
mod room_state;
mod room_access;
mod room_profile;
mod relation;
mod gaps;
mod history_pages;
mod late_keys;
mod key_waits;
mod journal_writer;
mod undecryptable;
mod wait_timer;
mod unverified_sessions;
mod unsigned_devices;
mod duplicate_keys;
mod rooms;
mod room_flags;
mod invites;
mod invite_policy;
mod unjoined_rooms;
mod message_authors;
mod send;
mod event_sender;
mod encrypted_send;
mod own_events;
mod own_accounts;
mod personal_device;
mod event_edits;
mod file_sender;
mod encryption_states;
mod encryption_guard;
mod confusables;
mod avatars;
mod media;
mod unanswered_sends;
mod previous_text;
pub mod convert;
mod error;
mod request_error;
mod room_requests;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use footbridge_core::clock::Clock;
use footbridge_store::{Place, Store, StoreKey};

pub use self::{
    config::{Homeserver, MatrixConfig, Timeouts, Trust},
    device::Device,
    error::MatrixError,
    identities::Approved,
    network::MatrixNetwork,
    personal_device::PersonalDevice,
    power_levels::MemberRights,
    room_state::Successor,
};

/// The longest time that a sync response may take. Until then a missing response says nothing about the homeserver.
pub const MAX_SYNC: Duration = sync_loop::MAX_SYNC;

/// A boxed future: the type of every future that this package returns.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The Matrix side of a bridge: what all devices share, and the device of the relay account.
#[derive(Debug)]
pub struct Matrix {
    network: Arc<MatrixNetwork>,
    device: Device,
}

impl Matrix {
    /// Restores the session that the store holds. Never logs in. Needs no network.
    ///
    /// # Errors
    /// [`MatrixError::NoAccount`] where there is no session, [`MatrixError::DatabaseMissing`] where its keys are gone,
    /// and [`MatrixError::Identity`] where the device is not cross-signed or its reset was interrupted.
    #[must_use]
    pub fn open(
        store: Store,
        key: &StoreKey,
        config: MatrixConfig,
        trust: Trust,
        http: reqwest::Client,
        clock: Clock,
    ) -> Boxed<'_, Result<Arc<Self>, MatrixError>> {
        Box::pin(async move {
            let network = MatrixNetwork::open(store, &config, trust, http, clock).await?;
            let network = Arc::new(network);
            let device = Device::open(&network, key, &config).await?;
            Ok(Arc::new(Self { network, device }))
        })
    }

    /// What all devices share.
    #[must_use]
    pub fn network(&self) -> &MatrixNetwork {
        &self.network
    }

    /// The same, for devices of further accounts.
    #[must_use]
    pub fn shared_network(&self) -> &Arc<MatrixNetwork> {
        &self.network
    }

    /// The device of the bridge's account.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }
}

/// The name of a room's cursor, with the newest event that was processed.
fn room_cursor_name(place: &Place) -> String {
    place.as_str().to_owned()
}
