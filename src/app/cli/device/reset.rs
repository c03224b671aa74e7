//! `footbridge device reset`: replaces a device that cannot continue (logged out, restored from a backup, keys lost) by
//! a new one. The queue and the links stay.

use std::time::Duration;

use footbridge_core::{
    clock::Clock,
    http_client,
    inbox::{Inbox, Signals},
};
use footbridge_matrix::{
    Matrix, MatrixError,
    account::Login,
    device_reset,
    session::{self, SessionState},
};
use footbridge_store::{Place, Store, StoreKey};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::{CommandResult, console, diagnostics, login, progress::Progress};
use crate::config::{Config, Exit, Report};

/// How long the old device gets to fetch what was sent to it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(90);

/// Logs the new device in and the old one out.
pub async fn run(config: &Config) -> CommandResult {
    let (key, store, account) = login::logged_in(config).await?;
    let http = http_client::client()
        .map_err(|error| Report::of(diagnostics::from_bridge_error(&error)))?;
    let mut recovery_key = login::recovery_key(config)?;
    if recovery_key.is_none() && account.recovery_key.is_none() {
        let typed = login::ask(
            "Recovery key of the account",
            "`[matrix] recovery_key_file`",
            true,
        );
        recovery_key = Some(typed.map_err(Report::of)?);
    }
    let password = login::password(config).map_err(Report::of)?;
    let clock = Clock::start();
    let progress = Progress::start();
    if session::ask(&store, &config.matrix, &http).await? == SessionState::Accepted {
        progress.say("Fetching the room keys that were sent to the old device");
        drain_old_device(config, &store, &key, &http, clock).await?;
    }
    let done = device_reset::reset(Login {
        store: store.clone(),
        key: &key,
        config: config.matrix.clone(),
        password,
        recovery_key,
        http,
        clock,
        progress: &|step| progress.say(step),
    })
    .await;
    drop(progress);
    let old = account.info.device_id;
    login::print_result(&done?);
    console::say(&format!(
        "Device {old} was replaced. The queue, the links and the sync positions are kept.\n\
         Anyone who verified the old device must verify the new one: footbridge device show"
    ));
    store.checkpoint().await?;
    Ok(Exit::Fine)
}

/// The room keys of messages that wait on the homeserver were sent to the old device and to no other. So the old device
/// syncs once more, and sends nothing. It must not do that with a stale store.
async fn drain_old_device(
    config: &Config,
    store: &Store,
    key: &StoreKey,
    http: &reqwest::Client,
    clock: Clock,
) -> Result<(), Report> {
    let opened = Matrix::open(
        store.clone(),
        key,
        config.matrix.clone(),
        config.trust(),
        http.clone(),
        clock,
    );
    let matrix = match opened.await {
        Ok(matrix) => matrix,
        // An unreadable crypto store is one reason for a reset.
        Err(
            error @ (MatrixError::CryptoStore(_)
            | MatrixError::Identity(_)
            | MatrixError::DatabaseMissing(_)),
        ) => {
            let error = error.to_string();
            warn!(error, "The old device can no longer fetch its room keys");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let rooms = rooms(store).await?;
    let inbox = Inbox::new(store.clone(), Signals::default(), clock);
    let stop = CancellationToken::new();
    let caught_up = async {
        let done = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while !matrix.device().is_caught_up()
                || store
                    .gaps(Place::MATRIX)
                    .await
                    .is_ok_and(|gaps| !gaps.is_empty())
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let done = done.await;
        stop.cancel();
        done
    };
    let (synced, done) = tokio::join!(
        matrix.device().listen(rooms, inbox, stop.clone()),
        caught_up
    );
    match synced {
        Ok(()) if done.is_ok() => matrix.device().release_lease().await,
        Ok(()) => {
            warn!(
                "The homeserver was too slow; messages for which only the old device has keys may stay undecryptable"
            );
        }
        Err(MatrixError::StaleStore(_)) => warn!(
            "This store is an old copy: messages that only the newer one can decrypt will be reported as undecryptable, \
             and messages relayed after the copy was made may be relayed again"
        ),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The rooms of all active portals.
pub(super) async fn rooms(store: &Store) -> Result<Vec<Place>, Report> {
    let portals = store.portals().await?;
    let active = portals.into_iter().filter(|portal| portal.active);
    Ok(active.map(|portal| portal.room).collect())
}
