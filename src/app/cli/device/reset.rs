//! `footbridge device reset`: a new device in the place of one that cannot go on (logged out, restored from a backup,
//! keys lost). The queue and the links stay.

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

/// How long the old device gets to take in what was sent to it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(90);

/// Makes the new device.
pub async fn run(config: &Config) -> CommandResult {
    let (key, store, account) = login::logged_in(config).await?;
    let http = http_client::client()
        .map_err(|error| Report::of(diagnostics::from_bridge_error(&error)))?;
    let mut recovery_key = login::recovery_key(config)?;
    if recovery_key.is_none() && account.recovery_key.is_none() {
        let asked = login::ask(
            "Recovery key of the account",
            "`[matrix] recovery_key_file`",
            true,
        );
        recovery_key = Some(asked.map_err(Report::of)?);
    }
    let password = login::password(config).map_err(Report::of)?;
    let clock = Clock::start();
    let progress = Progress::start();
    if session::ask(&store, &config.matrix, &http).await? == SessionState::Accepted {
        progress.say("Fetching room keys sent to the old device");
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
    login::tell(&done?);
    console::say(&format!(
        "Device {old} is given up. The queue, the links and the places in the streams stay.\n\
         Whoever had verified the bridge by its device must do so again: footbridge device show"
    ));
    store.checkpoint().await?;
    Ok(Exit::Fine)
}

/// The keys of messages that wait on the homeserver come to the old device and to no other. So it takes in once more
/// what there is, and sends nothing. A store that is too old for that must not.
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
        // What cannot be read any more is one reason for a reset.
        Err(
            error @ (MatrixError::CryptoStore(_)
            | MatrixError::Identity(_)
            | MatrixError::DatabaseMissing(_)),
        ) => {
            let error = error.to_string();
            warn!(error, "The old device cannot take anything in any more");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let rooms = rooms(store).await?;
    let inbox = Inbox::new(store.clone(), Signals::default(), clock);
    let stop = CancellationToken::new();
    let caught_up = async {
        let done = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while !matrix.is_caught_up()
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
    let (listened, done) = tokio::join!(matrix.listen(rooms, inbox, stop.clone()), caught_up);
    match listened {
        Ok(()) if done.is_ok() => matrix.release_lease().await,
        Ok(()) => {
            warn!("The homeserver was too slow; what was sent to the old device may stay unread");
        }
        Err(MatrixError::StaleStore(_)) => warn!(
            "This store is an old copy: messages that only the newer one could read will be told of as unreadable, and \
             what crossed after the copy was taken may cross again"
        ),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The rooms of all portals.
pub(super) async fn rooms(store: &Store) -> Result<Vec<Place>, Report> {
    let portals = store.portals().await?;
    let active = portals.into_iter().filter(|portal| portal.active);
    Ok(active.map(|portal| portal.room).collect())
}
