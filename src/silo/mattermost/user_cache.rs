//! What people are called, and what they look like. Posts carry ids only, so that is asked for once an hour.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{api::User, arrival::UNKNOWN_AUTHOR, client::Client, errors::RequestError};

/// How long a name is good for.
const TTL: Duration = Duration::from_hours(1);
/// How many names are kept.
const CAPACITY: usize = 5_000;
/// How many are asked for at once.
const BATCH: usize = 100;

/// The people that are known.
#[derive(Default)]
pub struct UserCache(Mutex<HashMap<String, CachedUser>>);

/// What is known of somebody, and since when.
struct CachedUser {
    at: Instant,
    name: String,
    is_bot: bool,
    /// Their picture, if they have chosen one.
    picture: Option<String>,
}

impl UserCache {
    /// Makes sure that these users have names, as far as Mattermost tells. A name that it does not tell now costs no message.
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
                Err(RequestError::SignedOut) => return Err(RequestError::SignedOut),
                Err(fault) => {
                    tracing::debug!(error = %fault, "Mattermost does not tell names now");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Somebody's name; `beside` is what stood beside the post.
    pub fn name(&self, id: &str, beside: &str) -> String {
        let known = self.known();
        let beside = beside.trim().trim_start_matches('@');
        match known.get(id) {
            Some(known) => known.name.clone(),
            None if beside.is_empty() => UNKNOWN_AUTHOR.to_owned(),
            None => beside.to_owned(),
        }
    }

    /// Whether this is known to be a bot's account.
    pub fn is_bot(&self, id: &str) -> bool {
        self.known().get(id).is_some_and(|known| known.is_bot)
    }

    /// Somebody's picture, as [`Client::portrait`] finds it.
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
