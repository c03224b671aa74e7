//! What Matterbridge's API says and takes (facts of v1.26.1-dev and of the fork of 2026).

use footbridge_store::{Millis, RemoteId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::framing::CUT;

/// An object of the WebSocket, of the stream, or of an answer.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    /// What was written.
    pub text: String,
    /// The channel of origin.
    pub channel: String,
    /// Who wrote it, formatted by `RemoteNickFormat`.
    pub username: String,
    /// The network's own id of who wrote it.
    pub userid: String,
    /// Where their picture is.
    pub avatar: String,
    /// `protocol.name` of the origin.
    pub account: String,
    /// What kind of event it is; empty for a message.
    #[serde(rename = "event")]
    pub word: String,
    /// The network of origin.
    pub protocol: String,
    /// The gateway that it came through.
    pub gateway: String,
    /// Not empty where it answers something. The ids in it never appear anywhere else.
    pub parent_id: String,
    /// When Matterbridge took it: RFC 3339 with nanoseconds.
    pub timestamp: String,
    /// What was attached.
    #[serde(rename = "Extra", alias = "extra", deserialize_with = "files")]
    pub files: Vec<File>,
    /// What it is known by, as Matterbridge gives no ids: empty until it was named.
    #[serde(skip)]
    pub identity: String,
}

/// Something attached.
#[derive(Clone, Default)]
pub struct File {
    /// Its name.
    pub name: String,
    /// What was written beside it; often the same as the text.
    pub comment: String,
    /// Its content in base64, if it came with it.
    pub data: String,
    /// Where it can be fetched, if Matterbridge has a media server.
    pub url: String,
    /// In bytes. Right only where it was too large.
    pub size: u64,
    /// Whether Matterbridge left its content out.
    pub too_large: bool,
    /// Whether we left its content out, as its message was too long.
    pub too_long: bool,
}

/// What an event means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Somebody says something.
    Message,
    /// Somebody does something: `/me waves`.
    Action,
    /// Somebody came or left, a topic changed.
    System,
    /// The first object of a connection.
    Connected,
    /// Something was deleted, nobody can tell what.
    Deleted,
    /// Nothing that we know.
    Unknown,
}

impl Event {
    /// What it means.
    pub fn kind(&self) -> EventKind {
        match self.word.as_str() {
            "" | "file_failure_size" => EventKind::Message,
            "user_action" => EventKind::Action,
            // The fork says `join` and `leave`.
            "join_leave" | "join" | "leave" | "topic_change" => EventKind::System,
            "api_connected" => EventKind::Connected,
            "msg_delete" => EventKind::Deleted,
            _ => EventKind::Unknown,
        }
    }

    /// When Matterbridge took it.
    pub fn moment(&self) -> Option<jiff::Timestamp> {
        self.timestamp.parse().ok()
    }

    /// The same for the house.
    pub fn sent_at(&self) -> Option<Millis> {
        Some(Millis(self.moment()?.as_millisecond()))
    }

    /// What it is known by (see [`super::identity`]).
    pub fn event_id(&self) -> RemoteId {
        RemoteId(self.identity.clone())
    }
}

/// Reads an object.
pub fn read(bytes: &[u8]) -> Option<Event> {
    serde_json::from_slice(bytes).ok()
}

/// Reads an object that was too long with its long strings: the contents of files, of which each keeps its name, its address
/// and what was written beside it.
pub fn read_shortened(bytes: &[u8]) -> Option<Event> {
    let mut event = read(bytes)?;
    // Nothing stands for words that were left out.
    if event.text == CUT {
        return None;
    }
    for file in event.files.iter_mut().filter(|file| file.data == CUT) {
        file.data = String::new();
        file.too_long = true;
    }
    Some(event)
}

/// What is attached, whatever else stands there: an unexpected thing may not cost the message.
fn files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<File>, D::Error> {
    let mut extra = Value::deserialize(deserializer)?;
    let mut of = |key: &str, too_large: bool| -> Vec<File> {
        let list = extra.get_mut(key).and_then(Value::as_array_mut);
        let list = list.into_iter().flatten();
        list.map(|file| File {
            name: word(file, "Name"),
            comment: word(file, "Comment"),
            data: word(file, "Data"),
            url: word(file, "URL"),
            size: file.get("Size").and_then(Value::as_u64).unwrap_or_default(),
            too_large,
            too_long: false,
        })
        .collect()
    };
    let (whole, large) = (of("file", false), of("file_failure_size", true));
    Ok(whole.into_iter().chain(large).collect())
}

