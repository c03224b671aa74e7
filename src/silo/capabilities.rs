//! Descriptions of the kinds of silos, above all what is relayed between a room and a channel: the tables of the silos'
//! pages and of `footbridge silos`, which the tests compare with what happens.

use std::fmt::Write as _;

use footbridge_core::{
    capabilities::{Attribution, Capabilities, Deletes, Edits, Files, Reactions, Replies},
    config_keys::{Key, TableReader},
};

use crate::AnySiloConfig;

/// The description of one kind of silo.
#[derive(Debug)]
pub struct SiloKind {
    /// The `kind` in the configuration.
    pub word: &'static str,
    /// Its title.
    pub title: &'static str,
    /// Where everybody may run one: the configuration key of its address, and an example.
    pub address: Option<(&'static str, &'static str)>,
    /// An example of how the configuration writes a channel.
    pub channel: &'static str,
    /// What the name of a channel may consist of.
    pub channel_name: ChannelName,
    /// Whether it requires a token.
    pub needs_token: bool,
    /// Whether the author of a message is the account that has written it, as the silo has checked.
    pub proves_authors: bool,
    /// What it can do, before settings of its server are known.
    pub can: &'static Capabilities,
    /// One row for each [`Feature`], in that order.
    pub capabilities: &'static [Capability],
    /// The keys of its `[[silo]]` beside those that every kind has.
    pub keys: &'static [&'static Key],
    /// Reads its `[[silo]]`. The name is `None` where it is wrong; the other keys are read all the same, so that all errors are
    /// shown at once.
    pub read: fn(&mut dyn TableReader, Option<String>) -> Option<AnySiloConfig>,
}

/// What the name of a channel may consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelName {
    /// A path without spaces, such as `org/room`.
    Path,
    /// Any line of text.
    Line,
}

/// How one feature is relayed.
#[derive(Debug)]
pub struct Capability {
    /// The feature.
    pub what: Feature,
    /// From the room to the channel.
    pub to_channel: Support,
    /// From the channel to the room.
    pub to_room: Support,
}

impl Capability {
    /// How a feature is relayed that the planner knows of: what the silo can do decides how it reaches the channel. The note says the
    /// rest; `{limit}` in it is the length of a text, `{file}` the size of a file.
    #[must_use]
    pub const fn planned(
        can: &Capabilities,
        what: Feature,
        note: &'static str,
        to_room: Support,
    ) -> Self {
        let is_same = match what {
            Feature::Name => matches!(can.attribution, Attribution::Override),
            Feature::Reply => matches!(can.replies, Replies::Native),
            Feature::Thread => can.threads,
            Feature::Edit => !matches!(can.edits, Edits::AsPost { .. }),
            Feature::Deletion => matches!(can.deletes, Deletes::Native),
            Feature::Reaction => matches!(can.reactions, Reactions::Any | Reactions::Named),
            Feature::File => matches!(can.files, Files::Upload { .. }),
            _ => true,
        };
        let is_lost = matches!(what, Feature::Reaction) && matches!(can.reactions, Reactions::None);
        Self {
            what,
            to_channel: match (is_same, is_lost) {
                (_, true) => Support::No(note),
                (true, false) => Support::Full(note),
                (false, false) => Support::Fallback(note),
            },
            to_room,
        }
    }
}

/// What people do in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Text with its formatting.
    Text,
    /// The name of the author.
    Name,
    /// `/me waves`
    Emote,
    /// A reply to one message.
    Reply,
    /// A message in a thread.
    Thread,
    /// A new text for a message.
    Edit,
    /// A deleted message.
    Deletion,
    /// A mention of somebody, or of everybody.
    Mention,
    /// An emoji on a message.
    Reaction,
    /// An image or another file.
    File,
    /// Joins, leaves and topics.
    System,
    /// Name, topic and avatar of the room and the channel.
    Profile,
    /// What was written while the bridge did not run.
    CatchUp,
}

impl Feature {
    /// All features, in the order of the tables.
    pub const ALL: [Self; 13] = [
        Self::Text,
        Self::Name,
        Self::Emote,
        Self::Reply,
        Self::Thread,
        Self::Edit,
        Self::Deletion,
        Self::Mention,
        Self::Reaction,
        Self::File,
        Self::System,
        Self::Profile,
        Self::CatchUp,
    ];

