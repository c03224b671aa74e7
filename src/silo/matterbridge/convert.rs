//! Pure conversion between Matterbridge's messages and neutral messages. Matterbridge forwards a text unchanged to
//! networks of every dialect, and to some without markup, so the bridge sends plain text that mentions nobody. Markup
//! characters in it are not escaped: no escape is hidden by all of IRC, Slack, Zulip and the networks that read
//! Markdown.

use footbridge_core::{
    file::{File as Carried, Kind},
    names,
    text::{self, Block, Body, Inline},
};

pub use super::mentions::escape_mentions;
use super::{emoji::without_emoji, mentions::escape_name};

use super::api::{Event, File};

/// The prefix of a reply: which message it answers is unknown in both directions.
pub const REPLY_MARK: &str = "↪ ";
/// The prefix of an attachment.
const FILE_MARK: &str = "📎 ";
/// The prefix of a source that contains the content itself.
const DATA_SCHEME: &str = "data:";

/// The files of an event that the bridge can relay, and the others; `may_fetch` says whether the bridge may download
/// from an address.
#[must_use]
pub fn files_of(event: &Event, may_fetch: impl Fn(&str) -> bool) -> (Vec<Carried>, Vec<&File>) {
    let mut carried = Vec::new();
    let mut rest = Vec::new();
    for file in &event.files {
        let (source, size) = if !file.data.is_empty() {
            let padding = file
                .data
                .bytes()
                .rev()
                .take_while(|byte| *byte == b'=')
                .count();
            let bytes = (file.data.len() / 4 * 3).saturating_sub(padding);
            (
                format!("{DATA_SCHEME}{}", file.data),
                u64::try_from(bytes).ok(),
            )
        } else if may_fetch(&file.url) {
            (file.url.clone(), Some(file.size).filter(|size| *size > 0))
        } else {
            rest.push(file);
            continue;
        };
        let guessed = mime_guess::from_path(&file.name).first_raw();
        let mime = guessed.unwrap_or_default();
        carried.push(Carried {
            name: file.name.clone(),
            mime: mime.to_owned(),
            kind: Kind::of_type(mime),
            size,
            source,
            ..Carried::default()
        });
    }
    (carried, rest)
}

/// The content inside of a source; `None` for an address.
#[must_use]
pub fn content_of(source: &str) -> Option<&str> {
    source.strip_prefix(DATA_SCHEME)
}

/// The body of an event: its text, the mark of a reply, and the attachments that are not relayed as files.
#[must_use]
pub fn body_of(event: &Event, attached: &[&File]) -> Body {
    let mut text = event.text.trim_end().to_owned();
    if text.is_empty() {
        // Some networks put into the caption what others put into the text.
        let comments = event.files.iter().map(|file| file.comment.trim());
        let captions: Vec<&str> = comments.filter(|comment| !comment.is_empty()).collect();
        text = captions.join("\n");
    }
    let mut body = Body::plain(&text::with_emoji(&text, emoji_of));
    let attached = attached
        .iter()
        .map(|file| Block::Paragraph(attachment(file)));
    body.0.extend(attached);
    if !event.parent_id.is_empty() && !body.is_empty() {
        mark_reply(&mut body);
    }
    body
}

/// Shortcodes of all networks: the table has the names that most of them use.
fn emoji_of(name: &str) -> Option<String> {
    emojis::get_by_shortcode(name).map(|emoji| emoji.as_str().to_owned())
}

fn mark_reply(body: &mut Body) {
    let mark = Inline::Text(REPLY_MARK.to_owned());
    match body.0.first_mut() {
        Some(Block::Paragraph(line)) => line.insert(0, mark),
        _ => body.0.insert(0, Block::Paragraph(vec![mark])),
    }
}

