//! A Matterbridge simulator, as a client of its HTTP API sees one: the buffer, the stream, the WebSocket, posting, and
//! their quirks. Instead of the networks behind its gateways, tests call [`MatterbridgeSim::say`].

#![expect(
    clippy::must_use_candidate,
    reason = "a test may ignore what a call returns"
)]

mod faults;
pub mod channel;
mod message;
mod rest;
mod socket;
mod stream;
mod world;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

pub use crate::{call_faults::Fault, connections::Cut};
pub use channel::{MatterbridgeChannel, SIMULATOR};
pub use faults::Faults;
pub use message::Message;

use self::world::World;
use crate::server::{Calls, Server};

/// The options of a simulator. The defaults are Matterbridge's own.
#[derive(Clone, Debug)]
pub struct Options {
    /// `Token=` of the API account.
    pub token: Option<String>,
    /// The name of the API account.
    pub account: String,
    /// `Buffer=`: how many messages the buffer holds.
    pub buffer: usize,
    /// The gateways that exist.
    pub gateways: Vec<String>,
    /// How often the stream reads the buffer.
    pub pace: Duration,
    /// The interval of WebSocket pings.
    pub ping: Duration,
    /// The port; 0 takes a free one.
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            account: "api.footbridge".to_owned(),
            buffer: world::DEFAULT_BUFFER,
            gateways: vec!["gateway1".to_owned()],
            pace: Duration::from_millis(100),
            ping: Duration::from_secs(54),
            port: 0,
        }
    }
}

/// The state that all parts of the simulator share.
struct Shared {
    options: Options,
    world: World,
    faults: Faults,
    calls: Calls,
    stop: CancellationToken,
}

struct SimInner {
    shared: Arc<Shared>,
    server: Server,
}

/// A running simulator. Clones share it; it stops with the last one.
#[derive(Clone)]
pub struct MatterbridgeSim(Arc<SimInner>);

impl MatterbridgeSim {
    /// Starts listening on the loopback interface.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let (port, stop) = (options.port, CancellationToken::new());
        let shared = Arc::new(Shared {
            world: World::new(&options),
            faults: Faults::default(),
            calls: Calls::default(),
            stop: stop.clone(),
            options,
        });
        let server = Server::start(port, rest::router(Arc::clone(&shared)), stop).await?;
        Ok(Self(Arc::new(SimInner { shared, server })))
    }

    /// Begins an outage of the network: the port closes and every connection drops. Matterbridge keeps running, users write,
    /// and its buffer fills.
    pub async fn stop_listening(&self) {
        self.0.server.stop_listening().await;
    }

    /// Ends an outage, on the same port.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.0.server.restart().await
    }

    /// The base URL, which `/api/…` follows.
    pub fn url(&self) -> String {
        self.0.server.url()
    }

    /// The faults that a test can inject.
    pub fn faults(&self) -> &Faults {
        &self.0.shared.faults
    }

    /// Cuts every open connection; returns how many there were.
    pub fn cut(&self, how: Cut) -> usize {
        self.0.server.cut(how)
    }

    /// Sets another token of the API account; open connections stay.
    pub fn set_token(&self, token: Option<&str>) {
        self.0.shared.world.set_token(token);
    }

    /// Sets `Buffer=` anew.
    pub fn set_buffer(&self, size: usize) {
        self.0.shared.world.set_buffer(size);
    }

    /// A user in one of the networks sends a message. Returns it as the API account gets it, without a time if it is
    /// not sent: because the API omits such events, or because another message is sent first.
    pub fn say(&self, message: Message) -> Message {
        self.0.shared.world.say(message, &self.0.shared.faults)
    }

    /// The posted messages that were accepted by an existing gateway, in order.
    pub fn posted(&self) -> Vec<Message> {
        self.0.shared.world.posted()
    }

    /// How many posts got a 200 and were dropped.
    pub fn dropped(&self) -> usize {
        self.0.shared.world.dropped()
    }

    /// The messages that the buffer dropped before any client received them: the API's own loss.
    pub fn overwritten(&self) -> Vec<Message> {
        self.0.shared.world.overwritten()
    }

    /// The messages that a reader took out of the buffer less than two seconds before it disconnected: it had the only
    /// copy.
    pub fn handed_out(&self) -> Vec<Message> {
        self.0.shared.world.handed_out()
    }

    /// How many messages are in the buffer.
    pub fn buffered(&self) -> usize {
        self.0.shared.world.buffered()
    }

    /// The number of open WebSocket connections.
    pub fn open_sockets(&self) -> usize {
        self.0.shared.world.open_sockets()
    }

    /// The number of calls per route since the start, such as `POST message`.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.0.shared.calls.all()
    }
}
