//! Names and avatars of users. Posts contain ids only, so the names are requested once an hour.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{api::User, arrival::UNKNOWN_AUTHOR, client::Client, errors::RequestError};

/// How long a name is used.
const TTL: Duration = Duration::from_hours(1);
/// The most names.
const CAPACITY: usize = 5_000;
/// The most names of one request.
const BATCH: usize = 100;

/// The known users.
#[derive(Default)]
pub struct UserCache(Mutex<HashMap<String, CachedUser>>);

/// What is known of a user, and since when.
struct CachedUser {
    at: Instant,
    name: String,
    is_bot: bool,
    /// Their avatar, if they have chosen one.
    picture: Option<String>,
}

impl UserCache {
    /// Requests the missing and outdated names of these users. A failure of the server costs no message.
    pub async fn learn(&self, client: &Client, users: HashSet<String>) -> Result<(), RequestError> {
        let unknown: Vec<String> = {
            let known = self.known();
            let stale = |id: &String| {
                !id.is_empty() && known.get(id).is_none_or(|known| known.at.elapsed() > TTL)
            };
            users.into_iter().filter(stale).collect()
        };
        for ids in unknown.chunks(BATCH) {
            match client.users(ids).await {
                Ok(users) => {
                    for user in users {
                        self.keep(&user);
                    }
                }
                Err(error @ RequestError::SignedOut(_)) => return Err(error),
                Err(error) => {
                    tracing::debug!(error = %error, "Failed to read user names from Mattermost");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The name of a user; `event_sender` is the sender name of the event.
    pub fn name(&self, id: &str, event_sender: &str) -> String {
        let known = self.known();
        let event_sender = event_sender.trim().trim_start_matches('@');
        match known.get(id) {
            Some(known) => known.name.clone(),
            None if event_sender.is_empty() => UNKNOWN_AUTHOR.to_owned(),
            None => event_sender.to_owned(),
        }
    }

    /// Whether this is known to be a bot account.
    pub fn is_bot(&self, id: &str) -> bool {
        self.known().get(id).is_some_and(|known| known.is_bot)
    }

    /// The avatar of a user, as [`Client::fetch_avatar`] finds it.
    pub fn picture(&self, id: &str) -> Option<String> {
        self.known().get(id)?.picture.clone()
    }

    fn keep(&self, user: &User) {
        let name = user.name();
        if user.id.is_empty() || name.is_empty() {
            return;
        }
        let chosen = user.last_picture_update > 0;
        let new = CachedUser {
            at: Instant::now(),
            name,
            is_bot: user.is_bot,
            picture: chosen.then(|| format!("{}/{}", user.id, user.last_picture_update)),
        };
        let mut known = self.known();
        if known.len() >= CAPACITY {
            known.retain(|_, known| known.at.elapsed() <= TTL / 2);
        }
        if known.len() < CAPACITY {
            known.insert(user.id.clone(), new);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, CachedUser>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
