//! What an arrival contains, until the inbox serialises it for the journal.

use footbridge_store::{Millis, Payload, SkipRule};

use crate::message::{Command, Message};

/// An event of a place, as a listener brings it.
pub type Arrival = footbridge_store::Arrival<ArrivalContent>;
/// What one step of a listener brings.
pub type Batch = footbridge_store::Batch<ArrivalContent>;

/// The content of an arrival.
#[derive(Clone, PartialEq, Eq)]
pub enum ArrivalContent {
    /// A message, or a change of one.
    Message(Box<Message>),
    /// A command to the bridge.
    Command(Box<Command>),
    /// Not decryptable yet: the raw event. Its lanes wait for it until `key_wait_until`, then others may pass.
    Undecryptable {
        /// The session whose room key is missing.
        session: String,
        /// The event as received.
        raw: Vec<u8>,
        /// Until when its lanes wait for it.
        key_wait_until: Millis,
    },
    /// Not relayed, by this rule. Only its id is kept.
    Skipped(SkipRule),
}

impl ArrivalContent {
    /// The message of a person, if a person wrote it.
    pub(super) fn human_message(&self) -> Option<&Message> {
        match self {
            Self::Message(message) if !message.sender.is_bridge() => Some(message),
            _ => None,
        }
    }

    /// The stored form. What cannot be serialised is skipped, so that it does not stop what comes after it.
    pub(super) fn into_payload(self) -> Payload {
        let serialised = match self {
            Self::Message(message) => message.to_bytes().map(Payload::Ready),
            Self::Command(command) => command.to_bytes().map(Payload::Command),
            Self::Undecryptable {
                session,
                raw,
                key_wait_until,
            } => {
                return Payload::Undecryptable {
                    session,
                    raw,
                    key_wait_until,
                };
            }
            Self::Skipped(rule) => return Payload::Skipped(rule),
        };
        serialised.unwrap_or_else(|error| {
            tracing::error!(error = %error, "An arrival could not be serialised: it is skipped. Please report this bug");
            Payload::Skipped(SkipRule::Unwritable)
        })
    }
}

impl From<Message> for ArrivalContent {
    fn from(message: Message) -> Self {
        Self::Message(Box::new(message))
    }
}

impl From<Command> for ArrivalContent {
    fn from(command: Command) -> Self {
        Self::Command(Box::new(command))
    }
}

impl std::fmt::Debug for ArrivalContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Message(_) => "Message(..)",
            Self::Command(_) => "Command(..)",
            Self::Undecryptable { .. } => "Undecryptable(..)",
            Self::Skipped(_) => "Skipped(..)",
        })
    }
}
