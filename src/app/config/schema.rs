//! Checks the parsed file against the tables of known keys. Every error is collected; none stops the check.

use std::{collections::HashSet, ops::Range, time::Duration};

use footbridge_core::config_keys::{Key, KeyValue};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use url::Url;

use super::{
    diagnostic::Diagnostic,
    keys::{
        belongs, header, is_repeated, keys_of, listed, nearest_key, table_names, table_of,
        unknown_key,
    },
    values::{self, ValueError, nearest},
};

/// Whether a missing key can be reported: after a syntax error nobody knows what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseExtent {
    /// The whole file was parsed.
    Whole,
    /// Parts of it were not parsed.
    Part,
}

/// The check and its diagnostics.
pub struct Schema {
    /// The diagnostics, in no order.
    pub diagnostics: Vec<Diagnostic>,
    extent: ParseExtent,
}

/// One table of the file.
pub struct Section<'t> {
    name: &'static str,
    /// The position of its header.
    pub header: Range<usize>,
    table: &'t DeTable<'t>,
    /// Known keys that a misspelt key probably means.
    misspelt: HashSet<&'static str>,
}

impl Schema {
    /// Starts a check.
    #[must_use]
    pub fn new(extent: ParseExtent) -> Self {
        Self {
            diagnostics: Vec::new(),
            extent,
        }
    }

    /// Finds the tables in the file: all sections in the order of the file.
    pub fn sections<'t>(&mut self, root: &'t DeTable<'t>) -> Vec<Section<'t>> {
        let mut sections = Vec::new();
        let mut meant = HashSet::new();
        for (key, value) in root {
            let known = table_names().find(|name| *name == key.get_ref().as_ref());
            match known {
                Some(name) => self.tables_of(name, key.span(), value, &mut sections),
                None => meant.extend(self.unknown_at_top(key, value)),
            }
        }
        for section in &mut sections {
            section.misspelt = self.unknown_in(section);
        }
        let there = sections.iter().any(|section| section.name == "matrix");
        if !there && !meant.contains("matrix") && self.extent == ParseExtent::Whole {
            self.diagnostics.push(
                Diagnostic::new("B04", "`[matrix]` is missing, so there is no account to use")
                    .help("add [matrix] with `homeserver` and `user`, or create the file with `footbridge init`"),
            );
        }
        sections.sort_by_key(|section| section.header.start);
        sections
    }

