//! Sends without a response (D09, D10): the homeserver creates one event however often a send is retried, but only as
//! long as it remembers the transaction id, and it may treat a plaintext send and an encrypted one as two. Where that
//! is uncertain, the event is looked up in the room before the send is repeated.

use std::{sync::Arc, time::Duration};

use footbridge_core::{
    clock::Clock,
    outlet::{Done, Outcome, SendError, Step},
};
use footbridge_store::{AccountId, Copy, Flag, Millis, OwnAccount, Place, RemoteId, Store};
use matrix_sdk::{
    Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    room::MessagesOptions,
    ruma::{DeviceId, UserId, uint},
};
use serde_json::Value;
use tracing::info;

use super::{
    account_client::AccountClient,
    convert::bundles,
    delivery_mark,
    event_edits::rewritten,
    event_fields::EventFields,
    own_accounts::OwnAccounts,
    own_events::OwnEvents,
    request_error::{RequestError, retry},
    unjoined_rooms::UnjoinedRooms,
};

/// How much the homeserver's clock may differ from the local one.
const CLOCK_SKEW: Duration = Duration::from_hours(1);
/// A page of at least so many events that all claim to be older than the step ends the search.
const OLD_PAGE: usize = 100;
/// The most pages of history that are read.
const MAX_PAGES: usize = 40;

/// An event that was sent for a step.
struct SentEvent {
    remote: RemoteId,
    sent_at: Millis,
    kind: SentKind,
}

/// What an event that was sent for a step is: a step and its fallback have the same transaction id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SentKind {
    /// A message with text.
    Text,
    /// A message with a file.
    File,
    /// An edit of another event.
    Edit,
    /// A former device sent it, and nothing more is known.
    Unknown,
}

impl SentKind {
    fn of(content: &Value) -> Self {
        let field = |pointer| content.pointer(pointer).and_then(Value::as_str);
        match (field("/m.relates_to/rel_type"), field("/msgtype")) {
            (Some("m.replace"), _) => Self::Edit,
            (_, Some("m.file" | "m.image" | "m.video" | "m.audio")) => Self::File,
            _ => Self::Text,
        }
    }
}

/// How an event of the room compares with the send.
enum EventMatch {
    /// It is the event that was sent.
    Found(SentEvent),
    /// It is another event, which by its own claim is older than the step or not.
    Another { is_old: bool },
    /// It is an event of this account that cannot be decrypted: it may be the one.
    Unreadable,
    /// It is the account's own, and was sent before the step: so were all older ones of the account.
    TooOld,
}

/// What is looked for: who may have sent it, with which device, and when at the earliest.
struct SoughtSend<'a> {
    sender: &'a str,
    device: Option<&'a str>,
    /// The transaction id.
    key: &'a str,
    since: Millis,
    /// Earlier events of the sender came from another device.
    device_since: Millis,
}

impl SoughtSend<'_> {
    /// Whether an event of the sender came, by its own claim, from the device.
    fn may_be_device_of(&self, envelope: &EventFields) -> bool {
        let device = envelope.content.get("device_id").and_then(Value::as_str);
        device.is_none() || device == self.device
    }
}

/// Looks for sends of this device whose outcome is unknown.
#[derive(Debug)]
pub(super) struct UnansweredSends {
    pub account: AccountClient,
    pub store: Store,
    pub clock: Clock,
    pub unjoined_rooms: Arc<UnjoinedRooms>,
    pub own_events: Arc<OwnEvents>,
    pub own_accounts: Arc<OwnAccounts>,
    /// When this device was saved in the store: messages sent before that came from another device.
    pub device_since: Millis,
    /// When a send of unknown outcome is no longer repeated before the bridge has looked for it.
    pub unknown_after: Duration,
}

impl UnansweredSends {
    /// See `Outlet::find_by_key`.
    pub(super) async fn find(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        if !self.may_be_forgotten(to, since).await? {
            return Ok(None);
        }
        self.find_always(to, key, step, since).await
    }

    /// See `Outlet::find_by_key_always`.
    pub(super) async fn find_always(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        // A repeated redaction has no further effect.
        if matches!(step, Step::Delete { .. } | Step::Unreact { .. }) {
            return Ok(None);
        }
        let found = if let Some(found) = self.former(to, key).await? {
            Some(found)
        } else {
            let room = self.unjoined_rooms.known_room(to).await?;
            let client = self.account.client();
            let sought = SoughtSend {
                sender: self.account.user().as_str(),
                device: client.device_id().map(DeviceId::as_str),
                key,
                since,
                device_since: self.device_since,
            };
            self.search_back(&room, to, &sought).await?
        };
        let what = if found.is_some() {
            "it had been sent; adopted"
        } else {
            "it had not been sent; sending it again"
        };
        info!(
            matrix.room = to.address(),
            "A send was never answered: {what}"
        );
        if let (Some(sent), Step::Bundle { parts, thread }) = (&found, step) {
            let event = bundles::event_of(parts, thread.as_ref(), None);
            let digest_input = event.as_ref().and_then(bundles::to_verify);
            self.own_events
                .save_digest(to, &sent.remote, digest_input)
                .await?;
        }
        Ok(found.map(|sent| done_by(&sent, step)))
    }

