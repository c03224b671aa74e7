//! What people are called. Posts carry ids only, so names are asked for once an hour.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{api::Post, arrival::NOBODY, client::Client, fault::Fault};

/// How long a name is good for.
const FRESH: Duration = Duration::from_hours(1);
/// How many names are kept.
const MOST: usize = 5_000;
/// How many are asked for at once.
const AT_ONCE: usize = 100;

/// The names that are known.
#[derive(Default)]
pub struct People(Mutex<HashMap<String, (Instant, String)>>);

impl People {
    /// Makes sure that the authors of these posts have names, as far as Mattermost tells. A name that it does not tell
    /// now costs no message.
    pub async fn learn(&self, client: &Client, posts: &[Post]) -> Result<(), Fault> {
        let unknown: HashSet<String> = {
            let known = self.known();
            let authors = posts.iter().map(|post| &post.user_id);
            let stale = authors.filter(|id| {
                !id.is_empty() && known.get(*id).is_none_or(|(at, _)| at.elapsed() > FRESH)
            });
            stale.cloned().collect()
        };
        let unknown: Vec<String> = unknown.into_iter().collect();
        for ids in unknown.chunks(AT_ONCE) {
            match client.users(ids).await {
                Ok(users) => {
                    for user in users {
                        self.is_called(&user.id, &user.name());
                    }
                }
                Err(Fault::SignedOut) => return Err(Fault::SignedOut),
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
            Some((_, name)) => name.clone(),
            None if beside.is_empty() => NOBODY.to_owned(),
            None => beside.to_owned(),
        }
    }

    fn is_called(&self, id: &str, name: &str) {
        if id.is_empty() || name.is_empty() {
            return;
        }
        let mut known = self.known();
        if known.len() >= MOST {
            known.retain(|_, (at, _)| at.elapsed() <= FRESH / 2);
        }
        if known.len() < MOST {
            known.insert(id.to_owned(), (Instant::now(), name.to_owned()));
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
