//! The steps of a new message with its files.

use std::borrow::Cow;

use super::{NOTHING, Planner, Position};
use crate::{
    capabilities::{FileText, Files},
    file::File,
    message::Style,
    outlet::{Content, Step},
    render::{Speech, SpeechKind},
    text::{Block, Body, Inline},
};

impl Planner<'_> {
    /// The steps of a new message: its text and its files.
    pub(super) fn new_message(&self, speech: &Speech<'_>, at: &Position) -> Vec<Step> {
        let files = &self.outgoing.message.files;
        match self.can.files {
            Files::Upload {
                text: FileText::Apart,
                ..
            } => self.text_and_files(speech, at),
            Files::Upload {
                max,
                text: FileText::WithFirst { bare },
            } if !files.is_empty() => {
                let wordless = Speech {
                    body: &NOTHING,
                    ..*speech
                };
                let speeches = std::iter::once(*speech).chain(std::iter::repeat(wordless));
                let each = files.iter().zip(speeches);
                each.flat_map(|(file, speech)| {
                    let is_too_large = max.zip(file.size).is_some_and(|(max, size)| size > max);
                    if is_too_large {
                        self.named_posts(&speech, std::slice::from_ref(file), at)
                    } else {
                        self.file_with_text(file, speech, bare, at)
                    }
                })
                .collect()
            }
            Files::Upload { .. } | Files::Named => self.named_posts(speech, files, at),
        }
    }

    /// A text that names these files.
    pub(super) fn named_posts(
        &self,
        speech: &Speech<'_>,
        files: &[File],
        at: &Position,
    ) -> Vec<Step> {
        let (body, kind) = named(speech, files);
        self.posts(&speech.saying(&body, kind), at)
    }

    /// A file with its text. Where the file is refused, one message has to stand in for it and for all of the text: a text that is too
    /// long for that follows by itself.
    fn file_with_text(
        &self,
        file: &File,
        mut speech: Speech<'_>,
        bare: bool,
        at: &Position,
    ) -> Vec<Step> {
        let only = std::slice::from_ref(file);
        let (mut instead, mut apart) = (self.named_posts(&speech, only, at), Vec::new());
        if instead.len() > 1 || self.contents_below(&speech, file, bare).len() > 1 {
            apart = self.posts(&speech, at);
            speech.body = &NOTHING;
            instead = self.named_posts(&speech, only, at);
        }
        let contents = self.contents_below(&speech, file, bare);
        let sent = contents.into_iter().take(1).zip(at.each());
        let sent = sent.map(|(content, at)| send(file, content, at, instead.first().cloned()));
        sent.chain(apart).collect()
    }

    /// The text that goes with a file.
    fn contents_below(&self, speech: &Speech<'_>, file: &File, bare: bool) -> Vec<Content> {
        let limit = self.can.limits.caption;
        if bare && speech.body.is_empty() {
            let unmarked = Speech {
                late: false,
                reply_mark: "",
                ..*speech
            };
            return self.can.renderer.render(&unmarked, limit);
        }
        let (body, kind) = captioned(speech, file);
        self.can.renderer.render(&speech.saying(&body, kind), limit)
    }

    /// The text, followed by the files; a single file with its text as the caption. The first of them is the reply.
    fn text_and_files(&self, speech: &Speech<'_>, at: &Position) -> Vec<Step> {
        let files = &self.outgoing.message.files;
        if let [file] = files.as_slice()
            && let Some(content) = self.caption(speech)
        {
            let instead = at.clone().post(self.named_caption(speech, file));
            return vec![send(file, content, at.clone(), Some(instead))];
        }
        let texts = if speech.body.is_empty() && !files.is_empty() {
            Vec::new()
        } else {
            self.can.renderer.render(speech, self.can.limits.text)
        };
        let mut positions = at.each();
        let texts = texts.into_iter().zip(positions.by_ref());
        let mut steps: Vec<Step> = texts.map(|(content, at)| at.post(content)).collect();
        let files = files.iter().zip(positions);
        steps.extend(files.map(|(file, at)| self.file_alone(speech, file, at)));
        steps
    }

    /// A file without text. Where it cannot be sent, a line names it.
    pub(super) fn file_alone(&self, speech: &Speech<'_>, file: &File, at: Position) -> Step {
        let content = self.file_name(speech, file);
        let instead = at.clone().post(self.named_alone(speech, file));
        send(file, content, at, Some(instead))
    }

    /// The text as a caption; `None` where there is none, or it is too long.
    pub(super) fn caption(&self, speech: &Speech<'_>) -> Option<Content> {
        if speech.body.is_empty() || speech.kind != SpeechKind::Said(Style::Text) {
            return None;
        }
        let limit = self.can.limits.caption;
        let mut contents = self.can.renderer.render(speech, limit);
        let content = contents.pop()?;
        contents.is_empty().then_some(content)
    }

    /// A caption and a line that names its file.
    pub(super) fn named_caption(&self, speech: &Speech<'_>, file: &File) -> Content {
        let mut named = speech.body.clone();
        let line = format!("📎 {}", file.in_words());
        named.0.push(Block::Paragraph(vec![Inline::Text(line)]));
        self.whole(&speech.saying(&named, speech.kind))
    }

    /// A line that names a file.
    pub(super) fn named_alone(&self, speech: &Speech<'_>, file: &File) -> Content {
        let line = Body::plain(&format!("sent {}", file.in_words()));
        self.whole(&speech.saying(&line, SpeechKind::Summary))
    }

    /// The name of a file as its text.
    pub(super) fn file_name(&self, speech: &Speech<'_>, file: &File) -> Content {
        let name = Body::plain(&file.safe_name());
        self.whole(&speech.saying(&name, SpeechKind::Said(Style::Text)))
    }

    pub(super) fn whole(&self, speech: &Speech<'_>) -> Content {
        self.can.renderer.whole(speech)
    }
}