    /// See `Outlet::find_sent_by`.
    pub(super) async fn find_sent_by(
        &self,
        account: AccountId,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        if matches!(step, Step::Delete { .. } | Step::Unreact { .. }) {
            return Ok(None);
        }
        let other = self.own_accounts.get(account);
        // What another homeserver has accepted may still be on its way.
        let is_near = |other: &OwnAccount| {
            let user = <&UserId>::try_from(other.user_id.as_str());
            user.is_ok_and(|user| user.server_name() == self.account.user().server_name())
        };
        let Some(other) = other.filter(is_near) else {
            return Err(SendError::Refused {
                reason:
                    "the account that was to send it is gone, and nobody can tell whether it did"
                        .into(),
            });
        };
        let room = self.unjoined_rooms.known_room(to).await?;
        let sought = SoughtSend {
            sender: &other.user_id,
            device: Some(&other.device_id),
            key,
            since,
            device_since: Millis(0),
        };
        let found = self.search_back(&room, to, &sought).await?;
        Ok(found.map(|sent| done_by(&sent, step)))
    }

    /// Whether the homeserver may have forgotten a send since then, or may not recognise it.
    async fn may_be_forgotten(&self, to: &Place, since: Millis) -> Result<bool, SendError> {
        let now = self.clock.now();
        // A time in the future was recorded before the clock was put back: its age is unknown.
        if since > now || now.since(since) >= self.unknown_after {
            return Ok(true);
        }
        // Transaction ids are known per device.
        if since <= self.device_since {
            return Ok(true);
        }
        let encrypted = self.encrypted_at(to).await?;
        Ok(encrypted.is_some_and(|at| at >= since))
    }

    /// When the room became encrypted, as far as the bridge knows.
    async fn encrypted_at(&self, to: &Place) -> Result<Option<Millis>, SendError> {
        let encrypted = self.store.raised_at(to, Flag::EverEncrypted).await;
        encrypted.map_err(|error| retry(None, Outcome::NotDone, &error.to_string()))
    }

    /// The event that a former device has sent for this step.
    async fn former(&self, to: &Place, key: &str) -> Result<Option<SentEvent>, SendError> {
        let found = self.store.former_send(to, key).await;
        let found = found.map_err(|error| retry(None, Outcome::NotDone, &error.to_string()))?;
        Ok(found.map(|(remote, sent_at)| SentEvent {
            remote,
            sent_at,
            kind: SentKind::Unknown,
        }))
    }

    /// Reads the room backwards until the event is found or all further events are older.
    async fn search_back(
        &self,
        room: &Room,
        to: &Place,
        sought: &SoughtSend<'_>,
    ) -> Result<Option<SentEvent>, SendError> {
        let since = sought.since;
        let mut from = None;
        // This device cannot decrypt what a former device sent; but those events were looked up while the former keys
        // were there.
        let mut unreadable = since <= sought.device_since && self.former(to, "").await?.is_some();
        // An event from before the room was encrypted may be found in plaintext.
        let may_be_clear = self.encrypted_at(to).await?.is_none_or(|at| at >= since);
        for _ in 0..MAX_PAGES {
            let mut options = MessagesOptions::backward().from(from.as_deref());
            options.limit = uint!(500);
            let page = room
                .messages(options)
                .await
                .map_err(|error| RequestError::from(&error).into_unsent_error())?;
            let mut old = 0;
            for event in &page.chunk {
                match look_at(event, sought, may_be_clear) {
                    EventMatch::Found(sent) => return Ok(Some(sent)),
                    EventMatch::Another { is_old } => old += usize::from(is_old),
                    EventMatch::Unreadable => unreadable = true,
                    EventMatch::TooOld => return not_found(unreadable),
                }
            }
            if old >= OLD_PAGE && old == page.chunk.len() {
                // Most likely it was not sent; but others have chosen these times.
                return not_found(true);
            }
            match page.end {
                Some(end) if from.as_ref() != Some(&end) => from = Some(end),
                _ => return not_found(unreadable),
            }
        }
        not_found(true)
    }
}

/// Whether an event was sent for a step.
fn look_at(event: &TimelineEvent, sought: &SoughtSend<'_>, may_be_clear: bool) -> EventMatch {
    let Some(envelope) = EventFields::open(event) else {
        return EventMatch::Another { is_old: false };
    };
    let sent_at = Millis(envelope.origin_server_ts);
    let is_old = sent_at.plus(CLOCK_SKEW) < sought.since;
    if envelope.sender != sought.sender {
        // Another user's server chooses the time of that user's events.
        return EventMatch::Another { is_old };
    }
    if is_old {
        return EventMatch::TooOld;
    }
    // Reactions are never encrypted. Any other plaintext event in an encrypted room may be forged by the homeserver.
    let is_clear = matches!(event.kind, TimelineEventKind::PlainText { .. });
    if is_clear && !may_be_clear && envelope.event_type != "m.reaction" {
        return EventMatch::Another { is_old: false };
    }
    match delivery_mark::of(&envelope) {
        Some(marked) if marked == sought.key => EventMatch::Found(SentEvent {
            kind: SentKind::of(&envelope.content),
            remote: RemoteId(envelope.event_id),
            sent_at,
        }),
        // Events from before this device were looked up when it replaced the former one.
        None if event.kind.is_utd()
            && sent_at >= sought.device_since
            && sought.may_be_device_of(&envelope) =>
        {
            EventMatch::Unreadable
        }
        _ => EventMatch::Another { is_old: false },
    }
}

