//! Bayeux sessions: their subscriptions and their deliveries.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::gitter::{faults::Faults, shared::lock};

/// The session of one client.
pub(super) struct Session {
    pub(super) token: String,
    pub(super) user: Option<String>,
    pub(super) subscriptions: BTreeSet<String>,
    /// The number of deliveries so far: `ext.c` of the last one.
    delivered: u64,
    /// The events that wait for the next poll.
    queue: Vec<Value>,
    waiter: Arc<Notify>,
    socket: Option<mpsc::UnboundedSender<Value>>,
    age: u64,
    observed: Instant,
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
            observed: Instant::now(),
        };
        lock(&self.0).insert(client.to_owned(), session);
    }

    /// Calls `act` with a live session; `None` if it is unknown, expired or dropped.
    pub(super) fn with<T>(
        &self,
        client: &str,
        age: u64,
        patience: Duration,
        act: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        let mut sessions = lock(&self.0);
        let session = sessions.get_mut(client)?;
        if session.age != age || session.observed.elapsed() > patience {
            sessions.remove(client);
            return None;
        }
        session.observed = Instant::now();
        Some(act(session))
    }

    pub(super) fn close(&self, client: &str) {
        if let Some(session) = lock(&self.0).remove(client) {
            session.waiter.notify_waiters();
        }
    }

    /// Drops all sessions, as a restarted server does.
    pub(in crate::gitter) fn clear(&self) {
        lock(&self.0).clear();
    }

    /// The number of sessions.
    pub(in crate::gitter) fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// Sends this client's events over a websocket from now on, starting with the queued ones.
    pub(super) fn attach(&self, client: &str, socket: &mpsc::UnboundedSender<Value>) {
        if let Some(session) = lock(&self.0).get_mut(client) {
            for event in session.queue.drain(..) {
                // The socket's task is the caller, so the receiver exists.
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

    /// Removes a user who left a room from its four channels; as in the real service, the client gets no message about
    /// it.
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

    /// The events for a polling client: the queued ones, or the first ones that arrive within `wait`.
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
