//! Reactions: what many people think of a message, shown by one account. Pure: who is of which mind → what must change in
//! what is shown.

use footbridge_store::{Copy, Reaction, RemoteId};
use serde::{Deserialize, Serialize};

use crate::{
    message::Style,
    names,
    outlet::{Content, Plan, Step},
    text::cleaned,
};

/// The longest reaction, in characters: more is no emoji and no word.
const LONGEST: usize = 64;
/// Says how an emoji is to be drawn. Some clients send it, others do not.
const EMOJI_STYLE: char = '\u{fe0f}';
/// How many people a line names for each emoji.
const NAMED: usize = 10;
/// The rule for what changes nothing in what is shown: others have reacted like this as well.
const COUNTED: &str = "reaction-counted";

/// One person's reaction, as it is kept (sealed) with the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// An emoji or a word.
    pub key: String,
    /// Whose.
    pub name: String,
    /// Their id.
    pub user: String,
}

/// The same, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reacted {
    /// With what, and who.
    pub letter: Letter,
    /// Whether it was taken back.
    pub gone: bool,
    /// What shows it, on behalf of all that are shown by the same.
    pub shown: Option<Copy>,
    /// Whether a line of text shows it, with or without others.
    pub line: bool,
}

impl Reacted {
    /// From what the store keeps; `None` where that was written by another version.
    #[must_use]
    pub fn of(kept: Reaction) -> Option<Self> {
        Some(Self {
            letter: serde_json::from_slice(&kept.letter).ok()?,
            gone: kept.gone,
            shown: kept.shown,
            line: kept.line,
        })
    }
}

/// What people react with, in one form; `None` where it is none. Emoji get the form of the Unicode tables; a word stays
/// on one line.
#[must_use]
pub fn key(written: &str) -> Option<String> {
    let bare = written.trim().trim_end_matches(EMOJI_STYLE);
    if let Some(emoji) = emojis::get(bare).or_else(|| emojis::get(written.trim())) {
        return Some(emoji.as_str().to_owned());
    }
    let word = cleaned(bare)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let fits = word.chars().count() <= LONGEST && word.chars().any(|c| !c.is_whitespace());
    fits.then_some(word)
}

/// What changes in a place that has reactions of its own. `message` is the copy there, `openly` goes into the step, and
/// `is_same` says which others look the same there.
#[must_use]
pub fn mirrored(
    reacted: &[Reacted],
    (key, is_same): (&str, impl Fn(&str) -> bool),
    message: &RemoteId,
    openly: bool,
) -> Plan {
    let alike = || {
        reacted
            .iter()
            .filter(|one| is_same(&one.letter.key) && !one.line)
    };
    let wanted = alike().any(|one| !one.gone);
    let shown = alike().find_map(|one| one.shown.clone());
    match (wanted, shown) {
        (true, None) => Plan::Steps(vec![Step::React {
            target: message.clone(),
            key: key.to_owned(),
            openly,
            own: false,
        }]),
        (false, Some(shown)) => Plan::Steps(vec![Step::Unreact {
            shown: shown.remote,
        }]),
        (true, Some(_)) | (false, None) => Plan::Skip(COUNTED.to_owned()),
    }
}

/// The line that tells of reactions, if there are any: `👍 Ann, Bob · 🎉 Cy`. `is_told` says which of them it tells.
#[must_use]
pub fn line(reacted: &[Reacted], is_told: impl Fn(&str) -> bool) -> Option<String> {
    let mut kinds: Vec<(&str, Vec<String>)> = Vec::new();
    let told = reacted
        .iter()
        .filter(|one| !one.gone && is_told(&one.letter.key));
    for Reacted { letter, .. } in told {
        let name = names::shown(&letter.name, &letter.user);
        match kinds.iter_mut().find(|(key, _)| *key == letter.key) {
            Some((_, people)) => people.push(name),
            None => kinds.push((&letter.key, vec![name])),
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

/// What changes where a line tells of them. `text` is that line in the place's own markup; `editable` whether a message of
/// this moment may still be changed.
#[must_use]
pub fn gathered(
    reacted: &[Reacted],
    text: Option<String>,
    message: &Copy,
    editable: impl Fn(&Copy) -> bool,
) -> Plan {
    let shown = reacted
        .iter()
        .filter(|one| one.line)
        .find_map(|one| one.shown.clone());
    let Some(text) = text else {
        return match shown {
            Some(shown) => Plan::Steps(vec![Step::Remove {
                target: shown.remote,
                replaced: false,
            }]),
            None => Plan::Skip(COUNTED.to_owned()),
        };
    };
    let content = Content {
        text,
        html: None,
        style: Style::Notice,
        author: None,
        mentions: Vec::new(),
    };
    let post = Step::Post {
        content: content.clone(),
        thread: Some(message.thread.clone().unwrap_or(message.remote.clone())),
        reply_to: None,
    };
    Plan::Steps(match shown {
        Some(shown) if editable(&shown) => vec![Step::Replace {
            target: shown.remote,
            content,
            below_file: false,
            otherwise: Some(Box::new(post)),
        }],
        _ => vec![post],
    })
}

#[cfg(test)]
mod tests {
    use footbridge_store::Millis;

    use super::*;

    fn by(name: &str, key: &str) -> Reacted {
        Reacted {
            letter: Letter {
                key: key.to_owned(),
                name: name.to_owned(),
                user: format!("@{name}:x"),
            },
            gone: false,
            shown: None,
            line: false,
        }
    }

    fn gone(reacted: Reacted) -> Reacted {
        Reacted {
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

    fn shown(reacted: Reacted, line: bool) -> Reacted {
        Reacted {
            shown: Some(copy("shown")),
            line,
            ..reacted
        }
    }

    #[test]
    fn emoji_have_one_form_and_words_one_line() {
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
    fn c22_one_account_shows_each_emoji_once_until_nobody_means_it_any_more() {
        let message = RemoteId::from("m");
        let plan = |reacted: &[Reacted]| {
            let alike = |other: &str| other.starts_with('👍');
            mirrored(reacted, ("👍", alike), &message, false)
        };
        let is_skipped =
            |reacted: &[Reacted]| matches!(plan(reacted), Plan::Skip(rule) if rule == COUNTED);
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
        // What looks the same there counts as the same.
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
    fn a_line_names_who_reacted_with_what() {
        let mut all = vec![
            by("Ann", "👍"),
            by("Bob", "🎉"),
            by("Cy", "👍"),
            gone(by("Di", "👍")),
        ];
        assert_eq!(line(&all, |_| true).as_deref(), Some("👍 Ann, Cy · 🎉 Bob"));
        assert_eq!(line(&all, |key| key == "🎉").as_deref(), Some("🎉 Bob"));
        assert_eq!(line(&all, |_| false), None);
        all.extend((0..11).map(|number| by(&format!("n{number}"), "🎉")));
        assert!(line(&all, |_| true).unwrap().ends_with("n8 and 2 more"));
    }

    #[test]
    fn the_line_is_posted_edited_posted_again_and_removed() {
        let plan = |reacted: &[Reacted], editable| {
            let text = line(reacted, |_| true);
            match gathered(reacted, text, &copy("m"), |_| editable) {
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
            Some(Step::Replace {
                otherwise: Some(_),
                ..
            })
        ));
        assert!(matches!(
            plan(&[shown(ann(), true)], false),
            Some(Step::Post { .. })
        ));
        assert!(matches!(
            plan(&[shown(gone(ann()), true)], false),
            Some(Step::Remove { .. })
        ));
        assert_eq!(plan(&[gone(ann())], true), None);
    }
}
