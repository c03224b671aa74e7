//! Pure: events that are commands to the bridge.

use footbridge_core::message::Command;
use footbridge_store::RemoteId;

use super::{
    Incoming,
    json::{id_at, text_at},
    read::without_quote,
};

/// The reaction that retries a failed message; some clients add a variation selector.
const RETRY_EMOJI: char = '\u{1f501}';
const VARIATION_SELECTOR: char = '\u{fe0f}';

/// A command in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRequest {
    /// The text after `!bridge`.
    pub words: String,
    /// The message that it is about.
    pub target: Option<RemoteId>,
    /// The thread that it was sent in.
    pub thread: Option<RemoteId>,
    /// Whether it is a reaction, not a line of text.
    pub is_reaction: bool,
}

impl CommandRequest {
    /// The command in this event, if it is one. An edit is no command.
    #[must_use]
    pub fn of(event: &Incoming) -> Option<Self> {
        let content = &event.content;
        match event.event_type.as_str() {
            "m.reaction" => {
                let key = text_at(content, "/m.relates_to/key")?;
                let key = key.trim_end_matches(VARIATION_SELECTOR);
                (key.strip_prefix(RETRY_EMOJI) == Some("")).then(|| Self {
                    words: "retry".to_owned(),
                    target: id_at(content, "/m.relates_to/event_id"),
                    thread: None,
                    is_reaction: true,
                })
            }
            "m.room.message" if text_at(content, "/msgtype") == Some("m.text") => {
                let relation = text_at(content, "/m.relates_to/rel_type");
                if relation == Some("m.replace") {
                    return None;
                }
                let answered = id_at(content, "/m.relates_to/m.in_reply_to/event_id");
                let body = text_at(content, "/body")?;
                let body = if answered.is_some() {
                    without_quote(body)
                } else {
                    body
                };
                let words = Command::parse_call(body)?.to_owned();
                let thread = (relation == Some("m.thread"))
                    .then(|| id_at(content, "/m.relates_to/event_id"))
                    .flatten();
                let falls_back = content.pointer("/m.relates_to/is_falling_back")
                    == Some(&serde_json::Value::Bool(true));
                let answered = answered.filter(|_| thread.is_none() || !falls_back);
                Some(Self {
                    words,
                    target: answered.or_else(|| thread.clone()),
                    thread,
                    is_reaction: false,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::Millis;
    use serde_json::{Value, json};

    use super::*;

    fn parse(event_type: &str, content: Value) -> Option<CommandRequest> {
        CommandRequest::of(&Incoming {
            event_id: "$e".into(),
            sender: "@a:x".into(),
            sender_name: "A".into(),
            sent_at: Millis(0),
            event_type: event_type.into(),
            content,
            redacts: None,
        })
    }

    #[test]
    fn the_reaction_counts_with_and_without_its_selector() {
        for (key, counts) in [
            ("🔁", true),
            ("🔁\u{fe0f}", true),
            ("👍", false),
            ("🔁🔁", false),
        ] {
            let relates = json!({"rel_type": "m.annotation", "event_id": "$failed", "key": key});
            let request = parse("m.reaction", json!({"m.relates_to": relates}));
            assert_eq!(request.is_some(), counts, "{key}");
        }
    }

    #[test]
    fn only_a_line_that_begins_with_the_prefix_is_a_command() {
        let command = |body: &str| {
            parse("m.room.message", json!({"msgtype": "m.text", "body": body}))
                .map(|request| request.words)
        };
        assert_eq!(command("!bridge why").as_deref(), Some("why"));
        assert_eq!(command(" !bridge  status ").as_deref(), Some("status"));
        assert_eq!(command("!bridge").as_deref(), Some(""));
        assert_eq!(command("!bridges why"), None);
        assert_eq!(command("say !bridge why"), None);
    }

    #[test]
    fn the_message_asked_about_is_the_one_answered() {
        let reply = json!({"msgtype": "m.text", "body": "> <@b:x> hello\n\n!bridge retry",
            "m.relates_to": {"m.in_reply_to": {"event_id": "$failed"}}});
        let request = parse("m.room.message", reply).unwrap();
        assert_eq!(request.target, Some("$failed".into()));
        assert_eq!(request.words, "retry");
        let in_thread = json!({"msgtype": "m.text", "body": "!bridge why", "m.relates_to": {
            "rel_type": "m.thread", "event_id": "$root", "is_falling_back": true,
            "m.in_reply_to": {"event_id": "$last"}}});
        let request = parse("m.room.message", in_thread).unwrap();
        assert_eq!(request.target, Some("$root".into()));
        let edit = json!({"msgtype": "m.text", "body": "!bridge why",
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}});
        assert_eq!(parse("m.room.message", edit), None);
    }
}
