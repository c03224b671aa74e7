//! What a portal relays only where the configuration says so, and the policy that a portal whose room is encrypted sets for content
//! that is not encrypted there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use footbridge_store::{Delivery, Error, Flag, PortalId, Side, SkipRule};

use super::Lane;
use crate::message::{Action, Message, Style};

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

/// What is relayed only where the configuration says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct RelayFilter {
    /// Messages that a network creates by itself (see [`Action::System`]).
    pub system_messages: bool,
    /// Notices, which bots send in the room (see [`Style::Notice`]).
    pub notices: bool,
    /// Reactions to messages.
    pub reactions: EncryptedPolicy,
    /// Links to files that the target side does not accept.
    pub file_links: EncryptedPolicy,
}

/// The filter of each portal; a portal without an entry has the default filter. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RelayFilters(Arc<Mutex<HashMap<PortalId, RelayFilter>>>);

impl RelayFilters {
    /// The filters for a single portal.
    #[must_use]
    pub fn only(portal: PortalId, filters: RelayFilter) -> Self {
        let all = Self::default();
        all.set(portal, filters);
        all
    }

    /// Sets the filter of a portal.
    pub fn set(&self, portal: PortalId, filters: RelayFilter) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(portal, filters);
    }

    pub(super) fn of(&self, portal: PortalId) -> RelayFilter {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&portal).copied().unwrap_or_default()
    }
}

impl RelayFilter {
    /// The rule by which this message is not relayed.
    pub(super) fn skip_rule(self, message: &Message, toward: Side) -> Option<SkipRule> {
        match &message.action {
            Action::System { .. } if !self.system_messages => Some(SkipRule::SystemMessage),
            Action::Post { style, .. } | Action::Edit { style, .. }
                if *style == Style::Notice
                    && toward == Side::Silo
                    && !self.notices
                    && !message.sender.is_bridge() =>
            {
                Some(SkipRule::Notice)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::Millis;

    use super::*;
    use crate::{message::Sender, text::Body};

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

    #[test]
    fn c18_notices_of_bots_leave_the_room_only_where_the_portal_relays_them() {
        let mut message = Message::notice("", Millis(0));
        message.action = Action::Post {
            body: Body::plain("build 7 is green"),
            style: Style::Notice,
            reply_to: None,
            thread: None,
        };
        let machine = Sender {
            id: "@ci:x".to_owned(),
            name: "CI".to_owned(),
            avatar: None,
        };
        let wanted = RelayFilter {
            notices: true,
            ..RelayFilter::default()
        };
        assert_eq!(RelayFilter::default().skip_rule(&message, Side::Silo), None);
        message.sender = machine;
        assert_eq!(
            RelayFilter::default().skip_rule(&message, Side::Silo),
            Some(SkipRule::Notice)
        );
        assert_eq!(
            RelayFilter::default().skip_rule(&message, Side::Matrix),
            None
        );
        assert_eq!(wanted.skip_rule(&message, Side::Silo), None);
    }
}
