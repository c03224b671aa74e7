//! A device on the account of a person: it sends what the person writes in a silo, as the person, and reads nothing. It is used
//! only while the person's cross-signing identity has signed it: otherwise others would have no reason to trust what it sends.

use std::{sync::Arc, time::Duration};

use footbridge_core::{backoff::Backoff, outlet::Outlet};
use footbridge_store::{AccountId, Place, Store, StoreKey};
use matrix_sdk::ruma::{OwnedRoomId, RoomId};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Boxed, MatrixConfig, MatrixError,
    account_client::AccountClient,
    client::{self, ClientOptions},
    cross_signing,
    crypto_store::BufferedCryptoStore,
    databases,
    device::DeviceParts,
    identities,
    key_claims::KeyClaims,
    lease::Lease,
    network::MatrixNetwork,
    request_error::RequestError,
    saved_account,
    send::MatrixOutlet,
    session::SessionKeeper,
    sync_state::SyncState,
};

/// How long the homeserver may hold a sync open.
const LONG_POLL: Duration = Duration::from_secs(30);

/// A running device of a person.
pub struct PersonalDevice {
    account: AccountClient,
    keys: Arc<BufferedCryptoStore>,
    claims: Arc<KeyClaims>,
    lease: Arc<Lease>,
    session: SessionKeeper,
    sync: Arc<SyncState>,
    outlet: Arc<MatrixOutlet>,
    store: Store,
}

