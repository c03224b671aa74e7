//! The rules by which a delivery ends without being sent: a closed set, so that whoever explains them explains all of them.

use std::{fmt, str::FromStr};

use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! skip_rules {
    ($($(#[$about:meta])+ $rule:ident = $word:literal,)+) => {
        /// Why a delivery is not sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum SkipRule {
            $($(#[$about])+ $rule,)+
        }

        impl SkipRule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$rule),+];

            /// Its word: the stored form, and the label of the metric.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$rule => $word,)+
                }
            }
        }
    };
}

skip_rules! {
    /// It is a command to the bridge.
    Command = "command",
    /// It was written before the portal was linked.
    BeforeLink = "before-link",
    /// It was written before the time from which the room has agreed.
    BeforeConsent = "before-consent",
    /// Its author has opted out.
    OptedOut = "opted-out",
    /// Its author marked it as not to be relayed.
    NoBridge = "nobridge",
    /// The portal was removed from the configuration.
    PortalRemoved = "portal-removed",
    /// The portal was unlinked before it was sent.
    Unlinked = "unlinked",
    /// The bridge is no longer in the room.
    RoomLeft = "room-left",
    /// An old ciphertext under a new event.
    Replayed = "replayed",
    /// A later one has replaced it.
    Superseded = "superseded",
    /// It continues in another lane, behind the delivery that it depends on.
    MovedToAnotherLane = "moved-to-another-lane",
    /// An edit by somebody other than the author of the message. Edits in rooms are checked before they reach the inbox.
    ForeignEdit = "foreign-edit",
    /// Its author reacted too often.
    ReactionFlood = "reaction-flood",
    /// The messages of its author return again and again, as where two bridges relay each other's copies.
    Loop = "loop",
    /// Another Footbridge relayed it.
    PeerBridge = "another-bridge",
    /// A system message, which the portal does not relay.
    SystemMessage = "system-message",
    /// A notice, which the portal does not relay.
    Notice = "notice",
    /// Its plan has no steps.
    NothingToDo = "nothing-to-do",
    /// The message was sent with this edit in it.
    EditIncluded = "edit-included",
    /// It was deleted before it was sent.
    DeletedBeforeDelivery = "deleted-before-delivery",
    /// The message that it belongs to was still pending.
    TargetWaiting = "target-waiting",
    /// The message was written in another place. A user who may change a copy has no right over the original or over other
    /// copies, and the bridge's account must not lend its power to anybody there.
    WrittenElsewhere = "written-elsewhere",
    /// A reaction that comes from or goes to a room that is or was encrypted. Matrix never encrypts reactions: the sender of one
    /// from there is not certain, and the homeservers can read one that goes there.
    ReactionInEncryptedRoom = "reaction-in-encrypted-room",
    /// The portal does not relay reactions.
    ReactionUnwanted = "reaction-unwanted",
    /// The same reaction is pending already.
    ReactionDuplicate = "reaction-duplicate",
    /// The reaction is shown there already.
    ReactionAlreadyShown = "reaction-already-shown",
    /// The other side has no reactions.
    NoReactions = "no-reactions",
    /// The message that it belongs to has no copy there.
    UnknownTarget = "unknown-target",
    /// The edit was redacted before it was sent.
    EditRedacted = "edit-redacted",
    /// The message was redacted itself.
    MessageRedacted = "message-redacted",
    /// It has no content.
    Empty = "empty",
    /// A second copy of a message that was delivered already.
    LateDuplicate = "late-duplicate",
    /// It could not be serialised.
    Unwritable = "unwritable",
    /// Sent from a device that its owner has not verified.
    UntrustedDevice = "untrusted-device",
    /// Its room key came from a backup, a file or a third party.
    InsecureKey = "insecure-key",
    /// Its room key belongs to somebody other than its sender.
    SenderMismatch = "sender-mismatch",
    /// It was encrypted for another room.
    ForeignRoom = "foreign-room",
    /// Not encrypted in a room that is.
    PlaintextInEncryptedRoom = "plaintext-in-encrypted-room",
    /// An encrypted redaction or state event, which no homeserver has checked.
    RedactionOrStateEncrypted = "redaction-or-state-encrypted",
    /// No room key decrypts it.
    Undecryptable = "undecryptable",
    /// It is no message.
    NotAMessage = "not-a-message",
    /// The bridge panicked over it.
    Panic = "panic",
}

/// A word that is no rule.
#[derive(Debug, thiserror::Error)]
#[error("no rule has that name")]
pub struct UnknownSkipRule;

impl FromStr for SkipRule {
    type Err = UnknownSkipRule;

    fn from_str(word: &str) -> Result<Self, UnknownSkipRule> {
        let mut all = Self::ALL.iter().copied();
        all.find(|rule| rule.as_str() == word)
            .ok_or(UnknownSkipRule)
    }
}

impl fmt::Display for SkipRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ToSql for SkipRule {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for SkipRule {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        word.parse()
            .map_err(|unknown| FromSqlError::Other(Box::new(unknown)))
    }
}

impl Serialize for SkipRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SkipRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        word.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_found_by_its_word() {
        for rule in SkipRule::ALL {
            assert_eq!(rule.as_str().parse::<SkipRule>().ok(), Some(*rule));
        }
        assert!("no-such-rule".parse::<SkipRule>().is_err());
    }
}
