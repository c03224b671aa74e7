//! Pure functions from Matterbridge's events to arrivals for the journal.

use footbridge_core::{
    inbox::{Arrival, ArrivalContent},
    message::{Action, Command, Message, Sender, Style},
};
use footbridge_store::{Millis, Place, SkipRule};

use super::{
    api::{Event, EventKind},
    convert::{body_of, files_of},
};

/// The name of authors that the network does not name.
const UNKNOWN_AUTHOR: &str = "Someone";

/// The arrival of an event; `None` if it is not relayed. `now` replaces a time that cannot be read, and `may_fetch`
/// says whether the bridge may download from an address.
pub fn arrival(
    place: &Place,
    event: &Event,
    now: Millis,
    may_fetch: impl Fn(&str) -> bool,
) -> Option<Arrival> {
    let (files, rest) = files_of(event, may_fetch);
    let body = body_of(event, &rest);
    let post = |style, body| Action::Post {
        body,
        style,
        reply_to: None,
        thread: None,
    };
    let action = match event.kind() {
        EventKind::Message => post(Style::Text, body),
        EventKind::Action => post(Style::Emote, body),
        EventKind::System => Action::System {
            summary: body.to_plain().lines().collect::<Vec<_>>().join(" "),
        },
        EventKind::Deleted => {
            return Some(build_arrival(
                place,
                event,
                now,
                ArrivalContent::Skipped(SkipRule::UnknownTarget),
            ));
        }
        EventKind::Connected | EventKind::Unknown => return None,
    };
    let empty = match &action {
        Action::Post { body, .. } => body.is_empty() && files.is_empty(),
        Action::System { summary } => summary.trim().is_empty(),
        _ => false,
    };
    // Matterbridge does not say which message a command is about.
    let command = Command::in_channel(&event.text, || sender(event), None);
    let payload = if let Some(command) = command {
        command.into()
    } else if empty {
        ArrivalContent::Skipped(SkipRule::Empty)
    } else {
        ArrivalContent::from(Message {
            sender: sender(event),
            sent_at: event.sent_at().unwrap_or(now),
            files,
            action,
        })
    };
    Some(build_arrival(place, event, now, payload))
}

fn build_arrival(place: &Place, event: &Event, now: Millis, payload: ArrivalContent) -> Arrival {
    Arrival {
        place: place.clone(),
        event_id: event.event_id(),
        message: Some(event.event_id()),
        thread: None,
        sent_at: event.sent_at().unwrap_or(now),
        payload,
    }
}

/// One gateway joins several networks, so each id begins with its account.
fn sender(event: &Event) -> Sender {
    let name = event.username.trim();
    let own = [event.userid.trim(), name];
    let own = own.into_iter().find(|id| !id.is_empty());
    Sender {
        id: own.map_or_else(String::new, |id| format!("{}/{id}", event.account)),
        name: if name.is_empty() {
            UNKNOWN_AUTHOR
        } else {
            name
        }
        .to_owned(),
        avatar: Some(event.avatar.clone()).filter(|url| !url.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::matterbridge::api;

    fn heard(value: &Value) -> Option<Arrival> {
        let event = api::read(value.to_string().as_bytes()).unwrap();
        arrival(&Place::new("mb", "gw"), &event, Millis(7), |_| false)
    }

    fn spoken(value: &Value) -> Message {
        match heard(value).unwrap().payload {
            ArrivalContent::Message(message) => *message,
            other => panic!("{other:?}"),
        }
    }

    fn style(value: &Value) -> Style {
        match spoken(value).action {
            Action::Post { style, .. } => style,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_and_ids_come_with_their_account() {
        let message = spoken(
            &json!({"text": "hi", "username": "alice ", "userid": "~alice@127.0.0.1",
            "account": "irc.local", "timestamp": "2026-11-22T12:06:31.632804119Z"}),
        );
        assert_eq!(message.sender.name, "alice");
        assert_eq!(message.sender.id, "irc.local/~alice@127.0.0.1");
        assert_eq!(message.sent_at, Millis(1_795_349_191_632));
        let nobody = spoken(&json!({"text": "hi", "account": "irc.local"})).sender;
        assert!(nobody.name == UNKNOWN_AUTHOR && nobody.id.is_empty() && !nobody.is_bridge());
        let unnumbered = spoken(&json!({"text": "hi", "username": "bob", "account": "irc.local"}));
        assert_eq!(unnumbered.sender.id, "irc.local/bob");
    }

    #[test]
    fn each_kind_of_event_is_spoken_in_its_way() {
        for (event, spoken) in [("", Style::Text), ("user_action", Style::Emote)] {
            assert_eq!(
                style(&json!({"text": "x", "event": event})),
                spoken,
                "{event}"
            );
        }
    }

    #[test]
    fn a_system_message_has_no_author() {
        for event in ["join_leave", "join", "leave", "topic_change"] {
            let told = json!({"text": "alice joins", "username": "system", "event": event});
            let summary = "alice joins".to_owned();
            assert_eq!(spoken(&told).action, Action::System { summary }, "{event}");
        }
        let empty = json!({"text": " ", "event": "join"});
        assert_eq!(
            heard(&empty).unwrap().payload,
            ArrivalContent::Skipped(SkipRule::Empty)
        );
    }

    #[test]
    fn what_is_no_message_is_no_news() {
        for event in ["api_connected", "user_typing", "something_new"] {
            assert!(
                heard(&json!({"text": "x", "event": event})).is_none(),
                "{event}"
            );
        }
        let skipped = |value: &Value| heard(value).unwrap().payload;
        assert_eq!(
            skipped(&json!({"text": " \n"})),
            ArrivalContent::Skipped(SkipRule::Empty)
        );
        let deleted = json!({"text": "msg_delete", "event": "msg_delete"});
        assert_eq!(
            skipped(&deleted),
            ArrivalContent::Skipped(SkipRule::UnknownTarget)
        );
    }

    #[test]
    fn commands_are_asked_and_not_relayed() {
        let payload = heard(&json!({"text": "!bridge status"})).unwrap().payload;
        assert!(matches!(payload, ArrivalContent::Command(_)));
    }
}
