//! Reactions: the reactions of many people to a message, shown by one account. Pure: from who reacted with what, it computes what
//! must change in what is shown.

use footbridge_store::{Copy, Reaction, RemoteId, SkipRule};
use serde::{Deserialize, Serialize};

use crate::{
    names,
    outlet::{Content, Plan, Step},
    text::sanitized,
};

/// The longest reaction, in characters: a longer text is neither an emoji nor a word.
const LONGEST: usize = 64;
/// Selects the emoji presentation of a character. Some clients send it, others do not.
const EMOJI_STYLE: char = '\u{fe0f}';
/// How many people a summary line names for each emoji.
const NAMED: usize = 10;

/// One person's reaction, as it is stored (sealed) with the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReaction {
    /// An emoji or a word.
    pub key: String,
    /// The person's name.
    pub name: String,
    /// The person's id.
    pub user: String,
}

/// A reaction and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReactionState {
    /// The stored reaction.
    pub stored: StoredReaction,
    /// Whether it was removed.
    pub gone: bool,
    /// The copy that shows it, for all reactions that the same copy shows.
    pub shown: Option<Copy>,
    /// Whether a summary line shows it, with or without others.
    pub in_summary: bool,
}

impl ReactionState {
    /// From the row in the store; `None` where another version wrote it.
    #[must_use]
    pub fn of(row: Reaction) -> Option<Self> {
        Some(Self {
            stored: serde_json::from_slice(&row.payload).ok()?,
            gone: row.removed,
            shown: row.shown,
            in_summary: row.in_summary,
        })
    }
}

/// The normalised key of a reaction; `None` where the text is none. An emoji gets the form of the Unicode tables; a word stays on
/// one line.
#[must_use]
pub fn key(written: &str) -> Option<String> {
    let bare = written.trim().trim_end_matches(EMOJI_STYLE);
    if let Some(emoji) = emojis::get(bare).or_else(|| emojis::get(written.trim())) {
        return Some(emoji.as_str().to_owned());
    }
    let word = sanitized(bare)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let fits = word.chars().count() <= LONGEST && word.chars().any(|c| !c.is_whitespace());
    fits.then_some(word)
}

/// The plan for the reaction `key` in a place that has native reactions. `message` is the copy there, `unencrypted` goes into the step, and `is_same`
/// says which other keys look the same there.
#[must_use]
pub fn plan_native(
    reacted: &[ReactionState],
    key: &str,
    is_same: impl Fn(&str) -> bool,
    message: &RemoteId,
    unencrypted: bool,
) -> Plan {
    let alike = || {
        reacted
            .iter()
            .filter(|one| is_same(&one.stored.key) && !one.in_summary)
    };
    let wanted = alike().any(|one| !one.gone);
    let shown = alike().find_map(|one| one.shown.clone());
    match (wanted, shown) {
        (true, None) => Plan::Steps(vec![Step::React {
            target: message.clone(),
            key: key.to_owned(),
            unencrypted,
            is_marker: false,
        }]),
        (false, Some(shown)) => Plan::Steps(vec![Step::Unreact {
            shown: shown.remote,
        }]),
        (true, Some(_)) | (false, None) => Plan::Skip(SkipRule::ReactionAlreadyShown),
    }
}

/// The summary line of reactions, if there are any: `👍 Ann, Bob · 🎉 Cy`. `is_listed` says which keys it lists.
#[must_use]
pub fn summary_line(reacted: &[ReactionState], is_listed: impl Fn(&str) -> bool) -> Option<String> {
    let mut kinds: Vec<(&str, Vec<String>)> = Vec::new();
    let listed = reacted
        .iter()
        .filter(|one| !one.gone && is_listed(&one.stored.key));
    for ReactionState { stored, .. } in listed {
        let name = names::display_name(&stored.name, &stored.user);
        match kinds.iter_mut().find(|(key, _)| *key == stored.key) {
            Some((_, people)) => people.push(name),
            None => kinds.push((&stored.key, vec![name])),
        }
    }
    let kinds = kinds.into_iter().map(|(key, people)| {
        let more = people.len().saturating_sub(NAMED);
        let named: Vec<&str> = people.iter().take(NAMED).map(String::as_str).collect();
        let and_more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("{key} {}{and_more}", named.join(", "))
    });
    let line = kinds.collect::<Vec<_>>().join(" · ");
    (!line.is_empty()).then_some(line)
}

/// The plan where a summary line shows reactions. `line` is that line; `editable` says whether a copy may still be edited.
#[must_use]
pub fn plan_summary(
    reacted: &[ReactionState],
    line: Option<Content>,
    message: &Copy,
    editable: impl Fn(&Copy) -> bool,
) -> Plan {
    let shown = reacted
        .iter()
        .filter(|one| one.in_summary)
        .find_map(|one| one.shown.clone());
    let Some(content) = line else {
        return match shown {
            Some(shown) => Plan::Steps(vec![Step::Delete {
                target: shown.remote,
                by_edit: false,
            }]),
            None => Plan::Skip(SkipRule::ReactionAlreadyShown),
        };
    };
    let post = Step::Post {
        content: content.clone(),
        thread: Some(message.thread.clone().unwrap_or(message.remote.clone())),
        reply_to: None,
    };
    Plan::Steps(match shown {
        Some(shown) if editable(&shown) => vec![Step::Edit {
            target: shown.remote,
            content,
            is_caption: false,
            fallback: Some(Box::new(post)),
        }],
        _ => vec![post],
    })
}