    fn tables_of<'t>(
        &mut self,
        name: &'static str,
        key: Range<usize>,
        value: &'t Spanned<DeValue<'t>>,
        sections: &mut Vec<Section<'t>>,
    ) {
        let section = |header: Range<usize>, table: &'t DeTable<'t>| Section {
            name,
            header,
            table,
            misspelt: HashSet::new(),
        };
        let wanted = header(name);
        match value.get_ref() {
            DeValue::Table(table) if !is_repeated(name) => {
                sections.push(section(value.span(), table));
            }
            DeValue::Array(array) if is_repeated(name) => {
                for item in array {
                    match item.get_ref() {
                        DeValue::Table(table) => sections.push(section(item.span(), table)),
                        other => self
                            .diagnostics
                            .push(wrong_type(name, "a table", other).at(item.span())),
                    }
                }
            }
            DeValue::Table(_) => self.diagnostics.push(
                Diagnostic::new(
                    "B04",
                    format!("`{name}` is a single table, but there may be several"),
                )
                .labelled(key, format!("expected `{wanted}`"))
                .help(format!("write `{wanted}` with two brackets on each side")),
            ),
            DeValue::Array(_) => self.diagnostics.push(
                Diagnostic::new("B04", format!("there can be only one `{name}`"))
                    .labelled(key, format!("expected `{wanted}`"))
                    .help(format!("write `{wanted}` with one bracket on each side")),
            ),
            other => self.diagnostics.push(
                wrong_type(name, "a table", other)
                    .at(value.span())
                    .help(format!("start the table with a line `{wanted}`")),
            ),
        }
    }

    fn unknown_at_top(
        &mut self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<&'static str> {
        let name = key.get_ref().as_ref();
        let names = table_names();
        if !matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) {
            let diagnostic = match table_of(name).or_else(|| nearest_key(name).and_then(table_of)) {
                Some(table) => belongs(name, table),
                None => Diagnostic::new("B01", format!("unknown key `{name}`"))
                    .note(format!("the file consists of the tables {}", listed(names))),
            };
            self.diagnostics.push(diagnostic.at(key.span()));
            return None;
        }
        let meant = nearest(name, names.clone());
        let mut diagnostic = Diagnostic::new("B01", format!("unknown table `{name}`"))
            .at(key.span())
            .note(format!("the tables are {}", listed(names)));
        if let Some(meant) = meant {
            diagnostic = diagnostic.help(format!("did you mean `{}`?", header(meant)));
        }
        self.diagnostics.push(diagnostic);
        meant
    }

    fn unknown_in(&mut self, section: &Section<'_>) -> HashSet<&'static str> {
        let keys = keys_of(section.name);
        let mut all_meant = HashSet::new();
        for key in section.table.keys() {
            let name = key.get_ref().as_ref();
            if keys.clone().any(|key| key == name) {
                continue;
            }
            let meant = nearest(
                name,
                keys.clone().filter(|key| !section.table.contains_key(*key)),
            )
            .or_else(|| nearest(name, keys.clone()));
            // A key of another table may be a misspelt one all the same: `user` for `users`.
            let is_slip = meant.is_some_and(|meant| {
                !section.table.contains_key(meant) && strsim::damerau_levenshtein(name, meant) == 1
            });
            let diagnostic = match (table_of(name).filter(|_| !is_slip), meant) {
                (Some(table), _) => belongs(name, table),
                (None, Some(meant)) => {
                    all_meant.insert(meant);
                    unknown_key(section.name, name).help(format!("did you mean `{meant}`?"))
                }
                (None, None) => match nearest_key(name).and_then(table_of) {
                    Some(table) => belongs(name, table),
                    None => unknown_key(section.name, name).help("remove the line"),
                },
            };
            self.diagnostics.push(diagnostic.at(key.span()));
        }
        all_meant
    }

    /// The value of a key, if the key is there.
    pub fn text<'t>(
        &mut self,
        section: &Section<'t>,
        key: &'static Key,
    ) -> Option<Spanned<&'t str>> {
        let value = section.table.get(key.name)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(value.span(), text.as_ref())),
            DeValue::Integer(_) if matches!(key.value, KeyValue::Duration { .. }) => {
                self.diagnostics.push(
                    Diagnostic::new("B04", format!("`{}` has no unit", key.name))
                        .labelled(value.span(), "found a number, expected a text")
                        .help("write a number and a unit in quotes, for example \"20s\""),
                );
                None
            }
            other => {
                let diagnostic = wrong_type(key.name, "a text", other)
                    .at(value.span())
                    .help("put the value in quotes");
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }

    /// The value of a key after `read`, if it is there and right. A key that must be there and is not is an error.
    pub fn read<T>(
        &mut self,
        section: &Section<'_>,
        key: &'static Key,
        read: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        if key.required.is_some() && !section.table.contains_key(key.name) {
            self.missing(section, key);
        }
        let text = self.text(section, key)?;
        match read(text.get_ref()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.add_value_error(error, text.span());
                None
            }
        }
    }

    /// A span of time, or the default.
    pub fn duration(&mut self, section: &Section<'_>, key: &'static Key) -> Duration {
        let KeyValue::Duration { min, max, .. } = key.value else {
            return Duration::ZERO;
        };
        let (min, max) = (Duration::from_secs(min), Duration::from_secs(max));
        self.read(section, key, |text| values::duration(text, min, max))
            .unwrap_or(key.default_duration())
    }

    /// One of the key's words, or the first of them.
    pub fn word(&mut self, section: &Section<'_>, key: &'static Key) -> &'static str {
        let KeyValue::Word { words } = key.value else {
            return "";
        };
        let read = |text: &str| match words.iter().find(|word| **word == text) {
            Some(word) => Ok(*word),
            None => values::one_of(text, words),
        };
        let default = words.first().copied().unwrap_or_default();
        self.read(section, key, read).unwrap_or(default)
    }

    /// A URL, or the default one if there is one.
    pub fn url(&mut self, section: &Section<'_>, key: &'static Key) -> Option<Url> {
        let KeyValue::Url { schemes, default } = key.value else {
            return None;
        };
        let read = |text: &str| values::base_url(key.name, text, schemes);
        match default {
            Some(default) if section.key_span(key.name).is_none() => read(default).ok(),
            _ => self.read(section, key, read),
        }
    }

    /// Reports that a key is missing.
    pub fn missing(&mut self, section: &Section<'_>, key: &'static Key) {
        let name = key.name;
        if self.extent == ParseExtent::Part || section.misspelt.contains(name) {
            return;
        }
        let example = key.required.unwrap_or_default();
        self.diagnostics.push(
            Diagnostic::new("B04", format!("`{}` has no `{name}`", header(section.name)))
                .at(section.header.clone())
                .help(format!("add a line, for example: {name} = {example}")),
        );
    }

    /// A whole number, or the default.
    pub fn number(&mut self, section: &Section<'_>, key: &'static Key) -> u32 {
        let KeyValue::Number { min, max, default } = key.value else {
            return 0;
        };
        let Some(value) = section.table.get(key.name) else {
            return default;
        };
        let help = format!("write a whole number from {min} to {max}");
        let DeValue::Integer(integer) = value.get_ref() else {
            self.diagnostics.push(
                wrong_type(key.name, "a number", value.get_ref())
                    .at(value.span())
                    .help(help),
            );
            return default;
        };
        let digits = integer.as_str().replace('_', "");
        match u32::from_str_radix(digits.trim_start_matches('+'), integer.radix()) {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.diagnostics.push(
                    Diagnostic::new("B04", format!("`{}` is out of range", key.name))
                        .at(value.span())
                        .help(help),
                );
                default
            }
        }
    }

    /// `true` or `false`, or the default.
    pub fn flag(&mut self, section: &Section<'_>, key: &'static Key) -> bool {
        let Some(value) = section.table.get(key.name) else {
            return key.default_flag();
        };
        let DeValue::Boolean(flag) = value.get_ref() else {
            self.diagnostics.push(
                wrong_type(key.name, "true or false", value.get_ref())
                    .at(value.span())
                    .help("write true or false, without quotes"),
            );
            return key.default_flag();
        };
        *flag
    }

    fn add_value_error(&mut self, error: ValueError, span: Range<usize>) {
        self.diagnostics.push(
            Diagnostic::new(error.code, error.what)
                .at(span)
                .help(error.help),
        );
    }
}

impl Section<'_> {
    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a misspelt key in this section probably means `key`.
    #[must_use]
    pub fn means(&self, key: &str) -> bool {
        self.misspelt.contains(key)
    }

    /// The parsed value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&Spanned<DeValue<'_>>> {
        self.table.get(key)
    }

    /// The position of the value of a key, or of the header where the key is missing.
    #[must_use]
    pub fn span(&self, key: &str) -> Range<usize> {
        self.table
            .get(key)
            .map_or_else(|| self.header.clone(), Spanned::span)
    }

    /// The position of the key itself.
    #[must_use]
    pub fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }
}

fn wrong_type(key: &str, wanted: &str, found: &DeValue<'_>) -> Diagnostic {
    let found = match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Diagnostic::new("B04", format!("`{key}` is {found}, expected {wanted}"))
}