/// Taken out, as a content is large.
fn word(value: &mut Value, key: &str) -> String {
    match value.get_mut(key).map(Value::take) {
        Some(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A message of ours. All else is set by Matterbridge, whatever is sent.
#[derive(Serialize)]
pub struct Post<'a> {
    /// The gateway it goes into.
    pub gateway: &'a str,
    /// Who says it.
    pub username: &'a str,
    /// Their id.
    pub userid: &'a str,
    /// Where their picture is.
    pub avatar: &'a str,
    /// What they say.
    pub text: &'a str,
    /// `user_action` or nothing.
    pub event: &'a str,
}

/// A message of ours that carries a file. Its JSON breaks off where the content stands.
#[derive(Serialize)]
pub struct FilePost<'a> {
    /// The message.
    #[serde(flatten)]
    pub post: Post<'a>,
    /// The file.
    #[serde(rename = "Extra")]
    pub extra: Extra<'a>,
}

/// What is attached to a message of ours.
#[derive(Serialize)]
pub struct Extra<'a> {
    /// The files.
    pub file: [Attached<'a>; 1],
}

/// A file of ours.
#[derive(Serialize)]
pub struct Attached<'a> {
    /// Its name.
    #[serde(rename = "Name")]
    pub name: &'a str,
    /// What is said with it.
    #[serde(rename = "Comment")]
    pub comment: &'a str,
    /// Its content in base64.
    #[serde(rename = "Data")]
    pub data: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::framing::{Line, LineFramer};

    fn event(value: &Value) -> Event {
        read(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_real_object_is_read() {
        let text = r##"{"text":"a \u003c b","channel":"#test","username":"alice","userid":"~alice@127.0.0.1","avatar":"",
            "account":"irc.local","event":"","protocol":"irc","gateway":"gw1","parent_id":"",
            "timestamp":"2026-11-22T12:06:31.632804119Z","id":"","Extra":null}"##;
        let event = read(text.as_bytes()).unwrap();
        assert_eq!(
            (event.text.as_str(), event.kind()),
            ("a < b", EventKind::Message)
        );
        assert_eq!(event.sent_at(), Some(Millis(1_795_349_191_632)));
    }

    #[test]
    fn attachments_are_read_with_their_content() {
        let one = event(
            &json!({"Extra": {"file": [{"Name": "a.png", "Data": "iVBORw", "URL": "http://media.example/a.png",
            "Comment": "look", "Size": 0}]}}),
        );
        let [file] = one.files.as_slice() else {
            panic!("one file");
        };
        assert_eq!(
            (
                file.name.as_str(),
                file.comment.as_str(),
                file.data.as_str()
            ),
            ("a.png", "look", "iVBORw")
        );
        let large = event(&json!({"event": "file_failure_size",
            "extra": {"file_failure_size": [{"Name": "b", "Data": null, "Size": 1_500_000}]}}));
        assert!(large.files[0].too_large && large.files[0].size == 1_500_000);
        for strange in [
            json!(null),
            json!({}),
            json!({"file": 1}),
            json!({"file": [1]}),
            json!("x"),
        ] {
            let read = read(
                json!({"text": "t", "Extra": strange})
                    .to_string()
                    .as_bytes(),
            );
            assert_eq!(read.unwrap().text, "t");
        }
    }

    #[test]
    fn files_of_a_message_that_is_too_long_keep_what_is_theirs() {
        let content = |length: usize| "QUJD".repeat(length);
        let file = |name: &str, data: &str| {
            json!({"Name": name, "Data": data, "Comment": format!("of {name}"),
                "URL": format!("http://m.example/{name}"), "Size": 0, "SHA": ""})
        };
        let files = [
            file("a.mp4", &content(600)),
            file("small.png", &content(2)),
            file("b.pdf", &content(500)),
            file("c \"x\", \"Extra\".bin", &content(600)),
        ];
        let large = json!({"Name": "d.iso", "Data": null, "Comment": "", "URL": "", "Size": 7});
        let text = "our \"film\", \"Extra\": none";
        let object = |text: &str| {
            json!({"text": text, "username": "bob", "gateway": "gw1", "id": "",
                "Extra": {"file": files, "file_failure_size": [large]}})
            .to_string()
        };
        let found = |object: &str| {
            let mut lines = LineFramer::with_limit(1_900);
            let line = format!("{object}\n");
            let found: Vec<Line> = line
                .as_bytes()
                .chunks(100)
                .flat_map(|chunk| lines.take(chunk))
                .collect();
            match found.as_slice() {
                [Line::Shortened(bytes)] => read_shortened(bytes),
                other => panic!("{other:?}"),
            }
        };
        let event = found(&object(text)).unwrap();
        assert_eq!(
            (event.text.as_str(), event.username.as_str()),
            (text, "bob")
        );
        let files = event.files.iter();
        let seen: Vec<_> = files
            .map(|file| {
                (
                    file.name.as_str(),
                    file.data.len(),
                    file.too_long,
                    file.too_large,
                )
            })
            .collect();
        let expected = [
            ("a.mp4", 0, true, false),
            ("small.png", 8, false, false),
            ("b.pdf", 0, true, false),
            ("c \"x\", \"Extra\".bin", 0, true, false),
            ("d.iso", 0, false, true),
        ];
        assert_eq!(seen, expected);
        for file in event.files.iter().filter(|file| !file.too_large) {
            assert_eq!(file.url, format!("http://m.example/{}", file.name));
            assert_eq!(file.comment, format!("of {}", file.name));
        }
        // Where the text itself is cut, what is left would read as if it were whole.
        assert!(found(&object(&"x".repeat(2_000))).is_none());
    }

    #[test]
    fn unknown_events_are_known_as_such() {
        for (name, kind) in [
            ("join", EventKind::System),
            ("api_connected", EventKind::Connected),
            ("user_typing", EventKind::Unknown),
            // Goes from IRC to IRC only.
            ("notice_irc", EventKind::Unknown),
            ("something_new", EventKind::Unknown),
        ] {
            assert_eq!(event(&json!({"event": name})).kind(), kind, "{name}");
        }
    }
}
