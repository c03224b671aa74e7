//! The steps of an edit in a room: the text is changed in its event, files that the message no longer has are redacted,
//! and new files are sent.

use footbridge_core::{
    file::File,
    message::{Sender, Style},
    outlet::{Content, Outgoing, Step},
    text::Body,
};
use footbridge_store::{Copy, RemoteId};

use super::{
    CAPABILITIES,
    caption::{self, caption, caption_edit_step},
    write::{contents, sent_file, summary_content},
};

/// The steps of an edit.
pub(super) fn steps(outgoing: &Outgoing, text: (&Body, &Sender, Style)) -> Vec<Step> {
    let (body, sender, style) = text;
    let files = &outgoing.message.files;
    let digests: Vec<String> = files.iter().map(File::digest).collect();
    let (words, carriers) = split_by_kind(&outgoing.copies, &digests);
    let thread = outgoing
        .copies
        .first()
        .and_then(|copy| copy.thread.as_ref());
    let kept = carriers.iter().find(|(_, file)| digests.contains(file));
    let late = outgoing.late;
    let anew = || contents(body, sender, style, late, CAPABILITIES.limits.edit.max);
    let mut steps = match kept {
        // The text, if there is any, is the caption of the first file.
        Some((copy, file)) if words.is_empty() => {
            let own = files
                .iter()
                .zip(&digests)
                .find(|(_, digest)| *digest == file);
            let caption = caption(outgoing, text);
            let elsewhere = caption.is_none() && !body.is_empty();
            let below = own.map(|(file, _)| {
                if copy.is_file_placeholder() {
                    named(copy, outgoing, text, file)
                } else {
                    caption_edit_step(copy, file, sender, (caption, late))
                }
            });
            let anew = elsewhere.then(anew).unwrap_or_default();
            let anew = texts(std::iter::empty(), thread, anew);
            below.into_iter().chain(anew).collect()
        }
        _ if body.is_empty() && !files.is_empty() => texts(words.into_iter(), thread, Vec::new()),
        _ => texts(words.into_iter(), thread, anew()),
    };
    let dropped = carriers.iter().filter(|(_, file)| !digests.contains(file));
    steps.extend(dropped.map(|(copy, _)| Step::Delete {
        target: copy.remote.clone(),
        by_edit: false,
    }));
    let added = files.iter().zip(&digests).filter(|(_, digest)| {
        let mut known = carriers.iter();
        !known.any(|(_, file)| file == *digest)
    });
    steps.extend(added.map(|(file, _)| sent_file(file, sender, late, thread)));
    steps
}

/// The steps that replace the message and its files by a notice of the bridge.
pub(super) fn bridge_notice_steps(copies: &[Copy], content: Content) -> Vec<Step> {
    let (words, carriers) = split_by_kind(copies, &[]);
    let thread = copies.first().and_then(|copy| copy.thread.as_ref());
    let mut steps = texts(words.into_iter(), thread, vec![content]);
    steps.extend(carriers.into_iter().map(|(copy, _)| Step::Delete {
        target: copy.remote.clone(),
        by_edit: false,
    }));
    steps
}

/// New text with the line that names a file which could not be sent.
fn named(copy: &Copy, outgoing: &Outgoing, text: (&Body, &Sender, Style), file: &File) -> Step {
    let content = caption::named(outgoing, text, file).unwrap_or_else(|| {
        summary_content(&format!("sent {}", file.in_words()), text.1, outgoing.late)
    });
    Step::Edit {
        target: copy.remote.clone(),
        content,
        is_caption: false,
        fallback: None,
    }
}

/// The copies with text, and those with files, each with its file. If that is unknown for some copies, the last of
/// these have the files.
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
pub(super) fn texts<'a>(
    copies: impl Iterator<Item = &'a Copy>,
    thread: Option<&RemoteId>,
    contents: Vec<Content>,
) -> Vec<Step> {
    let mut copies = copies;
    let mut steps: Vec<Step> = contents
        .into_iter()
        .map(|content| match copies.next() {
            Some(copy) => Step::Edit {
                target: copy.remote.clone(),
                content,
                is_caption: false,
                fallback: None,
            },
            None => Step::Post {
                content,
                thread: thread.cloned(),
                reply_to: None,
            },
        })
        .collect();
    steps.extend(copies.map(|copy| Step::Delete {
        target: copy.remote.clone(),
        by_edit: false,
    }));
    steps
}
