//! Pure conversion: Matrix events ⇄ neutral messages. Reading assumes nothing about an event's shape; writing never
//! copies markup.

mod capabilities;
pub mod caption;
pub mod files;
mod json;
mod profile;
mod read;
mod command_request;
pub mod bundles;
mod summary;
mod write;

use footbridge_core::message::Message;
use footbridge_store::{Millis, RemoteId};
use serde_json::Value;

pub use capabilities::CAPABILITIES;
pub use command_request::CommandRequest;
pub use footbridge_core::text::html_from_body;
pub use profile::{put_avatar, renamed};
pub use read::{is_state, message_from_event};
pub use write::{event_content, relate};

/// An event of a room, decrypted.
#[derive(Clone)]
pub struct Incoming {
    /// `$…`
    pub event_id: RemoteId,
    /// The Matrix user id.
    pub sender: String,
    /// The display name in the room, unchanged.
    pub sender_name: String,
    /// `origin_server_ts`
    pub sent_at: Millis,
    /// The type; of the decrypted event where it came encrypted.
    pub event_type: String,
    /// The content; of the decrypted event where it came encrypted.
    pub content: Value,
    /// The event that a redaction redacts, wherever the room version names it.
    pub redacts: Option<RemoteId>,
}

// The event contains message text.
impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("event_id", &self.event_id)
            .finish_non_exhaustive()
    }
}

/// The result of converting an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Converted {
    /// The event is relayed as this message.
    Message(Message),
    /// The event is not relayed, by this rule.
    Skip(&'static str),
}

/// What a person says, for tests.
#[cfg(test)]
fn said_by(
    sender: &footbridge_core::message::Sender,
    body: &footbridge_core::text::Body,
    style: footbridge_core::message::Style,
) -> footbridge_core::outlet::Content {
    use footbridge_core::render::{Speech, SpeechKind};
    CAPABILITIES.renderer.whole(&Speech {
        sender,
        attribution: CAPABILITIES.attribution,
        kind: SpeechKind::Said(style),
        body,
        late: false,
        reply_mark: "",
        edit_mark: "",
    })
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;

#[cfg(test)]
mod plans_tests;
