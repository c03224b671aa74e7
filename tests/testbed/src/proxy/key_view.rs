//! What a homeserver shows of one user's keys: as they are, or as they were when somebody first asked. Whoever holds a
//! device that was added meanwhile, with an identity of its own making, is hidden again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use axum::http::Method;
use serde_json::{Value, json};

use super::{Matcher, Proxy, Rewrite};

const FIELDS: [&str; 3] = ["device_keys", "master_keys", "self_signing_keys"];
/// How long a client may take to ask for keys that it was told to look at.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The keys of one user, as the homeserver shows them. Cheap to clone.
#[derive(Clone)]
pub struct KeyView {
    user: String,
    shown: Arc<Mutex<KeyViewState>>,
}

#[derive(Default)]
struct KeyViewState {
    /// The first answer, by field.
    first: Option<[Value; 3]>,
    old: bool,
    /// How often they were shown since that was last set.
    times: u64,
}

impl KeyView {
    /// Of a user whose keys nobody has asked this proxy for.
    #[must_use]
    pub fn of(user: &str, proxy: &Proxy) -> Self {
        let showcase = Self {
            user: user.to_owned(),
            shown: Arc::default(),
        };
        let queries = Matcher::of(Method::POST).with("/keys/query");
        let own = showcase.clone();
        proxy.tell(Rewrite::always("old keys", queries, move |answer| {
            own.show(answer)
        }));
        showcase
    }

    fn show(&self, answer: &mut Value) -> bool {
        let mut shown = self.lock();
        let user = self.user.as_str();
        let present =
            FIELDS.map(|field| answer.get(field).and_then(|keys| keys.get(user)).cloned());
        let [Some(devices), Some(master), Some(signing)] = present else {
            return false;
        };
        let first = shown
            .first
            .get_or_insert([devices, master, signing])
            .clone();
        shown.times += 1;
        if shown.old {
            for (field, keys) in FIELDS.into_iter().zip(first) {
                if let Some(place) = answer.pointer_mut(&format!("/{field}/{user}")) {
                    *place = keys;
                }
            }
        }
        shown.old
    }

    /// Shows the first keys from now on, or the present ones, to a client that the next sync tells to look.
    pub fn turn(&self, proxy: &Proxy, old: bool) {
        {
            let mut shown = self.lock();
            (shown.old, shown.times) = (old, 0);
        }
        let user = self.user.clone();
        let syncs = Matcher::of(Method::GET).with("/sync");
        proxy.tell(Rewrite::once("look", syncs, move |answer| {
            if let Some(answer) = answer.as_object_mut() {
                answer.insert("device_lists".to_owned(), json!({"changed": [user]}));
            }
            true
        }));
    }

    /// Waits until the client has looked since the last turn.
    ///
    /// # Errors
    /// It does not look.
    pub async fn looked(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.lock().times == 0 {
            ensure!(began.elapsed() < TIMEOUT, "nobody asks for the keys");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, KeyViewState> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
