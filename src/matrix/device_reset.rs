//! Replacing the device (`device reset`) or logging it out for good (`logout`). The queue, the links and the cursors
//! stay; the keys are removed.
//!
//! The homeserver knows transaction ids per device, so the new device cannot repeat a send of the old one whose outcome
//! was not recorded: such sends are looked up while the keys are still there, and the found events are saved. A kill at
//! any moment leaves either the old device as it was or the new one, which `footbridge login` then finishes.

use std::time::Duration;

use footbridge_core::crash_points;
use footbridge_store::{Account, FormerSend, Millis, Place, RemoteId};
use matrix_sdk::{
    Client, SqliteCryptoStore,
    ruma::{
        OwnedDeviceId, OwnedUserId, RoomId,
        api::{Direction, client::message::get_message_events},
        serde::Raw,
        uint,
    },
};
use matrix_sdk_base::crypto::{DecryptionSettings, TrustRequirement};
use matrix_sdk_crypto::OlmMachine;
use tracing::info;

use super::{
    Boxed, MatrixError,
    account::{self, LoggedIn, Login},
    client, delivery_mark,
    event_fields::EventFields,
    password_login::log_in_with_password,
    request_error::RequestError,
    saved_account,
    session::{self, SessionState, sealed},
};

/// How much the homeserver's clock may differ from the local one.
const CLOCK_SKEW: Duration = Duration::from_hours(1);
/// The most pages of each room that are read.
const MAX_PAGES: usize = 40;

