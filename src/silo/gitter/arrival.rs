//! Pure functions from events of a Gitter room to arrivals for the journal.

use footbridge_core::{
    inbox::{Arrival, ArrivalContent},
    message::{Action, Command, Message, Sender, Style},
    text::{Block, Body, Inline},
};
use footbridge_store::{Millis, Place, RemoteId, SkipRule};

use super::{api::ChatMessage, convert::body_from_html};

/// The name of authors that Gitter does not name.
const UNKNOWN_AUTHOR: &str = "Someone on Gitter";

/// A new message.
pub fn post(place: &Place, message: &ChatMessage) -> Arrival {
    let thread = message.parent_id.clone().map(RemoteId);
    let (body, style) = content(message);
    let command = Command::in_channel(message.raw(), || sender(message), thread.clone());
    let payload = if let Some(command) = command {
        command.into()
    } else if body.is_empty() {
        ArrivalContent::Skipped(SkipRule::Empty)
    } else {
        ArrivalContent::from(Message {
            sender: sender(message),
            sent_at: message.sent_at(),
            files: Vec::new(),
            action: Action::Post {
                body,
                style,
                reply_to: None,
                thread: thread.clone(),
            },
        })
    };
    Arrival {
        place: place.clone(),
        event_id: message.remote(),
        message: Some(message.remote()),
        thread,
        sent_at: message.sent_at(),
        payload,
    }
}

/// A new text for a message.
pub fn edit(place: &Place, message: &ChatMessage) -> Arrival {
    let (body, style) = content(message);
    let change = Message {
        sender: sender(message),
        sent_at: message.edited_at().unwrap_or(message.sent_at()),
        files: Vec::new(),
        action: Action::Edit {
            target: message.remote(),
            body,
            style,
        },
    };
    build_arrival(place, edit_event_id(message), change.sent_at, change.into())
}

/// The edit whose text a message already had when the bridge first saw it: recorded, so that a later listing does not
/// make it a new edit.
pub fn edit_included(place: &Place, message: &ChatMessage) -> Arrival {
    let at = message.edited_at().unwrap_or(message.sent_at());
    build_arrival(
        place,
        edit_event_id(message),
        at,
        ArrivalContent::Skipped(SkipRule::EditIncluded),
    )
}

/// A message of the bridge that Gitter published only after the lane had given it up and sent it again: the duplicate
/// cannot be avoided; it is counted and not relayed.
pub fn late_duplicate(place: &Place, message: &ChatMessage) -> Arrival {
    tracing::warn!(
        "Gitter published a message after the bridge had sent it again, so the channel shows it twice; a longer \
                    `settle` would avoid this"
    );
    Arrival {
        payload: ArrivalContent::Skipped(SkipRule::LateDuplicate),
        ..post(place, message)
    }
}

/// A message was deleted; Gitter does not say by whom.
pub fn deletion(place: &Place, id: &str, seen_at: Millis) -> Arrival {
    let change = Message {
        sender: Sender {
            id: String::new(),
            name: UNKNOWN_AUTHOR.to_owned(),
            avatar: None,
        },
        sent_at: seen_at,
        files: Vec::new(),
        action: Action::Delete {
            target: RemoteId::from(id),
        },
    };
    build_arrival(place, format!("{id}/delete"), seen_at, change.into())
}

fn build_arrival(
    place: &Place,
    event_id: String,
    sent_at: Millis,
    payload: ArrivalContent,
) -> Arrival {
    Arrival {
        place: place.clone(),
        event_id: RemoteId(event_id),
        message: None,
        thread: None,
        sent_at,
        payload,
    }
}

/// One id per edit: Gitter's time of the edit, or else the version of the document.
fn edit_event_id(message: &ChatMessage) -> String {
    match message.edited_at() {
        Some(at) => format!("{}/edit/{}", message.id, at.0),
        None => format!("{}/edit/v{}", message.id, message.v.unwrap_or_default()),
    }
}

fn sender(message: &ChatMessage) -> Sender {
    let (user, person) = (message.from_user.as_ref(), message.virtual_user.as_ref());
    let id = user.map(|user| user.id.clone()).unwrap_or_default();
    let name = person
        .and_then(|person| {
            person
                .display_name
                .clone()
                .or_else(|| person.external_id.clone())
        })
        .or_else(|| {
            user.and_then(|user| user.display_name.clone().or_else(|| user.username.clone()))
        })
        .filter(|name| !name.trim().is_empty())
        .unwrap_or_else(|| UNKNOWN_AUTHOR.to_owned());
    Sender {
        id,
        name,
        avatar: user.and_then(|user| user.avatar_url.clone()),
    }
}

fn content(message: &ChatMessage) -> (Body, Style) {
    let html = message.html.as_deref().unwrap_or_default();
    let mut body = body_from_html(html, message.raw());
    if message.status != Some(true) {
        return (body, Style::Text);
    }
    if let Some(name) = message
        .from_user
        .as_ref()
        .and_then(|user| user.username.as_deref())
    {
        strip_own_name(&mut body, name);
    }
    (body, Style::Emote)
}

