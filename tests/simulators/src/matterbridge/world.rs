//! The state of Matterbridge: the buffer of the API account, WebSocket clients, and posted messages.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{Faults, Message, Options};

/// The size of the buffer without `Buffer=`, and, whatever that is, after the first `GET /api/messages`.
pub(super) const DEFAULT_BUFFER: usize = 10;
/// The number of messages that wait for a client that does not read; more are dropped.
const QUEUE: usize = 256;
/// A message taken out of the buffer by a reader that disconnects this soon may be lost with it.
const READER_GRACE: Duration = Duration::from_secs(2);

/// A message in the buffer, and whether a WebSocket client received it.
struct BufferedMessage {
    message: Message,
    observed: bool,
}

struct Inner {
    token: Option<String>,
    ring: VecDeque<BufferedMessage>,
    /// The messages that the buffer dropped and no client received.
    overwritten: Vec<Message>,
    /// The messages taken out of the buffer, with the reader and the time: no other copy exists.
    handed_out: Vec<(u64, Instant, Message)>,
    readers: u64,
    /// When each reader disconnected.
    removed: HashMap<u64, Instant>,
    capacity: usize,
    sockets: Vec<(u64, mpsc::Sender<String>)>,
    next_socket: u64,
    posted: Vec<Message>,
    dropped: usize,
    held: Option<Message>,
    last: i128,
}

/// The state behind the API.
pub(super) struct World {
    account: String,
    gateways: Vec<String>,
    inner: Mutex<Inner>,
}