/// What a step did that this event was sent for: the step itself, or its fallback.
fn done_by(sent: &SentEvent, step: &Step) -> Done {
    let kind = sent.kind;
    let event = |thread: Option<RemoteId>, file: Option<String>| Copy {
        remote: sent.remote.clone(),
        thread,
        sent_at: sent.sent_at,
        file,
    };
    match step {
        Step::Edit { fallback, .. } | Step::EditPart { fallback, .. }
            if matches!(kind, SentKind::Text | SentKind::File) =>
        {
            let thread = fallback.as_deref().and_then(thread_of);
            Done::Created(event(thread, None))
        }
        Step::EditPart {
            target, slot, part, ..
        } => rewritten(target, *slot, part.as_ref(), event(None, None)),
        Step::Edit { target, .. } => Done::EditedBy {
            target: target.clone(),
            by: event(None, None),
        },
        Step::React { .. } => Done::ReactionAdded(event(None, None)),
        Step::SendFile { file, .. } if kind == SentKind::Text => {
            let digest = file.digest();
            Done::Created(event(thread_of(step), Some(Copy::placeholder_for(&digest))))
        }
        step => Done::Created(event(thread_of(step), None)),
    }
}

fn thread_of(step: &Step) -> Option<RemoteId> {
    match step {
        Step::Post { thread, .. } | Step::SendFile { thread, .. } | Step::Bundle { thread, .. } => {
            thread.clone()
        }
        _ => None,
    }
}

/// Nothing was found. If some events could not be decrypted, that proves nothing.
fn not_found(unreadable: bool) -> Result<Option<SentEvent>, SendError> {
    if unreadable {
        return Err(SendError::Refused {
            reason: "the homeserver never answered, and it is no longer possible to find out whether the \
                     message arrived"
                .into(),
        });
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use footbridge_core::{file::File, message::Style, outlet::Content};
    use serde_json::json;

    use super::*;

    fn found(content: &Value) -> SentEvent {
        SentEvent {
            remote: RemoteId::from("$found"),
            sent_at: Millis(1),
            kind: SentKind::of(content),
        }
    }

    fn post() -> Step {
        Step::Post {
            content: Content {
                text: String::new(),
                html: None,
                style: Style::Text,
                author: None,
                mentions: Vec::new(),
            },
            thread: Some(RemoteId::from("$thread")),
            reply_to: None,
        }
    }

    fn text() -> Value {
        json!({ "msgtype": "m.text", "body": "sent an image" })
    }

    #[test]
    fn a_line_that_was_sent_instead_of_a_file_is_found_as_that_line() {
        let Step::Post {
            content, thread, ..
        } = post()
        else {
            panic!("a post");
        };
        let file = File {
            source: "mxc://x/cat".to_owned(),
            ..File::default()
        };
        let digest = file.digest();
        let sent = Step::SendFile {
            file,
            content,
            thread,
            reply_to: None,
            fallback: Some(Box::new(post())),
        };
        let line = done_by(&found(&text()), &sent);
        let Done::Created(copy) = line else {
            panic!("{line:?}");
        };
        assert!(copy.is_file_placeholder());
        assert_eq!(copy.file_digest(), Some(&*digest));
        let image = json!({ "msgtype": "m.image", "body": "cat.png" });
        let Done::Created(copy) = done_by(&found(&image), &sent) else {
            panic!("a message");
        };
        assert_eq!(copy.file, None);
    }

    #[test]
    fn a_message_that_was_sent_instead_of_an_edit_is_found_as_a_message() {
        let Step::Post { content, .. } = post() else {
            panic!("a post");
        };
        let edit = Step::Edit {
            target: RemoteId::from("$target"),
            content,
            is_caption: true,
            fallback: Some(Box::new(post())),
        };
        let Done::Created(copy) = done_by(&found(&text()), &edit) else {
            panic!("a message");
        };
        assert_eq!(copy.thread, Some(RemoteId::from("$thread")));
        let relation = json!({ "rel_type": "m.replace", "event_id": "$target" });
        let edited = json!({ "msgtype": "m.text", "m.relates_to": relation });
        let done = done_by(&found(&edited), &edit);
        assert!(matches!(done, Done::EditedBy { .. }), "{done:?}");
        let part = Step::EditPart {
            target: RemoteId::from("$target"),
            slot: 0,
            part: None,
            fallback: Some(Box::new(post())),
        };
        let done = done_by(&found(&text()), &part);
        assert!(matches!(done, Done::Created(_)), "{done:?}");
    }
}