/// Clients write an emote as `@ownname waves`; the name is shown anyway.
fn strip_own_name(body: &mut Body, name: &str) {
    let Some(Block::Paragraph(inlines)) = body.0.first_mut() else {
        return;
    };
    let found = match inlines.first_mut() {
        Some(Inline::Mention { name: called, .. }) => called.eq_ignore_ascii_case(name),
        Some(Inline::Text(text)) => {
            let rest = text
                .strip_prefix('@')
                .and_then(|rest| rest.strip_prefix(name))
                .filter(|rest| rest.is_empty() || rest.starts_with(' '))
                .map(ToOwned::to_owned);
            match rest {
                Some(rest) => {
                    *text = rest;
                    let empty = text.is_empty();
                    if !empty {
                        text.replace_range(..1, "");
                        return;
                    }
                    true
                }
                None => false,
            }
        }
        _ => false,
    };
    if !found || inlines.len() < 2 {
        return;
    }
    inlines.remove(0);
    if let Some(Inline::Text(text)) = inlines.first_mut() {
        *text = text.trim_start().to_owned();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn message(value: Value) -> ChatMessage {
        serde_json::from_value(value).unwrap()
    }

    fn spoken(arrival: &Arrival) -> Message {
        match &arrival.payload {
            ArrivalContent::Message(message) => (**message).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn place() -> Place {
        Place::new("gitter", "5f1e")
    }

    #[test]
    fn a_thread_reply_knows_its_root() {
        let arrival = post(
            &place(),
            &message(
                json!({"id": "b", "text": "hi", "parentId": "a", "sent": "2020-07-27T10:00:00.123Z"}),
            ),
        );
        assert_eq!(arrival.thread, Some(RemoteId::from("a")));
        assert!(
            matches!(spoken(&arrival).action, Action::Post { thread: Some(root), .. } if root.as_str() == "a")
        );
        assert_eq!(arrival.sent_at, Millis(1_595_844_000_123));
    }

    #[test]
    fn a_message_without_an_author_is_not_the_bridges_own() {
        let stranger = sender(&message(json!({"id": "b", "text": "hi"})));
        assert_eq!(stranger.name, UNKNOWN_AUTHOR);
        assert!(!stranger.is_bridge());
        assert!(Sender::bridge().is_bridge());
    }

    #[test]
    fn an_action_does_not_repeat_the_name() {
        for text in ["@Ann waves", "waves"] {
            let arrival = post(
                &place(),
                &message(json!({"id": "b", "text": text, "status": true,
                    "fromUser": {"id": "u", "username": "Ann", "displayName": "Ann B"}})),
            );
            let Action::Post { body, style, .. } = spoken(&arrival).action else {
                panic!("a post");
            };
            assert_eq!(style, Style::Emote);
            assert!(body == Body::plain("waves"), "{text}");
        }
    }

    #[test]
    fn an_action_of_a_user_with_a_longer_name_is_not_cut() {
        let arrival = post(
            &place(),
            &message(json!({"id": "b", "text": "@Annette waves", "status": true,
                "fromUser": {"id": "u", "username": "Ann"}})),
        );
        assert!(matches!(spoken(&arrival).action, Action::Post { .. }));
        let Action::Post { body, .. } = spoken(&arrival).action else {
            panic!("a post");
        };
        assert!(body != Body::plain("waves"));
    }

    #[test]
    fn names_come_from_the_person_behind_another_bridge_first() {
        let name = |value: Value| sender(&message(value)).name;
        assert_eq!(
            name(
                json!({"id": "a", "fromUser": {"id": "u", "username": "bot"}, "virtualUser": {"displayName": "Ann"}})
            ),
            "Ann"
        );
        assert_eq!(
            name(
                json!({"id": "a", "fromUser": {"id": "u", "username": "ann", "displayName": " "}})
            ),
            UNKNOWN_AUTHOR
        );
        assert_eq!(
            name(json!({"id": "a", "fromUser": {"id": "u", "username": "ann"}})),
            "ann"
        );
        assert_eq!(name(json!({"id": "a"})), UNKNOWN_AUTHOR);
    }

    #[test]
    fn each_edit_is_a_fact_of_its_own() {
        let event_id = |value: Value| edit(&place(), &message(value)).event_id.0;
        assert_eq!(
            event_id(json!({"id": "a", "text": "x", "editedAt": "2020-07-27T10:00:00.123Z"})),
            "a/edit/1595844000123"
        );
        assert_eq!(
            event_id(json!({"id": "a", "text": "x", "v": 4})),
            "a/edit/v4"
        );
        assert_eq!(deletion(&place(), "a", Millis(1)).event_id.0, "a/delete");
    }

    #[test]
    fn an_empty_message_is_skipped_by_name() {
        let arrival = post(&place(), &message(json!({"id": "a", "text": "  \n"})));
        assert_eq!(arrival.payload, ArrivalContent::Skipped(SkipRule::Empty));
    }
}
