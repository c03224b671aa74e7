//! Which keys of one user the homeserver reports: the present ones, or those of the first query. The old ones hide a
//! device that was added since, with an identity of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use axum::http::Method;
use serde_json::{Value, json};

use super::{Matcher, Proxy, Rewrite};

const FIELDS: [&str; 3] = ["device_keys", "master_keys", "self_signing_keys"];
/// How long a client may take to query keys after a sync said that they changed.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The keys of one user, as the homeserver reports them. Cheap to clone.
#[derive(Clone)]
pub struct KeyView {
    user: String,
    shown: Arc<Mutex<KeyViewState>>,
}

#[derive(Default)]
struct KeyViewState {
    /// The keys of the first response, by field.
    first: Option<[Value; 3]>,
    old: bool,
    /// How often the keys were reported since `old` was last set.
    times: u64,
}

impl KeyView {
    /// The keys of a user whose keys no client has queried through this proxy yet.
    #[must_use]
    pub fn of(user: &str, proxy: &Proxy) -> Self {
        let view = Self {
            user: user.to_owned(),
            shown: Arc::default(),
        };
        let queries = Matcher::of(Method::POST).with("/keys/query");
        let own = view.clone();
        proxy.set_rewrite(Rewrite::always("old keys", queries, move |answer| {
            own.show(answer)
        }));
        view
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

    /// Reports the first keys (`old`) or the present ones from now on; the next sync tells the client that the user's
    /// keys changed.
    pub fn turn(&self, proxy: &Proxy, old: bool) {
        {
            let mut shown = self.lock();
            (shown.old, shown.times) = (old, 0);
        }
        let user = self.user.clone();
        let syncs = Matcher::of(Method::GET).with("/sync");
        proxy.set_rewrite(Rewrite::once("look", syncs, move |answer| {
            if let Some(answer) = answer.as_object_mut() {
                answer.insert("device_lists".to_owned(), json!({"changed": [user]}));
            }
            true
        }));
    }

    /// Waits until the client has queried the keys since the last [`Self::turn`].
    ///
    /// # Errors
    /// The client does not query them in time.
    pub async fn looked(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.lock().times == 0 {
            ensure!(began.elapsed() < TIMEOUT, "no client queries the keys");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, KeyViewState> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
