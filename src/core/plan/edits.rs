//! The steps of an edit: the messages get the new text while the side allows it, and its files change with it.

use footbridge_store::{Copy, RemoteId};

use super::{
    Planner, Position, delete,
    files::{captioned, named},
};
use crate::{
    capabilities::{Edits, FileText, Files},
    file::File,
    outlet::{Content, Outgoing, Step},
    render::Speech,
};

impl Planner<'_> {
    /// The steps of an edit of a message that has copies.
    pub(super) fn edit(&self, speech: &Speech<'_>) -> Vec<Step> {
        let files = &self.outgoing.message.files;
        match (self.can.edits, self.can.files) {
            (Edits::AsPost { mark }, _) => {
                let edit_mark = if speech.sender.is_bridge() { "" } else { mark };
                let speech = Speech {
                    edit_mark,
                    ..*speech
                };
                self.named_posts(&speech, files, &Position::default())
            }
            (_, Files::Upload { text, .. }) => match text {
                FileText::Apart => self.edit_one_by_one(speech),
                FileText::WithFirst { .. } if has_other_files(self.outgoing) => {
                    let copies = &self.outgoing.copies;
                    let thread = copies.first().and_then(|copy| copy.thread.as_ref());
                    let mut steps = self.new_message(speech, &Position::in_thread(thread));
                    steps.extend(copies.iter().map(|copy| delete(copy, true)));
                    steps
                }
                FileText::WithFirst { .. } => self.edit_with_files(speech),
            },
            (_, Files::Named) => {
                let (body, kind) = named(speech, files);
                let texts = copies_with_text(&self.outgoing.copies, 0);
                self.edit_texts(&speech.saying(&body, kind), &texts)
            }
        }
    }

    /// A new text where the first file carries it, or did.
    fn edit_with_files(&self, speech: &Speech<'_>) -> Vec<Step> {
        let (copies, files) = (&self.outgoing.copies, &self.outgoing.message.files);
        let first = copies.first();
        let (body, kind) = match first.and_then(|copy| carried_by(copy, files)) {
            Some(file) if first.is_some_and(Copy::is_file_placeholder) => {
                named(speech, std::slice::from_ref(file))
            }
            Some(file) => captioned(speech, file),
            None => named(speech, files),
        };
        let texts = copies_with_text(copies, files.len());
        self.edit_texts(&speech.saying(&body, kind), &texts)
    }

    /// While the side allows it, the copies get the new text, part by part; surplus copies are deleted, missing ones are posted. Later,
    /// the new text is posted with a link to the old one, which stays.
    fn edit_texts(&self, speech: &Speech<'_>, copies: &[Copy]) -> Vec<Step> {
        let link = self.outgoing.permalink.as_deref();
        let limit = self.can.limits.edit;
        let parts = self.can.renderer.render_edit(speech, limit, link);
        let thread = copies.first().and_then(|copy| copy.thread.as_ref());
        let at = Position::in_thread(thread);
        if !copies
            .iter()
            .take(parts.len())
            .all(|copy| self.may_edit(copy))
        {
            let pointing = parts.into_iter().map(|part| part.pointing);
            return pointing.map(|content| at.clone().post(content)).collect();
        }
        let mut copies = copies.iter();
        let mut steps: Vec<Step> = parts
            .into_iter()
            .map(|part| match copies.next() {
                Some(copy) => Step::Edit {
                    target: copy.remote.clone(),
                    content: part.replacing,
                    is_caption: false,
                    fallback: Some(Box::new(at.clone().post(part.pointing))),
                },
                None => at.clone().post(part.replacing),
            })
            .collect();
        steps.extend(copies.map(|copy| delete(copy, true)));
        steps
    }

    /// Whether the side still allows an edit of a message, as far as that is known beforehand.
    pub(super) fn may_edit(&self, copy: &Copy) -> bool {
        match self.can.edits {
            Edits::Limited {
                within: Some(limit),
            } => self.now.since(copy.sent_at) < limit,
            Edits::Always | Edits::Limited { within: None } => true,
            Edits::AsPost { .. } => false,
        }
    }

    /// The steps where text and files are messages of their own: the text is changed in its message, files that the message no longer
    /// has are deleted, and new files are sent.
    pub(super) fn edit_one_by_one(&self, speech: &Speech<'_>) -> Vec<Step> {
        let (copies, files) = (&self.outgoing.copies, &self.outgoing.message.files);
        let digests: Vec<String> = files.iter().map(File::digest).collect();
        let (words, carriers) = split_by_kind(copies, &digests);
        let thread = copies.first().and_then(|copy| copy.thread.as_ref());
        let kept = carriers.iter().find(|(_, file)| digests.contains(file));
        let anew = || self.can.renderer.render(speech, self.can.limits.edit);
        let mut steps = match kept {
            // The text, if there is any, is the caption of the first file.
            Some((copy, file)) if words.is_empty() => {
                let own = files
                    .iter()
                    .zip(&digests)
                    .find(|(_, digest)| *digest == file);
                let caption = self.caption(speech);
                let elsewhere = caption.is_none() && !speech.body.is_empty();
                let below = own.map(|(file, _)| {
                    if copy.is_file_placeholder() {
                        self.edit_of_named(speech, copy, file, caption.is_some())
                    } else {
                        self.edit_of_caption(speech, copy, file, caption)
                    }
                });
                let anew = elsewhere.then(anew).unwrap_or_default();
                let anew = texts(std::iter::empty(), thread, anew);
                below.into_iter().chain(anew).collect()
            }
            _ if speech.body.is_empty() && !files.is_empty() => {
                texts(words.into_iter(), thread, Vec::new())
            }
            _ => texts(words.into_iter(), thread, anew()),
        };
        let dropped = carriers.iter().filter(|(_, file)| !digests.contains(file));
        steps.extend(dropped.map(|(copy, _)| delete(copy, false)));
        let added = files.iter().zip(&digests).filter(|(_, digest)| {
            let mut known = carriers.iter();
            !known.any(|(_, file)| file == *digest)
        });
        let at = Position::in_thread(thread);
        steps.extend(added.map(|(file, _)| self.file_alone(speech, file, at.clone())));
        steps
    }

    /// New text with the line that names a file which could not be sent.
    fn edit_of_named(
        &self,
        speech: &Speech<'_>,
        copy: &Copy,
        file: &File,
        has_caption: bool,
    ) -> Step {
        let content = if has_caption {
            self.named_caption(speech, file)
        } else {
            self.named_alone(speech, file)
        };
        edit_step(copy, content)
    }

    /// A new caption below a file, or the file's name where there is no caption any more.
    fn edit_of_caption(
        &self,
        speech: &Speech<'_>,
        copy: &Copy,
        file: &File,
        caption: Option<Content>,
    ) -> Step {
        let at = Position::in_thread(copy.thread.as_ref());
        let fallback = caption.clone().map(|content| Box::new(at.post(content)));
        Step::Edit {
            target: copy.remote.clone(),
            content: caption.unwrap_or_else(|| self.file_name(speech, file)),
            is_caption: true,
            fallback,
        }
    }
}

