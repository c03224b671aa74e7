//! The steps of an edit: the posts get the new text while the silo allows it; where the files changed, the message is
//! posted again.

use footbridge_core::{
    file::File,
    outlet::{Outgoing, Plan, Step},
};
use footbridge_store::{Copy, Millis, RemoteId, SkipRule};

use super::{AuthoredText, content, post, posts};

/// Whether an edit removed or replaced files of a message. No post can change its files: the message is posted again
/// then.
pub(super) fn has_other_files(outgoing: &Outgoing) -> bool {
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
pub(super) fn carried_by<'a>(copy: &Copy, files: &'a [File]) -> Option<&'a File> {
    let known = copy.file.as_deref().unwrap_or_default();
    let digest = known.trim_start_matches(Copy::UNSENT_FILE_PREFIX);
    let found = files.iter().find(|file| file.digest() == digest);
    found.or(files.first())
}

/// The copies that contain text: the first one, whose file has the text as its caption, and those without a file. Where
/// the copies do not record their files, the last ones are taken for the files after the first.
pub(super) fn copies_with_text(copies: &[Copy], files: usize) -> Vec<Copy> {
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

/// Both plans, one after the other.
pub(super) fn and_then(first: Plan, second: Plan) -> Plan {
    match (first, second) {
        (Plan::Steps(mut steps), Plan::Steps(more)) => {
            steps.extend(more);
            Plan::Steps(steps)
        }
        (first, _) => first,
    }
}

/// While the silo allows it, the copies get the new text, part by part; surplus copies are deleted, missing ones are
/// posted. Later, the new text is posted with a link to the old one, which stays.
pub(super) fn edits(
    speech: &AuthoredText<'_>,
    copies: &[Copy],
    now: Millis,
    permalink: impl Fn(&RemoteId) -> String,
) -> Plan {
    let Some(first) = copies.first() else {
        return Plan::Skip(SkipRule::UnknownTarget);
    };
    let opening = format!("Edit of {}\n", permalink(&first.remote));
    let parts = speech.edited_parts(&opening);
    let thread = first.thread.as_ref();
    let editable = copies.iter().take(parts.len()).all(|copy| {
        let limit = speech.rules.editable;
        limit.is_none_or(|limit| now.since(copy.sent_at) < limit)
    });
    if !editable {
        let pointing = parts.into_iter().map(|(_, pointing)| pointing).collect();
        return Plan::Steps(posts(pointing, speech.post_style(), thread));
    }
    let mut steps = Vec::new();
    let mut copies = copies.iter();
    for (text, pointing) in parts {
        steps.push(match copies.next() {
            Some(copy) => Step::Edit {
                target: copy.remote.clone(),
                content: content(text, speech.post_style()),
                is_caption: false,
                fallback: Some(Box::new(post(pointing, speech.post_style(), thread))),
            },
            None => post(text, speech.post_style(), thread),
        });
    }
    steps.extend(copies.map(|copy| Step::Delete {
        target: copy.remote.clone(),
        by_edit: true,
    }));
    Plan::Steps(steps)
}
