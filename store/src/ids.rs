//! The ids and places of the store's interface. They are types, so that two strings never stand side by side in a signature.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! row_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

row_id!(
    /// One portal: a Matrix room linked to a channel.
    PortalId
);
row_id!(
    /// One event in the journal.
    EntryId
);
row_id!(
    /// One delivery in the outbox.
    DeliveryId
);

row_id!(
    /// One Matrix account of the bridge or of a person.
    AccountId
);

/// A point in time, in milliseconds since the Unix epoch. The store never reads a clock; the caller gives the time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Millis(pub i64);

impl Millis {
    /// The moment `wait` after this one.
    #[must_use]
    pub fn plus(self, wait: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long it is from `earlier` to this moment; zero if it lies before.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(
            u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0),
        )
    }
}

/// Where messages live: one Matrix room, or one channel of one silo.
///
/// Written `network:address`, for example `matrix:!abc` or `gitter:5f1e…`. The network of a Matrix
/// room is always `matrix`; that of a channel is the silo's name in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place(String);

impl Place {
    /// The network name of every Matrix room.
    pub const MATRIX: &'static str = "matrix";

    /// The place with this address in this network. `network` must not contain a colon.
    #[must_use]
    pub fn new(network: &str, address: &str) -> Self {
        debug_assert!(!network.contains(':'), "a network name has no colon");
        Self(format!("{network}:{address}"))
    }

    /// A Matrix room.
    #[must_use]
    pub fn room(room_id: &str) -> Self {
        Self::new(Self::MATRIX, room_id)
    }

    /// Reads back what [`Place::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.contains(':').then(|| Self(text.to_owned()))
    }

    /// `matrix`, or the silo's name.
    #[must_use]
    pub fn network(&self) -> &str {
        self.0.split_once(':').map_or("", |(network, _)| network)
    }

    /// The room id, or the channel's id in its silo.
    #[must_use]
    pub fn address(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, address)| address)
    }

    /// The stored form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a message, or of something that happened to one, unique within its [`Place`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RemoteId(pub String);

/// Stands before the part of an id that must not be readable.
const PRIVATE_SUFFIX: char = '\u{1}';

impl RemoteId {
    /// The id as the network writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of something that has none of its own: `of` names what it happened to, and `words` distinguish it from other events
    /// of that. The store keeps a keyed hash of the words. For events that are no messages.
    #[must_use]
    pub fn with_private_suffix(of: &str, words: &str) -> Self {
        Self(format!("{of}{PRIVATE_SUFFIX}{words}"))
    }

    pub(crate) fn split_private_suffix(&self) -> Option<(&str, &str)> {
        self.0.split_once(PRIVATE_SUFFIX)
    }
}

impl fmt::Display for RemoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for RemoteId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

/// A message in a place, by its id there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageRef<'a> {
    /// Where the message is.
    pub place: &'a Place,
    /// Its id there.
    pub id: &'a RemoteId,
}

/// One end of a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    /// The Matrix room.
    Matrix,
    /// The silo's channel.
    Silo,
}

impl Side {
    /// The stored form, also used in metrics and `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Matrix => "matrix",
            Self::Silo => "silo",
        }
    }

    /// The other end.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Matrix => Self::Silo,
            Self::Silo => Self::Matrix,
        }
    }
}

/// A portal in one direction: everything that is to be delivered `toward` one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// The portal.
    pub portal: PortalId,
    /// Where its deliveries go.
    pub toward: Side,
}
