//! The policy that a portal whose room is encrypted sets for content that is not encrypted there.

use footbridge_store::{Delivery, Error, Flag};

use super::{Lane, RelayFilter};

/// In which rooms something is relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncryptedPolicy {
    /// Only where the room was never encrypted.
    #[default]
    UnencryptedOnly,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

impl EncryptedPolicy {
    /// The words of the configuration.
    pub const WORDS: [&'static str; 3] = ["open", "always", "never"];

    /// Parses a word of the configuration.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "open" => Self::UnencryptedOnly,
            "always" => Self::Always,
            "never" => Self::Never,
            _ => return None,
        })
    }
}

/// Combines the policies of all portals that something passes: the strictest counts.
pub(super) fn strictest_policy(choices: impl Iterator<Item = EncryptedPolicy>) -> EncryptedPolicy {
    choices.fold(EncryptedPolicy::Always, |strictest, next| {
        match (strictest, next) {
            (EncryptedPolicy::Never, _) | (_, EncryptedPolicy::Never) => EncryptedPolicy::Never,
            (EncryptedPolicy::UnencryptedOnly, _) | (_, EncryptedPolicy::UnencryptedOnly) => {
                EncryptedPolicy::UnencryptedOnly
            }
            (EncryptedPolicy::Always, EncryptedPolicy::Always) => EncryptedPolicy::Always,
        }
    })
}

impl Lane {
    /// The policy that results from all portals that a delivery passes.
    pub(super) fn effective_policy(
        &self,
        delivery: &Delivery,
        of: impl Fn(RelayFilter) -> EncryptedPolicy,
    ) -> EncryptedPolicy {
        strictest_policy(self.passed(delivery).map(|(_, filters)| of(filters)))
    }

    /// Whether this policy lets a delivery pass: `UnencryptedOnly` refuses it when it comes from a room that is or was encrypted,
    /// or goes to one, whichever portals lie between them.
    pub(super) async fn is_allowed_by(
        &self,
        choice: EncryptedPolicy,
        delivery: &Delivery,
    ) -> Result<bool, Error> {
        match choice {
            EncryptedPolicy::Never => Ok(false),
            EncryptedPolicy::Always => Ok(true),
            EncryptedPolicy::UnencryptedOnly => {
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
        use EncryptedPolicy::{Always, Never, UnencryptedOnly};
        let all = [UnencryptedOnly, Always, Never];
        for (one, two) in all.iter().flat_map(|one| all.map(|two| (*one, two))) {
            let expected = match (one, two) {
                (Always, Always) => Always,
                _ if one == Never || two == Never => Never,
                _ => UnencryptedOnly,
            };
            assert_eq!(
                strictest_policy([one, two].into_iter()),
                expected,
                "{one:?} {two:?}"
            );
        }
    }
}