/// An attachment: a link where there is one, else its description.
fn attachment(file: &File) -> Vec<Inline> {
    let name = names::display_name(&file.name, "a file");
    let mark = Inline::Text(FILE_MARK.to_owned());
    let is_link =
        url::Url::parse(&file.url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if file.too_large {
        let size = megabytes(file.size);
        let description =
            format!("{FILE_MARK}{name} ({size}: too large for Matterbridge to pass on)");
        vec![Inline::Text(description)]
    } else if is_link {
        let label = vec![Inline::Text(name)];
        let href = file.url.clone();
        vec![mark, Inline::Link { href, label }]
    } else if file.too_long {
        vec![Inline::Text(format!(
            "{FILE_MARK}{name} (too large for the bridge)"
        ))]
    } else {
        vec![Inline::Text(format!("{FILE_MARK}{name} (not relayed)"))]
    }
}

/// A size as text.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000) / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// A text that mentions nobody, and in which Matterbridge finds no shortcode.
#[must_use]
pub fn harmless(text: &str) -> String {
    without_emoji(&escape_mentions(text))
}

/// A name that mentions nobody.
#[must_use]
pub fn name_of(name: &str, id: &str) -> String {
    escape_name(&names::bidi_isolate(&names::display_name(name, id)))
}

/// A file name that mentions nobody: networks show it in the text, or at the end of an address.
#[must_use]
pub fn file_name(file: &Carried) -> String {
    file.safe_name().replace('@', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, url: &str) -> File {
        File {
            name: name.to_owned(),
            url: url.to_owned(),
            ..File::default()
        }
    }

    fn shown(event: &Event) -> String {
        body_of(event, &files_of(event, |_| false).1).to_plain()
    }

    #[test]
    fn a_reply_is_marked_as_one() {
        let event = Event {
            text: "yes".to_owned(),
            parent_id: "msg-parent-not-found".to_owned(),
            ..Event::default()
        };
        assert_eq!(shown(&event), "↪ yes");
    }

    #[test]
    fn an_address_and_a_time_keep_their_colons() {
        let event = Event {
            text: "10:100:30 https://x.example/:x:/ :x:".to_owned(),
            ..Event::default()
        };
        assert_eq!(shown(&event), "10:100:30 https://x.example/:x:/ ❌");
    }

    #[test]
    fn what_is_attached_is_a_link_or_is_named() {
        let mut event = Event {
            text: "look".to_owned(),
            files: vec![
                file("a.png", "http://media.example/a.png"),
                file("b.png", "javascript:x"),
            ],
            ..Event::default()
        };
        event.files[0].comment = "look".to_owned();
        let body = body_of(&event, &files_of(&event, |_| false).1);
        assert!(
            matches!(&body.0[1], Block::Paragraph(line) if matches!(&line[1],
            Inline::Link { href, .. } if href == "http://media.example/a.png"))
        );
        assert_eq!(shown(&event).matches("look").count(), 1, "not twice");
        assert!(shown(&event).ends_with("📎 b.png (not relayed)"));
    }

    #[test]
    fn files_with_content_or_on_a_listed_host_are_relayed() {
        let mut here = file("a.png", "http://media.example/a.png");
        here.data = "aGVsbG8=".to_owned();
        let event = Event {
            text: "look".to_owned(),
            files: vec![
                here,
                file("b.ogg", "http://media.example/b.ogg"),
                file("c", "http://other.example/c"),
            ],
            ..Event::default()
        };
        let (carried, rest) = files_of(&event, |url| url.starts_with("http://media.example/"));
        let known: Vec<_> = carried
            .iter()
            .map(|file| (file.kind, file.size, file.source.as_str()))
            .collect();
        let expected = [
            (Kind::Image, Some(5), "data:aGVsbG8="),
            (Kind::Audio, None, "http://media.example/b.ogg"),
        ];
        assert_eq!(known, expected);
        assert_eq!(
            body_of(&event, &rest).to_plain(),
            "look\n\n📎 c (http://other.example/c)"
        );
    }

    #[test]
    fn a_caption_is_shown_without_text_and_a_large_file_is_named() {
        let mut large = file("big.bin", "");
        (large.comment, large.size, large.too_large) = ("too big".to_owned(), 1_500_000, true);
        let event = Event {
            files: vec![large],
            ..Event::default()
        };
        assert_eq!(
            shown(&event),
            "too big\n\n📎 big.bin (1.5 MB: too large for Matterbridge to pass on)"
        );
    }

    #[test]
    fn names_and_file_names_mention_nobody() {
        for (name, sent) in [
            ("Ann [de] (she)", "Ann [de] (she)"),
            ("@everyone", "@\u{200b}e\u{200b}veryone"),
            (" ", "@\u{200b}a:b"),
            // Within the marks that Matterbridge may put around a name: `<!channel>`, `[id1|Ann]`.
            ("!channel", "\u{200b}!channel"),
            ("all", "\u{200b}all"),
            ("Allan", "Allan"),
            ("!subteam^S1", "\u{200b}!subteam^S1"),
            ("id1|Ann", "\u{200b}id1|Ann"),
            ("Ann <", "Ann <\u{200b}"),
        ] {
            assert_eq!(name_of(name, "@a:b"), sent, "{name:?}");
        }
        let named = |name: &str| Carried {
            name: name.to_owned(),
            ..Carried::default()
        };
        assert_eq!(file_name(&named("@all @bob.png")), "_all _bob.png");
    }
}
