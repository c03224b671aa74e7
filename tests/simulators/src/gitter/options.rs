//! The options of a simulator, a user and a room, and what a test gets back.

use std::{fmt, time::Duration};

use super::{faults::Echo, view::Compatibility};

/// The options of a simulator. The defaults are the real service's values where they are known.
#[derive(Clone, Debug)]
pub struct Options {
    /// Calls per window, user and OAuth client.
    pub rate_limit: u64,
    /// Length of the fixed window.
    pub rate_window: Duration,
    /// Period of the HTTP stream's keep-alives; unknown in reality.
    pub keepalive: Duration,
    /// How many server processes create ids.
    pub processes: usize,
    /// How long a message may be edited.
    pub edit_window: Duration,
    /// The order of echo and response.
    pub echo: Echo,
    /// Idle timeout of `/bayeux`.
    pub connect_timeout: Duration,
    /// Idle timeout of `/faye`.
    pub legacy_connect_timeout: Duration,
    /// Period of websocket pings.
    pub socket_ping: Duration,
    /// Whether opening a stream counts against the rate limit; not known.
    pub streams_cost: bool,
    /// Whether thread replies are on the HTTP stream; not known.
    pub threads_on_stream: bool,
    /// Which of the service's dialects the simulator uses.
    pub compatibility: Compatibility,
    /// The seed of ids, tokens and random faults.
    pub seed: u64,
    /// The port of the API; 0 takes a free one.
    pub api_port: u16,
    /// See `api_port`.
    pub stream_port: u16,
    /// See `api_port`.
    pub realtime_port: u16,
    /// See `api_port`.
    pub control_port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate_limit: 100,
            rate_window: Duration::from_mins(1),
            keepalive: Duration::from_secs(15),
            processes: 3,
            edit_window: Duration::from_mins(10),
            echo: Echo::With,
            connect_timeout: Duration::from_mins(2),
            legacy_connect_timeout: Duration::from_mins(5),
            socket_ping: Duration::from_secs(40),
            streams_cost: false,
            threads_on_stream: true,
            compatibility: Compatibility::default(),
            seed: 1,
            api_port: 0,
            stream_port: 0,
            realtime_port: 0,
            control_port: 0,
        }
    }
}

/// A user, as a test sees them.
#[derive(Clone)]
pub struct User {
    /// 24 hexadecimal digits.
    pub id: String,
    /// The name in mentions.
    pub username: String,
    /// The display name.
    pub display_name: String,
    /// A personal token: 40 hexadecimal digits.
    pub token: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A room, as a test sees it.
#[derive(Clone, Debug)]
pub struct Room {
    /// 24 hexadecimal digits.
    pub id: String,
    /// Its name, such as `org/repo`.
    pub uri: String,
}

/// The options of a new room.
#[derive(Clone, Debug)]
pub struct RoomOptions {
    /// Whether anyone may read and write.
    pub public: bool,
    /// User ids.
    pub members: Vec<String>,
    /// User ids; admins are members too.
    pub admins: Vec<String>,
    /// The topic line.
    pub topic: String,
}

impl Default for RoomOptions {
    fn default() -> Self {
        Self {
            public: true,
            members: Vec::new(),
            admins: Vec::new(),
            topic: String::new(),
        }
    }
}
