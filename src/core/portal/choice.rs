//! What a portal chooses whose room is encrypted, of things that then are not.

use footbridge_store::{Delivery, Error, Flag};

use super::{Lane, Tastes};

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

/// A choice of each portal that something passes, and what all of them come to.
pub(super) fn strictest(choices: impl Iterator<Item = Choice>) -> Choice {
    choices.fold(Choice::Always, |known, next| match (known, next) {
        (Choice::Never, _) | (_, Choice::Never) => Choice::Never,
        (Choice::Open, _) | (_, Choice::Open) => Choice::Open,
        (Choice::Always, Choice::Always) => Choice::Always,
    })
}

impl Lane {
    /// What the portals that a delivery passes choose of something, all together.
    pub(super) fn chosen(&self, delivery: &Delivery, of: impl Fn(Tastes) -> Choice) -> Choice {
        strictest(self.passed(delivery).map(|(_, tastes)| of(tastes)))
    }

    /// Whether something crosses by this choice: if it is for open rooms, it neither comes from one that is or was
    /// encrypted nor goes to one, whichever portals lie between them.
    pub(super) async fn allows(&self, choice: Choice, delivery: &Delivery) -> Result<bool, Error> {
        match choice {
            Choice::Never => Ok(false),
            Choice::Always => Ok(true),
            Choice::Open => {
                for end in [&delivery.from, &delivery.to] {
                    if self.store.flag(end, Flag::EverEncrypted).await? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_portals_the_strictest_choice_counts() {
        use Choice::{Always, Never, Open};
        let all = [Open, Always, Never];
        for (one, two) in all.iter().flat_map(|one| all.map(|two| (*one, two))) {
            let expected = match (one, two) {
                (Always, Always) => Always,
                _ if one == Never || two == Never => Never,
                _ => Open,
            };
            assert_eq!(
                strictest([one, two].into_iter()),
                expected,
                "{one:?} {two:?}"
            );
        }
    }
}
