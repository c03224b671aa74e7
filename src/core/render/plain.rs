//! Plain text. The author stands beside it.

use super::{Renderer, Speech, SpeechKind};
use crate::{capabilities::TextLimit, message::Style, outlet::Content};

/// Plain text, made harmless by a rule of the side. It is never cut.
#[derive(Debug)]
pub struct Plain {
    /// Takes from a text what the side would read as more than text.
    pub escape: fn(&str) -> String,
}

impl Renderer for Plain {
    fn whole(&self, speech: &Speech<'_>) -> Content {
        let text = (self.escape)(&speech.body.to_plain());
        let (late, reply, edit) = (speech.late_mark(), speech.reply_mark, speech.edit_mark);
        Content {
            text: format!("{late}{reply}{text}{edit}"),
            html: None,
            style: match speech.kind {
                SpeechKind::Said(style) => style,
                SpeechKind::Summary => Style::Emote,
                SpeechKind::Notice => Style::Notice,
            },
            author: speech.author().cloned(),
            mentions: Vec::new(),
        }
    }

    fn render(&self, speech: &Speech<'_>, _limit: TextLimit) -> Vec<Content> {
        vec![self.whole(speech)]
    }
}
