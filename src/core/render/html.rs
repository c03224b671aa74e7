//! Plain text and HTML of the Matrix specification, with the author's name in front.

use super::{Renderer, Speech, SpeechKind};
use crate::{
    capabilities::TextLimit,
    message::{Sender, Style},
    names,
    outlet::Content,
    text::{Block, Body, Inline, html_from_body, split_body},
};

/// The start of a name in the text that clients may omit, because they show the author beside it (MSC4144).
pub const PROFILE_FALLBACK: &str = "<strong data-mx-profile-fallback>";
/// The bytes of a content besides its text.
const FRAME_BYTES: usize = 1_500;

/// Plain text and HTML of the Matrix specification.
#[derive(Debug)]
pub struct Html;

impl Renderer for Html {
    fn whole(&self, speech: &Speech<'_>) -> Content {
        if speech.is_by_own_account() {
            return own(speech, speech.body);
        }
        match (speech.author(), speech.kind) {
            (Some(sender), SpeechKind::Said(style)) => {
                named(speech.body, sender, style, speech.late)
            }
            (Some(sender), SpeechKind::Summary) => summary(speech, sender),
            (_, SpeechKind::Notice) | (None, _) => unnamed(speech.body),
        }
    }

    fn render(&self, speech: &Speech<'_>, limit: TextLimit) -> Vec<Content> {
        let size = |block: &Block| {
            let alone = Body(vec![block.clone()]);
            json_length(&alone.to_plain()) + json_length(&html_from_body(&alone)) + 16
        };
        let split = |frame| split_body(speech.body, limit.max.saturating_sub(frame), &size);
        match (speech.author(), speech.kind) {
            (Some(sender), SpeechKind::Said(style)) => {
                let name = names::display_name(&sender.name, &sender.id);
                let parts = split(FRAME_BYTES + 12 * name.len());
                let parts = parts.iter();
                parts
                    .map(|part| named(part, sender, style, speech.late))
                    .collect()
            }
            (None, SpeechKind::Said(_)) if speech.is_by_own_account() => {
                let parts = split(FRAME_BYTES);
                parts.iter().map(|part| own(speech, part)).collect()
            }
            _ => vec![self.whole(speech)],
        }
    }
}

/// A text, or a part of it, that is posted by the account of its sender.
fn own(speech: &Speech<'_>, body: &Body) -> Content {
    let mark = speech.late_mark();
    let style = match speech.kind {
        SpeechKind::Said(style) => style,
        SpeechKind::Summary => Style::Emote,
        SpeechKind::Notice => Style::Notice,
    };
    let is_bare = match &*body.0 {
        [] => true,
        [Block::Paragraph(line)] => line
            .iter()
            .all(|inline| matches!(inline, Inline::Text(_) | Inline::Break)),
        _ => false,
    };
    Content {
        mentions: body.pinged(),
        author: None,
        text: format!("{mark}{}", body.to_plain()),
        html: (!is_bare).then(|| format!("{mark}{}", inline_html(body))),
        style,
    }
}

/// A text of the bridge itself.
fn unnamed(body: &Body) -> Content {
    Content {
        mentions: Vec::new(),
        author: None,
        text: body.to_plain(),
        html: None,
        style: Style::Notice,
    }
}

/// An action of the sender that cannot be shown as what it is.
fn summary(speech: &Speech<'_>, sender: &Sender) -> Content {
    let content = named(speech.body, sender, Style::Emote, speech.late);
    Content {
        mentions: Vec::new(),
        author: content.author,
        text: content.text.trim_start_matches("* ").to_owned(),
        html: content
            .html
            .map(|html| html.trim_start_matches("* ").to_owned()),
        style: Style::Notice,
    }
}

/// A text with its sender's name in front. `late` marks one that may come after later messages.
fn named(body: &Body, sender: &Sender, style: Style, late: bool) -> Content {
    let name = names::bidi_isolate(&names::display_name(&sender.name, &sender.id));
    let late = if late { " (delayed)" } else { "" };
    let name = format!("{name}{late}");
    let name_html = html_name(&name);
    let (text, html) = match style {
        Style::Text | Style::Notice => (
            format!("{name}: "),
            format!("{PROFILE_FALLBACK}{name_html}: </strong>"),
        ),
        Style::Emote => (
            format!("* {name} "),
            format!("* <strong>{name_html}</strong> "),
        ),
    };
    // Blocks start below the name; a paragraph follows it on the same line.
    let starts_inline = matches!(body.0.first(), Some(Block::Paragraph(_)));
    let plain = body.to_plain();
    let gap = if starts_inline { "" } else { "\n" };
    Content {
        mentions: body.pinged(),
        author: Some(Sender {
            id: sender.id.clone(),
            name,
            avatar: sender.avatar.clone(),
        }),
        text: format!("{text}{gap}{plain}"),
        html: Some(format!("{html}{}", inline_html(body))),
        // An emote would read as an action of the bridge's account instead of its author.
        style: if style == Style::Notice {
            Style::Notice
        } else {
            Style::Text
        },
    }
}

/// A name as HTML.
#[must_use]
pub fn html_name(name: &str) -> String {
    let name = Inline::Text(name.to_owned());
    html_from_body(&Body(vec![Block::Paragraph(vec![name])]))
}

/// The body's HTML for use after a name: the first paragraph gets no line of its own.
fn inline_html(body: &Body) -> String {
    match body.0.split_first() {
        Some((first @ Block::Paragraph(_), rest)) if !rest.is_empty() => format!(
            "{}{}",
            html_from_body(&Body(vec![first.clone()])),
            if let [Block::Paragraph(_)] = rest {
                format!("<p>{}</p>", html_from_body(&Body(rest.to_vec())))
            } else {
                html_from_body(&Body(rest.to_vec()))
            }
        ),
        _ => html_from_body(body),
    }
}

/// The length of a string in JSON, in bytes.
#[must_use]
pub fn json_length(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum::<usize>()
        + 2
}
