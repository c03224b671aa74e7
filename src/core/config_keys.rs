//! Keys of the configuration file as data. Reading, masking, the list of known keys and the tests use the same tables, so that a
//! key is declared once, beside what it configures.

use std::{ops::RangeInclusive, time::Duration};

use url::Url;

use crate::secret::Secret;

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub value: KeyValue,
    /// For a key that must be there: a value as an example, as in the file.
    pub required: Option<&'static str>,
}

/// What a key takes, and what holds where it is left out.
#[derive(Debug)]
pub enum KeyValue {
    /// A text.
    Text,
    /// A text that must never be shown.
    Secret,
    /// A list of texts.
    Texts,
    /// `true` or `false`.
    Flag {
        /// The default.
        default: bool,
    },
    /// A whole number.
    Number {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
        /// The default.
        default: u32,
    },
    /// A number with a unit of time, such as `"20s"`.
    Duration {
        /// The shortest, in seconds.
        min: u64,
        /// The longest, in seconds.
        max: u64,
        /// The default, in seconds.
        default: u64,
    },
    /// One of several words. The first is the default.
    Word {
        /// The words.
        words: &'static [&'static str],
    },
    /// The URL of a server.
    Url {
        /// Which schemes it may have.
        schemes: &'static [&'static str],
        /// The default, if there is one.
        default: Option<&'static str>,
    },
}

/// The schemes of an HTTP API.
pub const HTTP: &[&str] = &["https", "http"];

impl Key {
    const fn new(name: &'static str, value: KeyValue) -> Self {
        Self {
            name,
            value,
            required: None,
        }
    }

    /// A text.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self::new(name, KeyValue::Text)
    }

    /// A text that must never be shown.
    #[must_use]
    pub const fn secret(name: &'static str) -> Self {
        Self::new(name, KeyValue::Secret)
    }

    /// A list of texts.
    #[must_use]
    pub const fn texts(name: &'static str) -> Self {
        Self::new(name, KeyValue::Texts)
    }

    /// `true` or `false`.
    #[must_use]
    pub const fn flag(name: &'static str, default: bool) -> Self {
        Self::new(name, KeyValue::Flag { default })
    }

    /// A whole number within these bounds.
    #[must_use]
    pub const fn number(name: &'static str, bounds: RangeInclusive<u32>, default: u32) -> Self {
        let (min, max) = (*bounds.start(), *bounds.end());
        Self::new(name, KeyValue::Number { min, max, default })
    }

    /// A span of time within these bounds; all in seconds.
    #[must_use]
    pub const fn duration(name: &'static str, bounds: RangeInclusive<u64>, default: u64) -> Self {
        let (min, max) = (*bounds.start(), *bounds.end());
        Self::new(name, KeyValue::Duration { min, max, default })
    }

    /// One of these words; the first is the default.
    #[must_use]
    pub const fn word(name: &'static str, words: &'static [&'static str]) -> Self {
        Self::new(name, KeyValue::Word { words })
    }

    /// The URL of a server.
    #[must_use]
    pub const fn url(name: &'static str, schemes: &'static [&'static str]) -> Self {
        let default = None;
        Self::new(name, KeyValue::Url { schemes, default })
    }

    /// The URL of a server that has a usual one.
    #[must_use]
    pub const fn url_or(
        name: &'static str,
        schemes: &'static [&'static str],
        default: &'static str,
    ) -> Self {
        let default = Some(default);
        Self::new(name, KeyValue::Url { schemes, default })
    }

    /// The same key, which must be there; `example` shows a value as in the file.
    #[must_use]
    pub const fn required(self, example: &'static str) -> Self {
        Self {
            required: Some(example),
            ..self
        }
    }

    /// How long the default is; zero where the key takes no span of time.
    #[must_use]
    pub const fn default_duration(&self) -> Duration {
        match self.value {
            KeyValue::Duration { default, .. } => Duration::from_secs(default),
            _ => Duration::ZERO,
        }
    }

    /// The default; 0 where the key takes no number.
    #[must_use]
    pub const fn default_number(&self) -> u32 {
        match self.value {
            KeyValue::Number { default, .. } => default,
            _ => 0,
        }
    }

    /// The default; `false` where the key takes no flag.
    #[must_use]
    pub const fn default_flag(&self) -> bool {
        matches!(self.value, KeyValue::Flag { default: true })
    }
}

/// What is wrong with one value. It is shown at its place in the file.
#[derive(Debug, PartialEq, Eq)]
pub struct ValueError {
    /// The number of the error, such as `B04`.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: String,
}

/// One table of the configuration file, for whoever declares its keys. Every error is collected; what is wrong is answered as if
/// it were not there.
pub trait TableReader {
    /// Whether the key is there, right or wrong.
    fn has(&self, key: &'static Key) -> bool;

    /// A text that this check accepts.
    fn text(
        &mut self,
        key: &'static Key,
        check: &dyn Fn(&str) -> Result<(), ValueError>,
    ) -> Option<String>;

    /// The texts of a list that this check accepts.
    fn texts(
        &mut self,
        key: &'static Key,
        check: &dyn Fn(&str) -> Result<(), ValueError>,
    ) -> Vec<String>;

    /// One of the key's words.
    fn word(&mut self, key: &'static Key) -> &'static str;

    /// A number.
    fn number(&mut self, key: &'static Key) -> u32;

    /// A span of time.
    fn duration(&mut self, key: &'static Key) -> Duration;

    /// A URL, or the default one.
    fn url(&mut self, key: &'static Key) -> Option<Url>;

    /// The account's token: `token`, or the content of `token_file`. An error where it is `required` and there is none.
    fn token(&mut self, required: bool) -> Option<Secret>;

    /// Refuses the value of a key, for a reason that other keys or the server are part of.
    fn refuse(&mut self, key: &'static Key, error: ValueError, note: Option<String>);
}
