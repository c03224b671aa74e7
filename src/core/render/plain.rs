//! Plain text, with the author beside it or in front of it.

use unicode_segmentation::UnicodeSegmentation;

use super::{Renderer, Speech, SpeechKind};
use crate::{
    capabilities::{Attribution, TextLimit},
    message::Style,
    names,
    outlet::Content,
};

/// Plain text, made harmless by a rule of the side.
#[derive(Debug)]
pub struct Plain {
    /// Takes from a text what the side would read as more than text.
    pub escape: fn(&str) -> String,
}

impl Plain {
    /// What stands in front of each part: the author, where the name goes into the text.
    fn front(&self, speech: &Speech<'_>) -> String {
        let author = speech.author();
        let Some(author) = author.filter(|_| speech.attribution == Attribution::Inline) else {
            return String::new();
        };
        let name = (self.escape)(&names::display_name(&author.name, &author.id));
        match speech.kind {
            SpeechKind::Said(Style::Emote) | SpeechKind::Summary => format!("* {name} "),
            _ => format!("{name}: "),
        }
    }

    fn text(&self, speech: &Speech<'_>) -> String {
        let text = (self.escape)(&speech.body.to_plain());
        format!("{}{text}{}", speech.reply_mark, speech.edit_mark)
    }
}

fn content(speech: &Speech<'_>, text: String) -> Content {
    let author = speech.author();
    Content {
        text,
        html: None,
        style: match speech.kind {
            SpeechKind::Said(style) => style,
            SpeechKind::Summary => Style::Emote,
            SpeechKind::Notice => Style::Notice,
        },
        author: author
            .filter(|_| speech.attribution != Attribution::Inline)
            .cloned(),
        mentions: Vec::new(),
    }
}

impl Renderer for Plain {
    fn whole(&self, speech: &Speech<'_>) -> Content {
        let (late, front) = (speech.late_mark(), self.front(speech));
        content(speech, format!("{late}{front}{}", self.text(speech)))
    }

    fn render(&self, speech: &Speech<'_>, limit: TextLimit) -> Vec<Content> {
        let whole = self.whole(speech);
        if limit.fits(&whole.text) {
            return vec![whole];
        }
        let front = format!("{}{}", speech.late_mark(), self.front(speech));
        let room = limit.max.saturating_sub(limit.unit.length(&front));
        let limit = TextLimit { max: room, ..limit };
        let parts = parts(&self.text(speech), limit).into_iter();
        parts
            .map(|part| content(speech, format!("{front}{part}")))
            .collect()
    }
}

/// Cuts a text behind blanks where it can, and never inside a character as people see it, unless that is too long by itself.
fn parts(text: &str, limit: TextLimit) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    for word in text.split_word_bounds() {
        if !limit.fits(&format!("{part}{word}")) && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
        }
        if limit.fits(word) {
            part.push_str(word);
            continue;
        }
        for grapheme in word.graphemes(true) {
            let pieces: Vec<String> = if limit.fits(grapheme) {
                vec![grapheme.to_owned()]
            } else {
                grapheme.chars().map(String::from).collect()
            };
            for piece in pieces {
                if !limit.fits(&format!("{part}{piece}")) && !part.is_empty() {
                    parts.push(std::mem::take(&mut part));
                }
                part.push_str(&piece);
            }
        }
    }
    parts.push(part);
    // The blanks at a cut would only begin or end a message.
    let parts = parts.iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{capabilities::LengthUnit, message::Sender, text::Body};

    const PLAIN: Plain = Plain {
        escape: str::to_owned,
    };

    fn texts(attribution: Attribution, text: &str, style: Style, max: usize) -> Vec<String> {
        let sender = Sender {
            id: "@ann:example.org".to_owned(),
            name: "Ann".to_owned(),
            avatar: None,
        };
        let body = Body::plain(text);
        let speech = Speech {
            sender: &sender,
            attribution,
            kind: SpeechKind::Said(style),
            body: &body,
            late: false,
            reply_mark: "",
            edit_mark: "",
        };
        let unit = LengthUnit::Utf16;
        let contents = PLAIN.render(&speech, TextLimit { max, unit });
        let contents = contents.into_iter();
        contents.map(|content| content.text).collect()
    }

    #[test]
    fn the_author_stands_in_the_text_where_the_side_has_no_other_place() {
        let text = |attribution, style| texts(attribution, "waves", style, 100);
        assert_eq!(text(Attribution::Inline, Style::Text), ["Ann: waves"]);
        assert_eq!(text(Attribution::Inline, Style::Emote), ["* Ann waves"]);
        assert_eq!(text(Attribution::Override, Style::Emote), ["waves"]);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_words_and_names_the_author_each_time() {
        let inline = |text| texts(Attribution::Inline, text, Style::Text, 12);
        assert_eq!(inline("one two three"), ["Ann: one two", "Ann: three"]);
        assert_eq!(inline("abcdefghij"), ["Ann: abcdefg", "Ann: hij"]);
        let family = "👨‍👩‍👧‍👦";
        let families = texts(Attribution::Override, &family.repeat(3), Style::Text, 24);
        assert_eq!(families, [family.repeat(2), family.to_owned()]);
        let marks = format!("a{}", "\u{301}".repeat(20));
        let cut = texts(Attribution::Override, &marks, Style::Text, 4);
        assert_eq!(cut.concat(), Body::plain(&marks).to_plain());
        assert!(cut.len() > 1 && cut.iter().all(|part| part.chars().count() <= 4));
    }
}