impl PersonalDevice {
    /// Restores the saved session of a personal account. Never logs in. Needs no network.
    ///
    /// # Errors
    /// [`MatrixError::NoAccount`] where the account is not logged in, and [`MatrixError::DatabaseMissing`] where its keys are gone.
    #[must_use]
    pub fn open<'a>(
        network: &'a Arc<MatrixNetwork>,
        key: &'a StoreKey,
        config: &'a MatrixConfig,
        account: AccountId,
    ) -> Boxed<'a, Result<Self, MatrixError>> {
        Box::pin(async move {
            let (store, clock) = (&network.store, network.clock);
            let saved = store.account(account).await?;
            let saved = saved.ok_or(MatrixError::NoAccount)?;
            let directory = saved_account::directory(store, account);
            databases::require_databases(&directory)?;
            let (client, keys) = client::build_with_keys(ClientOptions {
                homeserver: &saved_account::homeserver_of_person(&saved.info, config)?,
                directory: &directory,
                key: &key.derive(saved_account::KEY_PURPOSE),
                trust: network.policy.trust,
                http: network.http.clone(),
                pins: network.pins.clone(),
            })
            .await?;
            saved_account::restore(&client, &saved.session).await?;
            identities::recheck(&keys).await?;
            let session = SessionKeeper::of(&client, store, &saved, clock)?;
            let claims = KeyClaims::of(&client, &keys);
            let account = AccountClient::of(account, client)?;
            let parts = DeviceParts::of(network, &account, &keys, &claims, key, saved.since);
            Ok(Self {
                outlet: Arc::new(MatrixOutlet::of_person(&parts)),
                lease: parts.lease,
                sync: parts.sync,
                store: store.clone(),
                account,
                keys,
                claims,
                session,
            })
        })
    }

    /// The way out, which speaks as the person.
    #[must_use]
    pub fn outlet(&self) -> Arc<dyn Outlet> {
        self.outlet.clone()
    }

    /// Keeps the device in step with its account until stopped: its own keys, and the members and devices of these rooms. No
    /// message is read. `signed` is called whenever it becomes known whether the person's identity has signed the device, and again
    /// when the rooms have changed.
    ///
    /// # Errors
    /// Only where the device cannot continue by itself: [`MatrixError::SignedOut`] where the session is over.
    #[must_use]
    pub fn run<'a>(
        &'a self,
        rooms: watch::Receiver<Vec<Place>>,
        signed: &'a (dyn Fn(bool) + Send + Sync),
        stop: CancellationToken,
    ) -> Boxed<'a, Result<(), MatrixError>> {
        Box::pin(async move {
            if !self.lease.acquire(&stop).await? {
                return Ok(());
            }
            let ended = tokio::select! {
                ended = Box::pin(self.follow(rooms, signed, &stop)) => ended,
                lost = Box::pin(self.lease.maintain()) => Err(lost),
                over = Box::pin(self.session.maintain()) => Err(over),
                () = Box::pin(self.claims.follow(&[])) => Ok(()),
                () = stop.cancelled() => Ok(()),
            };
            if !matches!(ended, Err(MatrixError::SignedOut(_))) {
                self.lease.release().await;
            }
            ended
        })
    }

    async fn follow(
        &self,
        mut rooms: watch::Receiver<Vec<Place>>,
        signed: &(dyn Fn(bool) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<(), MatrixError> {
        let mut backoff = Backoff::default();
        let (mut was_signed, mut wait) = (None, Duration::ZERO);
        while !stop.is_cancelled() {
            let listed = room_ids(&rooms.borrow_and_update());
            let known = self.store.cursor(&self.rooms_cursor()).await?;
            let all = listed_as_text(&listed);
            let is_new = known.as_deref() != Some(&all);
            let wanted = client::StateSync {
                rooms: listed,
                // A room that was not in the filter before is not in an answer that only says what has changed.
                whole: is_new,
                timeout: if is_new { Duration::ZERO } else { wait },
            };
            let sync = client::sync_state(self.account.client(), wanted);
            // A sync that is dropped while the SDK processes it would hold sends back; new rooms wait for its end.
            let answer = tokio::select! {
                answer = sync => answer,
                () = stop.cancelled() => return Ok(()),
            };
            self.keys.sync_ended(answer.as_ref().ok());
            match answer {
                Ok(_) => {
                    self.sync.arrived();
                    self.sync.answered();
                    self.session.keep().await?;
                    backoff.worked();
                    wait = LONG_POLL;
                }
                Err(error) => {
                    self.sync.failed();
                    self.wait_after(&error, &mut backoff, stop).await?;
                    continue;
                }
            }
            if is_new {
                self.store.save_cursor(&self.rooms_cursor(), &all).await?;
            }
            let is_signed = self.is_signed().await?;
            if is_new || was_signed != Some(is_signed) {
                was_signed = Some(is_signed);
                info!(
                    account.id = self.account.id().0,
                    is_signed, "A person's device follows its account"
                );
                signed(is_signed);
            }
        }
        Ok(())
    }

    /// Whether the person's identity has signed the device. The identity that is known first is the one that counts, as for every
    /// other user: with another one the device does not speak.
    async fn is_signed(&self) -> Result<bool, MatrixError> {
        let client = self.account.client();
        if cross_signing::require_signed_device(client).await.is_err() {
            return Ok(false);
        }
        let encryption = client.encryption();
        let identity = match encryption.get_user_identity(self.account.user()).await {
            Ok(Some(identity)) => identity,
            Ok(None) => return Ok(false),
            Err(error) => {
                return Err(MatrixError::CryptoStore(format!(
                    "the person's identity could not be read: {error}"
                )));
            }
        };
        let key = identity.master_key().get_first_key();
        let Some(key) = key.map(|key| key.to_base64()) else {
            return Ok(false);
        };
        let id = self.account.id();
        let saved = self
            .store
            .account(id)
            .await?
            .ok_or(MatrixError::NoAccount)?;
        let fingerprint = saved.info.ed25519.unwrap_or_default();
        match saved.info.master_key {
            Some(known) if known == key => {}
            Some(_) => {
                warn!(
                    account.id = id.0,
                    "The person's identity is another one than at the login; the device does not speak. A logout and a new login accept it"
                );
                return Ok(false);
            }
            None => {
                self.store
                    .save_fingerprints(id, &fingerprint, Some(&key))
                    .await?;
            }
        }
        if !identity.is_verified()
            && let Err(error) = identity.verify().await
        {
            warn!(account.id = id.0, error = %error, "The device could not sign the person's identity; trying again");
            return Ok(false);
        }
        Ok(true)
    }

    async fn wait_after(
        &self,
        error: &matrix_sdk::Error,
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> Result<(), MatrixError> {
        let wait = match RequestError::from(error) {
            error @ RequestError::SignedOut(_) => return Err(error.into_matrix_error("sync")),
            RequestError::RateLimited(Some(wait)) => wait.max(backoff.failed()),
            _ => backoff.failed(),
        };
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        warn!(
            account.id = self.account.id().0,
            wait_ms,
            error = %error,
            "A person's homeserver does not answer; trying again"
        );
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    /// The name of the cursor that says which rooms the SDK has the whole state of.
    fn rooms_cursor(&self) -> String {
        format!("rooms/{}", self.account.id())
    }
}

impl std::fmt::Debug for PersonalDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PersonalDevice").finish_non_exhaustive()
    }
}

fn room_ids(places: &[Place]) -> Vec<OwnedRoomId> {
    let ids = places.iter();
    let mut ids: Vec<OwnedRoomId> = ids
        .filter_map(|place| RoomId::parse(place.address()).ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn listed_as_text(rooms: &[OwnedRoomId]) -> String {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    rooms.join(" ")
}
