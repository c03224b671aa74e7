//! Bayeux sessions: who listens to what, and what was delivered to whom.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::gitter::{faults::Faults, shared::lock};

/// One client.
pub(super) struct Session {
    pub(super) token: String,
    pub(super) user: Option<String>,
    pub(super) subscriptions: BTreeSet<String>,
    /// Deliveries so far, `ext.c` of the last one.
    delivered: u64,
    /// What waits for the next poll.
    queue: Vec<Value>,
    waiter: Arc<Notify>,
    socket: Option<mpsc::UnboundedSender<Value>>,
    age: u64,
    heard: Instant,
}

/// All sessions.
#[derive(Default)]
pub(in crate::gitter) struct Sessions(Mutex<HashMap<String, Session>>);

impl Sessions {
    pub(super) fn open(&self, client: &str, token: &str, user: Option<String>, age: u64) {
        let session = Session {
            token: token.to_owned(),
            user,
            subscriptions: BTreeSet::new(),
            delivered: 0,
            queue: Vec::new(),
            waiter: Arc::default(),
            socket: None,
            age,
            heard: Instant::now(),
        };
        lock(&self.0).insert(client.to_owned(), session);
    }

    /// Works on a live session; none when it is unknown, expired or forgotten.
    pub(super) fn with<T>(
        &self,
        client: &str,
        age: u64,
        patience: Duration,
        act: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        let mut sessions = lock(&self.0);
        let session = sessions.get_mut(client)?;
        if session.age != age || session.heard.elapsed() > patience {
            sessions.remove(client);
            return None;
        }
        session.heard = Instant::now();
        Some(act(session))
    }

    pub(super) fn close(&self, client: &str) {
        if let Some(session) = lock(&self.0).remove(client) {
            session.waiter.notify_waiters();
        }
    }

    /// Forgets everybody, as a restarted server does.
    pub(in crate::gitter) fn clear(&self) {
        lock(&self.0).clear();
    }

    /// How many there are.
    pub(in crate::gitter) fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// Sends this client's events over a socket from now on, those that wait first.
    pub(super) fn attach(&self, client: &str, socket: &mpsc::UnboundedSender<Value>) {
        if let Some(session) = lock(&self.0).get_mut(client) {
            for event in session.queue.drain(..) {
                // The socket's task is the caller, so it is there to receive.
                drop(socket.send(event));
            }
            session.socket = Some(socket.clone());
        }
    }

    pub(in crate::gitter) fn publish(&self, faults: &Faults, channel: &str, body: &Value) {
        if faults.muted() {
            return;
        }
        let age = faults.age();
        for session in lock(&self.0).values_mut() {
            if session.age != age || !session.subscriptions.contains(channel) {
                continue;
            }
            session.delivered += 1;
            if faults.loses_delivery() {
                continue;
            }
            let event = json!({
                "channel": channel,
                "data": body,
                "id": format!("{:x}", session.delivered),
                "ext": {"c": session.delivered},
            });
            session.push(event);
        }
    }

    /// The server takes someone who left a room off its four channels and says nothing about it.
    pub(in crate::gitter) fn silence(&self, room: &str, user: &str) {
        let channels = ["", "/chatMessages", "/users", "/events"]
            .map(|tail| format!("/api/v1/rooms/{room}{tail}"));
        for session in lock(&self.0).values_mut() {
            if session.user.as_deref() == Some(user) {
                for channel in &channels {
                    session.subscriptions.remove(channel);
                }
            }
        }
    }

    fn take(&self, client: &str) -> Option<Result<Vec<Value>, Arc<Notify>>> {
        let mut sessions = lock(&self.0);
        let session = sessions.get_mut(client)?;
        if session.queue.is_empty() {
            return Some(Err(Arc::clone(&session.waiter)));
        }
        Some(Ok(std::mem::take(&mut session.queue)))
    }

    /// The events of a polling client: those that wait, or the first ones to come within this time.
    pub(super) async fn await_events(&self, client: &str, wait: Duration) -> Vec<Value> {
        if let Some(session) = lock(&self.0).get_mut(client) {
            session.socket = None;
        }
        let end = tokio::time::Instant::now() + wait;
        loop {
            let waiter = match self.take(client) {
                None => return Vec::new(),
                Some(Ok(events)) => return events,
                Some(Err(waiter)) => waiter,
            };
            let ringing = waiter.notified();
            if let Some(Ok(events)) = self.take(client) {
                return events;
            }
            if tokio::time::timeout_at(end, ringing).await.is_err() {
                return Vec::new();
            }
        }
    }
}

impl Session {
    fn push(&mut self, event: Value) {
        let event = match &self.socket {
            None => event,
            Some(socket) => match socket.send(event) {
                Ok(()) => return,
                Err(mpsc::error::SendError(event)) => {
                    self.socket = None;
                    event
                }
            },
        };
        self.queue.push(event);
        self.waiter.notify_one();
    }
}
