//! Neutral content as Markdown, cut into parts that fit. The author's name stands in front, unless it goes beside the text.

use std::borrow::Cow;

use footbridge_core::{
    capabilities::{Attribution, TextLimit},
    message::{Sender, Style},
    names,
    outlet::Content,
    render::{EditedContent, Renderer, Speech, SpeechKind},
};

use super::{Rules, joined, markdown_from_body, prefix, split_to};

/// The prefix of an emote whose author's name is outside of the text.
pub const ACTION_PREFIX: &str = "\\* ";

/// Markdown by the rules of one silo.
#[derive(Debug)]
pub struct Markdown(pub Rules);

impl Renderer for Markdown {
    fn whole(&self, speech: &Speech<'_>) -> Content {
        let written = Written::of(self.0, speech);
        written.content(written.whole())
    }

    fn render(&self, speech: &Speech<'_>, limit: TextLimit) -> Vec<Content> {
        let written = Written::of(self.0, speech);
        let whole = written.whole();
        let parts = if limit.fits(&whole) {
            vec![whole]
        } else {
            written.split_behind("", limit)
        };
        let parts = parts.into_iter();
        parts.map(|text| written.content(text)).collect()
    }

    fn render_edit(
        &self,
        speech: &Speech<'_>,
        limit: TextLimit,
        permalink: Option<&str>,
    ) -> Vec<EditedContent> {
        let written = Written::of(self.0, speech);
        let opening = permalink.map(|link| format!("Edit of {link}\n"));
        let opening = opening.unwrap_or_default();
        let whole = written.whole();
        let pointing = joined(&opening, &whole);
        let parts = if limit.fits(&pointing) {
            vec![(whole, pointing)]
        } else {
            let parts = written.split_behind(&opening, limit).into_iter();
            let unopened = |pointing: &str| {
                let text = pointing.strip_prefix(&opening).unwrap_or(pointing);
                text.trim_start_matches('\n').to_owned()
            };
            parts
                .map(|pointing| (unopened(&pointing), pointing))
                .collect()
        };
        let parts = parts.into_iter();
        parts
            .map(|(replacing, pointing)| EditedContent {
                replacing: written.content(replacing),
                pointing: written.content(pointing),
            })
            .collect()
    }
}

/// A speech in Markdown.
struct Written<'a> {
    mark: &'static str,
    /// The author in front of each part, and the mark of an emote.
    prefix: Cow<'static, str>,
    text: String,
    style: Style,
    /// The author, where the name is outside of the text.
    author: Option<&'a Sender>,
}

impl<'a> Written<'a> {
    fn of(rules: Rules, speech: &Speech<'a>) -> Self {
        let (shown_as, style) = match speech.kind {
            SpeechKind::Said(style) => (style, style),
            SpeechKind::Summary => (Style::Emote, Style::Notice),
            SpeechKind::Notice => (Style::Notice, Style::Notice),
        };
        let author = speech.author();
        let front = match author {
            Some(author) if speech.attribution != Attribution::Override => {
                let name = names::display_name(&author.name, &author.id);
                Cow::Owned(prefix(&name, shown_as, rules))
            }
            _ if shown_as == Style::Emote && (author.is_some() || speech.is_by_own_account()) => {
                Cow::Borrowed(ACTION_PREFIX)
            }
            _ => Cow::Borrowed(""),
        };
        let text = markdown_from_body(speech.body, rules);
        Self {
            mark: speech.late_mark(),
            prefix: front,
            text: format!("{}{text}{}", speech.reply_mark, speech.edit_mark),
            style,
            author: author.filter(|_| speech.attribution != Attribution::Inline),
        }
    }

    fn whole(&self) -> String {
        joined(self.mark, &joined(&self.prefix, &self.text))
    }

    /// As many texts as the limit requires, each with the name.
    fn split_behind(&self, opening: &str, limit: TextLimit) -> Vec<String> {
        let front = format!("{opening}{}{}", self.mark, self.prefix);
        split_to(&self.text, &front, limit)
    }

    fn content(&self, text: String) -> Content {
        Content {
            text,
            html: None,
            style: self.style,
            author: self.author.cloned(),
            mentions: Vec::new(),
        }
    }
}