fn edit_step(copy: &Copy, content: Content) -> Step {
    Step::Edit {
        target: copy.remote.clone(),
        content,
        is_caption: false,
        fallback: None,
    }
}

/// Whether an edit removed or replaced files of a message. No message can change its file: the message is posted again then.
fn has_other_files(outgoing: &Outgoing) -> bool {
    let mut old = Vec::new();
    for copy in &outgoing.copies {
        match &copy.file {
            Some(file) if file.is_empty() => {}
            Some(file) => old.push(file.trim_start_matches(Copy::UNSENT_FILE_PREFIX).to_owned()),
            None => return false,
        }
    }
    let mut new: Vec<_> = outgoing.message.files.iter().map(File::digest).collect();
    // A different order is no reason to post them again.
    old.sort_unstable();
    new.sort_unstable();
    new != old
}

/// The file that a copy has or names; the first file where that is unknown.
fn carried_by<'a>(copy: &Copy, files: &'a [File]) -> Option<&'a File> {
    let known = copy.file.as_deref().unwrap_or_default();
    let digest = known.trim_start_matches(Copy::UNSENT_FILE_PREFIX);
    let found = files.iter().find(|file| file.digest() == digest);
    found.or(files.first())
}

/// The copies that contain text: the first one, whose file has the text as its caption, and those without a file. Where the copies do
/// not record their files, the last ones are taken for the files after the first.
fn copies_with_text(copies: &[Copy], files: usize) -> Vec<Copy> {
    if copies.iter().all(|copy| copy.file.is_some()) {
        let mut first = true;
        let has_words = |copy: &&Copy| {
            let is_text = copy.file.as_ref().is_some_and(String::is_empty);
            std::mem::take(&mut first) || is_text
        };
        return copies.iter().filter(has_words).cloned().collect();
    }
    let texts = copies.len().saturating_sub(files.saturating_sub(1)).max(1);
    copies.iter().take(texts).cloned().collect()
}

/// The copies with text, and those with files, each with its file. If that is unknown for some copies, the last of these have the
/// files.
fn split_by_kind<'a>(
    copies: &'a [Copy],
    digests: &[String],
) -> (Vec<&'a Copy>, Vec<(&'a Copy, String)>) {
    let (mut words, mut carriers) = (Vec::new(), Vec::new());
    let unknown = copies.iter().filter(|copy| copy.file.is_none()).count();
    let mut passed = unknown.saturating_sub(digests.len());
    let mut by_place = digests.iter();
    for copy in copies {
        match &copy.file {
            Some(file) if file.is_empty() => words.push(copy),
            Some(file) => carriers.push((
                copy,
                file.trim_start_matches(Copy::UNSENT_FILE_PREFIX).to_owned(),
            )),
            None if passed > 0 => {
                passed -= 1;
                words.push(copy);
            }
            None => match by_place.next() {
                Some(file) => carriers.push((copy, file.clone())),
                None => words.push(copy),
            },
        }
    }
    (words, carriers)
}

/// Edits existing copies, posts missing ones, and deletes surplus ones.
fn texts<'a>(
    mut copies: impl Iterator<Item = &'a Copy>,
    thread: Option<&RemoteId>,
    contents: Vec<Content>,
) -> Vec<Step> {
    let at = Position::in_thread(thread);
    let mut steps: Vec<Step> = contents
        .into_iter()
        .map(|content| match copies.next() {
            Some(copy) => edit_step(copy, content),
            None => at.clone().post(content),
        })
        .collect();
    steps.extend(copies.map(|copy| delete(copy, false)));
    steps
}
