//! The JSON of Matterbridge's API (as of v1.26.1-dev and of the fork of 2026).

use footbridge_store::{Millis, RemoteId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::framing::CUT;

/// An object of the WebSocket, of the stream, or of a response.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The text.
    pub text: String,
    /// The channel of origin.
    pub channel: String,
    /// The author, formatted by `RemoteNickFormat`.
    pub username: String,
    /// The network's own id of the author.
    pub userid: String,
    /// The address of their avatar.
    pub avatar: String,
    /// `protocol.name` of the origin.
    pub account: String,
    /// The kind of event; empty for a message.
    #[serde(rename = "event")]
    pub word: String,
    /// The network of origin.
    pub protocol: String,
    /// The gateway that it came through.
    pub gateway: String,
    /// Not empty for a reply. The ids in it never appear anywhere else.
    pub parent_id: String,
    /// When Matterbridge accepted it: RFC 3339 with nanoseconds.
    pub timestamp: String,
    /// The attachments.
    #[serde(rename = "Extra", alias = "extra", deserialize_with = "files")]
    pub files: Vec<File>,
    /// The id that the bridge gives it, as Matterbridge gives none; empty until `MessageIds::name` sets it.
    #[serde(skip)]
    pub identity: String,
}

/// An attachment.
#[derive(Clone, Default)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its caption; often the same as the text.
    pub comment: String,
    /// Its content in base64, if the message includes it.
    pub data: String,
    /// Its address, if Matterbridge has a media server.
    pub url: String,
    /// In bytes. Correct only if the file was too large.
    pub size: u64,
    /// Whether Matterbridge left its content out.
    pub too_large: bool,
    /// Whether the bridge dropped its content, as the message was too long.
    pub too_long: bool,
}

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A text message.
    Message,
    /// An emote: `/me waves`.
    Action,
    /// A join, a leave or a new topic.
    System,
    /// The first object of a connection.
    Connected,
    /// A message was deleted; Matterbridge does not say which.
    Deleted,
    /// An unknown kind.
    Unknown,
}

impl Event {
    /// Its kind.
    pub fn kind(&self) -> EventKind {
        match self.word.as_str() {
            "" | "file_failure_size" => EventKind::Message,
            "user_action" => EventKind::Action,
            // The fork writes `join` and `leave`.
            "join_leave" | "join" | "leave" | "topic_change" => EventKind::System,
            "api_connected" => EventKind::Connected,
            "msg_delete" => EventKind::Deleted,
            _ => EventKind::Unknown,
        }
    }

    /// When Matterbridge accepted it.
    pub fn moment(&self) -> Option<jiff::Timestamp> {
        self.timestamp.parse().ok()
    }

    /// The same in milliseconds.
    pub fn sent_at(&self) -> Option<Millis> {
        Some(Millis(self.moment()?.as_millisecond()))
    }

    /// The id that the bridge gave it (see [`super::message_ids`]).
    pub fn event_id(&self) -> RemoteId {
        RemoteId(self.identity.clone())
    }
}

/// Parses an object.
pub fn read(bytes: &[u8]) -> Option<Event> {
    serde_json::from_slice(bytes).ok()
}

/// Parses an object whose long strings were cut out: the contents of files, each of which keeps its name, its address
/// and its caption.
pub fn read_shortened(bytes: &[u8]) -> Option<Event> {
    let mut event = read(bytes)?;
    // Nothing can replace the text of a message.
    if event.text == CUT {
        return None;
    }
    for file in event.files.iter_mut().filter(|file| file.data == CUT) {
        file.data = String::new();
        file.too_long = true;
    }
    Some(event)
}

/// Reads the attachments leniently: an unexpected value must not lose the message.
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

/// Moves the string out, as a content is large.
fn word(value: &mut Value, key: &str) -> String {
    match value.get_mut(key).map(Value::take) {
        Some(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A message of the bridge. Matterbridge sets all other fields, whatever is sent.
#[derive(Serialize)]
pub struct Post<'a> {
    /// The gateway.
    pub gateway: &'a str,
    /// The author's name.
    pub username: &'a str,
    /// The author's id.
    pub userid: &'a str,
    /// The address of the author's avatar.
    pub avatar: &'a str,
    /// The text.
    pub text: &'a str,
    /// `user_action` or nothing.
    pub event: &'a str,
}

/// A message of the bridge with a file. Its JSON is cut off before the content.
#[derive(Serialize)]
pub struct FilePost<'a> {
    /// The message.
    #[serde(flatten)]
    pub post: Post<'a>,
    /// The file.
    #[serde(rename = "Extra")]
    pub extra: Extra<'a>,
}

/// The attachments of a message of the bridge.
#[derive(Serialize)]
pub struct Extra<'a> {
    /// The files.
    pub file: [Attached<'a>; 1],
}

/// A file that the bridge sends.
#[derive(Serialize)]
pub struct Attached<'a> {
    /// Its name.
    #[serde(rename = "Name")]
    pub name: &'a str,
    /// Its caption.
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
        // Where the text itself is cut out, the rest would look complete.
        assert!(found(&object(&"x".repeat(2_000))).is_none());
    }

    #[test]
    fn unknown_events_are_known_as_such() {
        for (name, kind) in [
            ("join", EventKind::System),
            ("api_connected", EventKind::Connected),
            ("user_typing", EventKind::Unknown),
            // Relayed between IRC channels only.
            ("notice_irc", EventKind::Unknown),
            ("something_new", EventKind::Unknown),
        ] {
            assert_eq!(event(&json!({"event": name})).kind(), kind, "{name}");
        }
    }
}