    /// Its name in the tables.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Text => "Text",
            Self::Name => "Author",
            Self::Emote => "`/me`",
            Self::Reply => "Replies",
            Self::Thread => "Threads",
            Self::Edit => "Edits",
            Self::Deletion => "Deletions",
            Self::Mention => "Mentions",
            Self::Reaction => "Reactions",
            Self::File => "Files",
            Self::System => "System messages",
            Self::Profile => "Name, topic, avatar",
            Self::CatchUp => "Missed messages",
        }
    }
}

/// Whether something is relayed. The texts are for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Relayed as the same thing.
    Full(&'static str),
    /// Relayed as something else that describes it.
    Fallback(&'static str),
    /// Not relayed.
    No(&'static str),
}

impl Support {
    /// As text, for a cell of a table.
    #[must_use]
    pub fn words(self) -> String {
        let (how, more) = match self {
            Self::Full(more) => ("yes", more),
            Self::Fallback(more) => return more.to_owned(),
            Self::No(more) => ("no", more),
        };
        if more.is_empty() {
            how.to_owned()
        } else {
            format!("{how}: {more}")
        }
    }
}

/// The minimum width of a terminal, and the column at which the text of a direction begins.
const WIDTH: usize = 80;
const INDENT: usize = 18;

/// Removes the Markdown marks of code and strong text. Text in code or behind a backslash stays as it is.
fn bare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_code, mut letters) = (false, text.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '`' => in_code = !in_code,
            '*' if !in_code => {}
            '\\' => out.push(
                letters
                    .next_if(|next| "*|".contains(*next))
                    .unwrap_or(letter),
            ),
            letter => out.push(letter),
        }
    }
    out
}

/// A number with a comma before each three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Wraps a text between words at this many characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

