//! What an edit takes: the posts get the new text while the silo allows it, and are said anew where their file is another one.

use footbridge_core::{
    file::File,
    outlet::{Outgoing, Plan, Step},
};
use footbridge_store::{Copy, Millis, RemoteId};

use super::{AuthoredText, content, post, posts};

/// Whether an edit took files of a message away, or gave it others. No post changes its files: the message is said anew then.
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
    // Another order is no reason to say them anew.
    old.sort_unstable();
    new.sort_unstable();
    new != old
}

/// The file that a copy carries, or names; the first where that is not known.
pub(super) fn carried_by<'a>(copy: &Copy, files: &'a [File]) -> Option<&'a File> {
    let known = copy.file.as_deref().unwrap_or_default();
    let digest = known.trim_start_matches(Copy::UNSENT_FILE_PREFIX);
    let found = files.iter().find(|file| file.digest() == digest);
    found.or(files.first())
}

/// The copies that carry words: the first, below whose file they stand, and those without a file. Where copies do not say what
/// they carry, the last ones are the files behind the first.
pub(super) fn with_private_suffix(copies: &[Copy], files: usize) -> Vec<Copy> {
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

/// Both plans, one behind the other.
pub(super) fn and_then(first: Plan, second: Plan) -> Plan {
    match (first, second) {
        (Plan::Steps(mut steps), Plan::Steps(more)) => {
            steps.extend(more);
            Plan::Steps(steps)
        }
        (first, _) => first,
    }
}

/// While the silo allows it, the copies get the new text, part by part; parts too many are deleted, parts too few
/// are posted. Later the new text is posted and points to the old one, which stays.
pub(super) fn edits(
    speech: &AuthoredText<'_>,
    copies: &[Copy],
    now: Millis,
    permalink: impl Fn(&RemoteId) -> String,
) -> Plan {
    let Some(first) = copies.first() else {
        return Plan::Skip("unknown-target".to_owned());
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
        return Plan::Steps(posts(pointing, speech.spoken(), thread));
    }
    let mut steps = Vec::new();
    let mut copies = copies.iter();
    for (text, pointing) in parts {
        steps.push(match copies.next() {
            Some(copy) => Step::Edit {
                target: copy.remote.clone(),
                content: content(text, speech.spoken()),
                is_caption: false,
                fallback: Some(Box::new(post(pointing, speech.spoken(), thread))),
            },
            None => post(text, speech.spoken(), thread),
        });
    }
    steps.extend(copies.map(|copy| Step::Delete {
        target: copy.remote.clone(),
        by_edit: true,
    }));
    Plan::Steps(steps)
}
