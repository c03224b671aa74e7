//! What a portal chooses whose room is encrypted, of things that then are not.

use footbridge_store::{Delivery, Error, Flag, Side};

use super::Lane;

/// Where something crosses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Where the room never was encrypted.
    #[default]
    Open,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

impl Choice {
    /// The words of the configuration.
    pub const WORDS: [&'static str; 3] = ["open", "always", "never"];

    /// What a word means.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "open" => Self::Open,
            "always" => Self::Always,
            "never" => Self::Never,
            _ => return None,
        })
    }
}

impl Lane {
    /// Whether something crosses by this choice.
    pub(super) async fn allows(&self, choice: Choice, delivery: &Delivery) -> Result<bool, Error> {
        let room = match self.id.toward {
            Side::Matrix => &delivery.to,
            Side::Silo => &delivery.from,
        };
        Ok(match choice {
            Choice::Never => false,
            Choice::Always => true,
            Choice::Open => !self.store.flag(room, Flag::EverEncrypted).await?,
        })
    }
}