#[cfg(test)]
mod tests {
    use footbridge_store::Millis;

    use super::*;
    use crate::message::Style;

    fn by(name: &str, key: &str) -> ReactionState {
        ReactionState {
            stored: StoredReaction {
                key: key.to_owned(),
                name: name.to_owned(),
                user: format!("@{name}:x"),
            },
            gone: false,
            shown: None,
            in_summary: false,
        }
    }

    fn gone(reacted: ReactionState) -> ReactionState {
        ReactionState {
            gone: true,
            ..reacted
        }
    }

    fn copy(id: &str) -> Copy {
        Copy {
            remote: RemoteId::from(id),
            thread: None,
            sent_at: Millis(0),
            file: None,
        }
    }

    fn shown(reacted: ReactionState, in_summary: bool) -> ReactionState {
        ReactionState {
            shown: Some(copy("shown")),
            in_summary,
            ..reacted
        }
    }

    #[test]
    fn emoji_have_one_form_and_texts_one_line() {
        for (written, expected) in [
            ("👍", Some("👍")),
            ("👍\u{fe0f}", Some("👍")),
            ("❤", Some("❤\u{fe0f}")),
            ("❤\u{fe0f}", Some("❤\u{fe0f}")),
            (" yes\n please ", Some("yes please")),
            ("\u{202e}no", Some("no")),
            ("", None),
            ("\u{fe0f}", None),
        ] {
            assert_eq!(key(written).as_deref(), expected, "{written:?}");
        }
        assert_eq!(key(&"x".repeat(65)), None);
    }

    #[test]
    fn c22_one_account_shows_each_emoji_once_until_nobody_uses_it() {
        let message = RemoteId::from("m");
        let plan = |reacted: &[ReactionState]| {
            let alike = |other: &str| other.starts_with('👍');
            plan_native(reacted, "👍", alike, &message, false)
        };
        let is_skipped = |reacted: &[ReactionState]| matches!(plan(reacted), Plan::Skip(rule) if rule == SkipRule::ReactionAlreadyShown);
        let first = plan(&[by("Ann", "👍")]);
        assert!(matches!(first, Plan::Steps(steps) if matches!(&steps[..], [Step::React { .. }])));
        assert!(is_skipped(&[
            shown(by("Ann", "👍"), false),
            by("Bob", "👍")
        ]));
        assert!(is_skipped(&[
            shown(gone(by("Ann", "👍")), false),
            by("Bob", "👍")
        ]));
        // A key that looks the same there counts as the same.
        assert!(is_skipped(&[
            shown(gone(by("Ann", "👍")), false),
            by("Bob", "👍🏽")
        ]));
        let last = [
            shown(gone(by("Ann", "👍")), false),
            gone(by("Bob", "👍")),
            by("Cy", "🎉"),
        ];
        let last = plan(&last);
        assert!(
            matches!(last, Plan::Steps(steps) if matches!(&steps[..], [Step::Unreact { shown }] if shown.as_str() == "shown"))
        );
        assert!(is_skipped(&[gone(by("Ann", "👍"))]));
    }

    #[test]
    fn the_summary_line_names_who_reacted_with_what() {
        let mut all = vec![
            by("Ann", "👍"),
            by("Bob", "🎉"),
            by("Cy", "👍"),
            gone(by("Di", "👍")),
        ];
        assert_eq!(
            summary_line(&all, |_| true).as_deref(),
            Some("👍 Ann, Cy · 🎉 Bob")
        );
        assert_eq!(
            summary_line(&all, |key| key == "🎉").as_deref(),
            Some("🎉 Bob")
        );
        assert_eq!(summary_line(&all, |_| false), None);
        all.extend((0..11).map(|number| by(&format!("n{number}"), "🎉")));
        assert!(
            summary_line(&all, |_| true)
                .unwrap()
                .ends_with("n8 and 2 more")
        );
    }

    #[test]
    fn the_summary_line_is_posted_edited_posted_again_and_removed() {
        let plan = |reacted: &[ReactionState], editable| {
            let line = summary_line(reacted, |_| true).map(|text| Content {
                text,
                html: None,
                style: Style::Notice,
                author: None,
                mentions: Vec::new(),
            });
            match plan_summary(reacted, line, &copy("m"), |_| editable) {
                Plan::Steps(steps) => steps.into_iter().next(),
                Plan::Skip(_) => None,
            }
        };
        let ann = || by("Ann", "👍");
        assert!(matches!(
            plan(&[ann()], true),
            Some(Step::Post { thread: Some(root), .. }) if root.as_str() == "m"
        ));
        assert!(matches!(
            plan(&[shown(ann(), true)], true),
            Some(Step::Edit {
                fallback: Some(_),
                ..
            })
        ));
        assert!(matches!(
            plan(&[shown(ann(), true)], false),
            Some(Step::Post { .. })
        ));
        assert!(matches!(
            plan(&[shown(gone(ann()), true)], false),
            Some(Step::Delete { .. })
        ));
        assert_eq!(plan(&[gone(ann())], true), None);
    }
}