fn send(file: &File, content: Content, at: Position, fallback: Option<Step>) -> Step {
    Step::SendFile {
        file: file.clone(),
        content,
        thread: at.thread,
        reply_to: at.reply_to,
        fallback: fallback.map(Box::new),
    }
}

/// The text where files cannot be sent: a line below the text names each file, or that line alone.
pub(super) fn named<'a>(speech: &Speech<'a>, files: &[File]) -> (Cow<'a, Body>, SpeechKind) {
    if files.is_empty() {
        return (Cow::Borrowed(speech.body), speech.kind);
    }
    if speech.body.is_empty() {
        let mut line = vec![Inline::Text("sent ".to_owned())];
        for (number, file) in files.iter().enumerate() {
            if number > 0 {
                line.push(Inline::Text(", ".to_owned()));
            }
            line.push(file_line(file));
        }
        let body = Body(vec![Block::Paragraph(line)]);
        return (Cow::Owned(body), SpeechKind::Said(Style::Emote));
    }
    let mut body = speech.body.clone();
    for file in files {
        let mark = Inline::Text("📎 ".to_owned());
        body.0.push(Block::Paragraph(vec![mark, file_line(file)]));
    }
    (Cow::Owned(body), speech.kind)
}

/// A file described in words, as a link to it if there is one.
fn file_line(file: &File) -> Inline {
    let words = Inline::Text(file.in_words());
    match &file.link {
        Some(link) => Inline::Link {
            href: link.clone(),
            label: vec![words],
        },
        None => words,
    }
}

/// The text that goes with a file that is sent: its caption, or that it was sent.
pub(super) fn captioned<'a>(speech: &Speech<'a>, file: &File) -> (Cow<'a, Body>, SpeechKind) {
    if speech.body.is_empty() {
        let body = Body::plain(&format!("sent {}", file.kind.in_words()));
        (Cow::Owned(body), SpeechKind::Said(Style::Emote))
    } else {
        (Cow::Borrowed(speech.body), speech.kind)
    }
}