/// Replaces the current device by a new one. The password is tried before anything is removed.
#[must_use]
pub fn reset(with: Login<'_>) -> Boxed<'_, Result<LoggedIn, MatrixError>> {
    Box::pin(async move {
        let account = with.store.relay_account().await?;
        let account = account.ok_or(MatrixError::NoAccount)?;
        saved_account::check_user(&account.info, &with.config)?;
        (with.progress)("Logging in on a new device");
        let homeserver = saved_account::homeserver(&account.info, &with.config)?;
        let fresh = client::build_without_stores(&homeserver, with.http.clone()).await?;
        let (session, life) = log_in_with_password(&fresh, &(&with).into(), None).await?;
        (with.progress)("Looking up what the old device has sent");
        let sends = match former_sends(&fresh, &account, &with).await {
            Ok(sends) => sends,
            Err(error) => {
                // Without the reset nobody needs the new device.
                let _logged_out = fresh.matrix_auth().logout().await;
                return Err(error);
            }
        };
        let mut info = account.info.clone();
        info.device_id = session.meta.device_id.to_string();
        let sealed = sealed(&session, life)?;
        with.store
            .replace_device(account.id, &info, &sealed, &sends, with.clock.now())
            .await?;
        info!("A new device has replaced the old one");
        crash_points::point("device.replaced");
        account::login(with).await
    })
}

/// Logs the device out and removes its keys.
#[must_use]
pub fn log_out(with: Login<'_>) -> Boxed<'_, Result<(), MatrixError>> {
    Box::pin(async move {
        let state = session::ask(&with.store, &with.config, &with.http).await?;
        let account = with.store.relay_account().await?;
        let account = account.ok_or(MatrixError::NoAccount)?;
        match state {
            SessionState::Accepted => {
                let homeserver = saved_account::homeserver(&account.info, &with.config)?;
                let client = client::build_without_stores(&homeserver, with.http.clone()).await?;
                saved_account::restore(&client, &account.session).await?;
                (with.progress)("Looking up what the device has sent");
                let sends = former_sends(&client, &account, &with).await?;
                // Before the request: after it nobody could look them up again.
                with.store.save_former_sends(&sends).await?;
                (with.progress)("Logging out");
                client
                    .matrix_auth()
                    .logout()
                    .await
                    .map_err(|error| RequestError::from(&error).into_matrix_error("log out"))?;
            }
            SessionState::Gone => {}
            SessionState::Expired => {
                return Err(MatrixError::SignedOut(
                    "the session has expired, so it cannot log itself out: footbridge login first, or remove the \
                     device with another client"
                        .into(),
                ));
            }
            SessionState::Unknown => {
                return Err(MatrixError::Unavailable(anyhow::anyhow!(
                    "the homeserver does not answer; the device is still logged in"
                )));
            }
        }
        // Keys that are left without a session would be opened by the next login.
        saved_account::remove_keys(&with.store, account.id)?;
        Ok(with.store.sign_out_account(account.id).await?)
    })
}

/// The events of this account in rooms with pending deliveries, as far as the old device's keys can decrypt them.
async fn former_sends(
    client: &Client,
    account: &Account,
    with: &Login<'_>,
) -> Result<Vec<FormerSend>, MatrixError> {
    let all_counters = with.store.lane_counters().await?;
    let portals = with.store.portals().await?;
    let mut rooms: Vec<(Place, Millis)> = Vec::new();
    for counters in &all_counters {
        let oldest = counters.oldest_pending.filter(|_| {
            counters.lane.toward == footbridge_store::Side::Matrix && counters.pending > 0
        });
        let portal = portals
            .iter()
            .find(|portal| portal.id == counters.lane.portal);
        if let (Some(since), Some(portal)) = (oldest, portal) {
            rooms.push((portal.room.clone(), since));
        }
    }
    if rooms.is_empty() {
        return Ok(Vec::new());
    }
    let keys = old_keys(account, with).await;
    let mut sends = Vec::new();
    for (place, since) in rooms {
        let Ok(room) = RoomId::parse(place.address()) else {
            continue;
        };
        let reader = Reader {
            keys: keys.as_ref(),
            own: &account.info.user_id,
            place: &place,
            since,
        };
        reader.read(client, &room, &mut sends).await?;
    }
    Ok(sends)
}

/// The old device's keys, for reading. Without them, encrypted events stay undecrypted.
async fn old_keys(account: &Account, with: &Login<'_>) -> Option<OlmMachine> {
    let directory = saved_account::directory(&with.store, account.id);
    let key = with.key.derive(saved_account::KEY_PURPOSE);
    if !directory.exists() {
        return None;
    }
    let config = client::store_config(&directory, &key);
    let store = SqliteCryptoStore::open_with_config(&config).await.ok()?;
    let user = OwnedUserId::try_from(account.info.user_id.as_str()).ok()?;
    let device = OwnedDeviceId::from(account.info.device_id.as_str());
    OlmMachine::with_store(&user, &device, store, None)
        .await
        .ok()
}

/// Reads one room backwards.
struct Reader<'a> {
    keys: Option<&'a OlmMachine>,
    own: &'a str,
    place: &'a Place,
    since: Millis,
}

impl Reader<'_> {
    async fn read(
        &self,
        client: &Client,
        room: &RoomId,
        sends: &mut Vec<FormerSend>,
    ) -> Result<(), MatrixError> {
        let mut from = None;
        for _ in 0..MAX_PAGES {
            let mut request =
                get_message_events::v3::Request::new(room.to_owned(), Direction::Backward);
            request.limit = uint!(500);
            request.from.clone_from(&from);
            let page = match client.send(request).await {
                Ok(page) => page,
                // The account is not in that room: no event of a pending delivery could be visible there.
                Err(error) => match RequestError::from(&error) {
                    RequestError::Forbidden(_) | RequestError::NotFound(_) => return Ok(()),
                    error => return Err(error.into_matrix_error("read a room")),
                },
            };
            for event in &page.chunk {
                let raw = event.json().get();
                let Ok(envelope) = serde_json::from_str::<EventFields>(raw) else {
                    continue;
                };
                // Another user's server chooses the time of that user's events.
                if envelope.sender != self.own {
                    continue;
                }
                if Millis(envelope.origin_server_ts).plus(CLOCK_SKEW) < self.since {
                    return Ok(());
                }
                sends.extend(self.look_at(room, raw, &envelope).await);
            }
            match page.end {
                Some(end) if from.as_ref() != Some(&end) => from = Some(end),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    async fn look_at(
        &self,
        room: &RoomId,
        raw: &str,
        envelope: &EventFields,
    ) -> Option<FormerSend> {
        let (remote, sent_at) = (envelope.event_id.clone(), envelope.origin_server_ts);
        let key = if envelope.event_type == "m.room.encrypted" {
            match self.open(room, raw).await {
                Some(opened) => delivery_mark::of(&opened)?.to_owned(),
                None => String::new(),
            }
        } else {
            delivery_mark::of(envelope)?.to_owned()
        };
        Some(FormerSend {
            place: self.place.clone(),
            key,
            remote: RemoteId(remote),
            sent_at: Millis(sent_at),
        })
    }

    async fn open(&self, room: &RoomId, raw: &str) -> Option<EventFields> {
        let raw = Raw::from_json_string(raw.to_owned()).ok()?;
        let settings = DecryptionSettings {
            sender_device_trust_requirement: TrustRequirement::Untrusted,
        };
        let opened = self.keys?.decrypt_room_event(&raw, room, &settings).await;
        serde_json::from_str(opened.ok()?.event.json().get()).ok()
    }
}