impl World {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            account: options.account.clone(),
            gateways: options.gateways.clone(),
            inner: Mutex::new(Inner {
                token: options.token.clone(),
                ring: VecDeque::new(),
                overwritten: Vec::new(),
                handed_out: Vec::new(),
                readers: 0,
                removed: HashMap::new(),
                capacity: options.buffer.max(1),
                sockets: Vec::new(),
                next_socket: 0,
                posted: Vec::new(),
                dropped: 0,
                held: None,
                last: 0,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn token(&self) -> Option<String> {
        self.inner().token.clone()
    }

    pub(super) fn set_token(&self, token: Option<&str>) {
        self.inner().token = token.map(str::to_owned);
    }

    /// The first object of a connection.
    pub(super) fn hello(&self) -> Message {
        let timestamp = self.inner().moment();
        Message {
            event: "api_connected".to_owned(),
            timestamp,
            ..Message::default()
        }
    }

    /// Matterbridge accepts a message from one of the networks and passes it to the API account.
    pub(super) fn say(&self, mut message: Message, faults: &Faults) -> Message {
        let mut inner = self.inner();
        message.id.clear();
        // The API omits these kinds, or they only go from IRC to IRC.
        if matches!(
            message.event.as_str(),
            "msg_delete" | "user_typing" | "notice_irc"
        ) {
            return message;
        }
        if !faults.swaps() {
            if let Some(earlier) = inner.held.take() {
                inner.take(earlier, faults);
            }
            return inner.take(message, faults);
        }
        if let Some(earlier) = inner.held.take() {
            let taken = inner.take(message, faults);
            inner.take(earlier, faults);
            taken
        } else {
            inner.held = Some(message.clone());
            message
        }
    }

    /// Handles a posted message; returns the message that the server makes of it.
    pub(super) fn post(
        &self,
        mut message: Message,
        faults: &Faults,
        sender: Option<u64>,
    ) -> Message {
        let mut inner = self.inner();
        "api".clone_into(&mut message.channel);
        "api".clone_into(&mut message.protocol);
        message.account.clone_from(&self.account);
        message.id.clear();
        message.timestamp = inner.moment();
        let empty = message.text.is_empty() && message.extra.get("file").is_none();
        if empty || !self.gateways.contains(&message.gateway) || message.event == "msg_delete" {
            inner.dropped += 1;
            return message;
        }
        inner.posted.push(message.clone());
        // Other WebSocket clients of the account receive what one of them sends.
        if sender.is_some() || faults.echoes() {
            inner.broadcast(&message, faults, sender);
        }
        message
    }

    /// Adds a WebSocket client: its number, and the receiver of its messages.
    pub(super) fn listen(&self) -> (u64, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut inner = self.inner();
        inner.next_socket += 1;
        let number = inner.next_socket;
        inner.sockets.push((number, sender));
        (number, receiver)
    }

    pub(super) fn leave(&self, number: u64) {
        self.inner().sockets.retain(|(other, _)| *other != number);
    }

    /// Adds a reader of the buffer; returns its number.
    pub(super) fn read(&self) -> u64 {
        let mut inner = self.inner();
        inner.readers += 1;
        inner.readers
    }

    /// Takes the oldest message out of the buffer.
    pub(super) fn pop(&self, reader: u64) -> Option<Message> {
        let mut inner = self.inner();
        let BufferedMessage { message, .. } = inner.ring.pop_front()?;
        let taken = (reader, Instant::now(), message.clone());
        inner.handed_out.push(taken);
        Some(message)
    }

    /// A reader of the buffer has disconnected.
    pub(super) fn leave_ring(&self, reader: u64) {
        self.inner().removed.insert(reader, Instant::now());
    }

    pub(super) fn set_buffer(&self, size: usize) {
        self.inner().capacity = size.max(1);
    }

    /// Empties the buffer, which has the default size from then on.
    pub(super) fn drain(&self) -> Vec<Message> {
        let mut inner = self.inner();
        inner.capacity = DEFAULT_BUFFER;
        inner.ring.drain(..).map(|kept| kept.message).collect()
    }

    pub(super) fn posted(&self) -> Vec<Message> {
        self.inner().posted.clone()
    }

    pub(super) fn dropped(&self) -> usize {
        self.inner().dropped
    }

    pub(super) fn overwritten(&self) -> Vec<Message> {
        self.inner().overwritten.clone()
    }

    pub(super) fn handed_out(&self) -> Vec<Message> {
        let inner = self.inner();
        let taken = inner.handed_out.iter().filter(|(reader, at, _)| {
            let gone = inner.removed.get(reader);
            gone.is_some_and(|gone| gone.duration_since(*at) < READER_GRACE)
        });
        taken.map(|(.., message)| message.clone()).collect()
    }

    pub(super) fn buffered(&self) -> usize {
        self.inner().ring.len()
    }

    pub(super) fn open_sockets(&self) -> usize {
        let mut inner = self.inner();
        inner.sockets.retain(|(_, socket)| !socket.is_closed());
        inner.sockets.len()
    }
}

impl Inner {
    /// The current time; never the same one twice.
    fn moment(&mut self) -> String {
        let now = jiff::Timestamp::now().as_nanosecond();
        self.last = now.max(self.last + 1);
        jiff::Timestamp::from_nanosecond(self.last)
            .unwrap_or_default()
            .to_string()
    }

    /// Accepts a message in the router. Its time is the current one, whenever the message was written, so times show
    /// the order in which messages are handed out, and no other.
    fn take(&mut self, mut message: Message, faults: &Faults) -> Message {
        if message.timestamp.is_empty() {
            message.timestamp = self.moment();
        }
        self.hand_out(message.clone(), faults);
        message
    }

    fn hand_out(&mut self, message: Message, faults: &Faults) {
        let heard = !faults.skips() && self.broadcast(&message, faults, None);
        while self.ring.len() >= self.capacity {
            let oldest = self.ring.pop_front().filter(|oldest| !oldest.observed);
            self.overwritten.extend(oldest.map(|oldest| oldest.message));
        }
        self.ring.push_back(BufferedMessage {
            message,
            observed: heard,
        });
    }

    /// Sends a message to all WebSocket clients; returns whether any connection took it.
    fn broadcast(&mut self, message: &Message, faults: &Faults, but: Option<u64>) -> bool {
        let garbage = faults
            .garbles()
            .then(|| "{\"text\": \"half a mess".to_owned());
        let mut taken = false;
        for (number, socket) in &self.sockets {
            if Some(*number) == but {
                continue;
            }
            for text in garbage.iter().cloned().chain([message.json()]) {
                // A full queue drops it without a sign, as the real one does.
                taken |= socket.try_send(text).is_ok();
            }
        }
        taken
    }
}