impl SiloKind {
    /// How a feature is relayed.
    #[must_use]
    pub fn of(&self, what: Feature) -> Option<&'static Capability> {
        self.capabilities.iter().find(|row| row.what == what)
    }

    /// What is not relayed as the same thing, in two lines. Profiles are left out: the portal's options decide about them.
    #[must_use]
    pub fn limits(&self) -> String {
        let line = |to: &str, crossing: fn(&Capability) -> Support| {
            let named = |is_so: fn(&Support) -> bool| {
                let rows = self.capabilities.iter();
                let rows = rows.filter(|row| row.what != Feature::Profile && is_so(&crossing(row)));
                let names: Vec<String> = rows.map(|row| row.what.title().to_lowercase()).collect();
                if names.is_empty() {
                    "nothing".to_owned()
                } else {
                    names.join(", ")
                }
            };
            let fallback = named(|crossing| matches!(crossing, Support::Fallback(_)));
            let not = named(|crossing| matches!(crossing, Support::No(_)));
            format!("To the {to}, in another form: {fallback}; not relayed: {not}.")
        };
        let there = line("channel", |row| row.to_channel);
        format!("{there}\n{}", line("room", |row| row.to_room))
    }

    /// A cell of the table, with the limits that the silo has.
    fn cell(&self, support: Support) -> String {
        let mut words = support.words();
        let limit = self.can.limits.text.max;
        words = words.replace("{limit}", &grouped(limit));
        if let Files::Upload { max: Some(max), .. } = self.can.files {
            words = words.replace("{file}", &format!("{} MiB", max >> 20));
        }
        words
    }

    /// The same as [`SiloKind::table`] for a terminal: no markup, and no line wider than 80 characters.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut out = String::new();
        for row in self.capabilities {
            let _whole = writeln!(out, "{}", bare(row.what.title()));
            for (end, crossing) in [("channel", row.to_channel), ("room", row.to_room)] {
                let wrapped = wrapped(&bare(&self.cell(crossing)), WIDTH - INDENT);
                let mut lines = wrapped.iter();
                let first = lines.next().map_or("", String::as_str);
                let to = format!("  to the {end}:");
                let _whole = writeln!(out, "{to:<INDENT$}{first}");
                for line in lines {
                    let _whole = writeln!(out, "{:INDENT$}{line}", "");
                }
            }
        }
        out
    }

    /// The table in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = "| | From the room | To the room |\n|---|---|---|\n".to_owned();
        for row in self.capabilities {
            let (title, there) = (row.what.title(), self.cell(row.to_channel));
            let back = self.cell(row.to_room);
            // Writing into a string cannot fail.
            let _whole = writeln!(out, "| {title} | {there} | {back} |");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KINDS;

    #[test]
    fn every_kind_has_an_answer_to_everything_once_and_in_order() {
        for kind in KINDS {
            let rows: Vec<Feature> = kind.capabilities.iter().map(|row| row.what).collect();
            assert_eq!(rows, Feature::ALL, "{}", kind.word);
        }
    }

    #[test]
    fn the_table_says_what_the_planner_does() {
        let planned = [
            Feature::Text,
            Feature::Name,
            Feature::Reply,
            Feature::Thread,
            Feature::Edit,
            Feature::Deletion,
            Feature::Reaction,
            Feature::File,
        ];
        for kind in KINDS {
            for what in planned {
                let row = kind.of(what).unwrap();
                let (Support::Full(note) | Support::Fallback(note) | Support::No(note)) =
                    row.to_channel;
                let planned = Capability::planned(kind.can, what, note, row.to_room);
                assert_eq!(planned.to_channel, row.to_channel, "{} {what:?}", kind.word);
            }
            assert!(!kind.table().contains(['{', '}']), "{}", kind.table());
        }
        assert_eq!(
            [7, 4_096, 16_383, 1_000_000].map(grouped),
            ["7", "4,096", "16,383", "1,000,000"]
        );
    }

    #[test]
    fn the_limits_are_what_the_table_does_not_support_fully() {
        let kind = SiloKind {
            word: "x",
            title: "X",
            address: None,
            channel: "x",
            needs_token: true,
            proves_authors: true,
            can: &crate::gitter::CAPABILITIES,
            channel_name: ChannelName::Path,
            keys: &[],
            read: |_, _| None,
            capabilities: &[
                Capability {
                    what: Feature::Text,
                    to_channel: Support::Full(""),
                    to_room: Support::Full(""),
                },
                Capability {
                    what: Feature::Edit,
                    to_channel: Support::Fallback("a new message"),
                    to_room: Support::No(""),
                },
                Capability {
                    what: Feature::File,
                    to_channel: Support::Fallback("a line"),
                    to_room: Support::Full(""),
                },
            ],
        };
        assert_eq!(
            kind.limits(),
            "To the channel, in another form: edits, files; not relayed: nothing.\n\
             To the room, in another form: nothing; not relayed: edits."
        );
    }

    #[test]
    fn a_terminal_gets_all_of_the_table_without_markup() {
        for kind in KINDS {
            let lines = kind.lines();
            assert!(!lines.contains(['|', '`', '\\']), "{lines}");
            assert!(!lines.contains("**"), "{lines}");
            assert!(lines.lines().all(|line| line.chars().count() <= WIDTH));
            let said = lines.split_whitespace().collect::<Vec<_>>().join(" ");
            for row in kind.capabilities {
                for words in [kind.cell(row.to_channel), kind.cell(row.to_room)] {
                    let words = bare(&words);
                    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
                    assert!(said.contains(&words), "{words}: {said}");
                }
            }
        }
    }

    #[test]
    fn what_is_meant_as_it_is_loses_nothing_on_a_terminal() {
        for (markup, shown) in [
            (r"a line that begins with \*", "a line that begins with *"),
            ("shows `*stars*` as **markup**", "shows *stars* as markup"),
            (r"`a \| b` and C:\dir", r"a | b and C:\dir"),
        ] {
            assert_eq!(bare(markup), shown);
        }
        let all: String = KINDS.iter().map(|kind| kind.lines()).collect();
        let said = all.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("a line that begins with *"), "{said}");
        assert!(said.contains("*stars*"), "{said}");
    }

    #[test]
    fn a_table_shows_yes_no_or_how() {
        let words = [
            (Support::Full(""), "yes"),
            (Support::Full("in bold"), "yes: in bold"),
            (Support::Fallback("as a line"), "as a line"),
            (Support::No("nobody knows"), "no: nobody knows"),
        ];
        for (crossing, said) in words {
            assert_eq!(crossing.words(), said);
        }
    }
}
