//! What may be sent into a room, by what is known of its encryption (P04). Pure: nothing is sent in plaintext where the
//! room is, or ever was, encrypted.

/// What is known of a room's encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EncryptionState {
    /// It is or was encrypted, by the bridge's own database.
    pub ever: bool,
    /// The SDK will encrypt what is sent now.
    pub will_encrypt: bool,
    /// The homeserver, asked right now, says that the room is encrypted.
    pub is_now: bool,
}

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EncryptionDecision {
    /// Plaintext: the room is and always was unencrypted.
    Plaintext,
    /// An encrypted event.
    Encrypted,
    /// Nothing until the SDK knows that the room has just been encrypted.
    NotYet,
    /// Nothing: the room was encrypted, and the homeserver denies it.
    Downgraded,
}

impl EncryptionState {
    /// Whether the room is encrypted and the bridge's database does not know it.
    pub(super) fn is_newly_encrypted(self) -> bool {
        !self.ever && (self.will_encrypt || self.is_now)
    }

    /// What may be sent.
    pub(super) fn decide(self) -> EncryptionDecision {
        if self.will_encrypt {
            EncryptionDecision::Encrypted
        } else if self.is_now {
            EncryptionDecision::NotYet
        } else if self.ever {
            EncryptionDecision::Downgraded
        } else {
            EncryptionDecision::Plaintext
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p04_only_rooms_that_were_never_encrypted_get_anything_unencrypted() {
        use EncryptionDecision::{Downgraded, Encrypted, NotYet, Plaintext};
        for (ever, will_encrypt, is_now, news, ruling) in [
            (false, false, false, false, Plaintext),
            (false, false, true, true, NotYet),
            (false, true, false, true, Encrypted),
            (false, true, true, true, Encrypted),
            (true, false, false, false, Downgraded),
            (true, false, true, false, NotYet),
            (true, true, false, false, Encrypted),
            (true, true, true, false, Encrypted),
        ] {
            let known = EncryptionState {
                ever,
                will_encrypt,
                is_now,
            };
            assert_eq!(
                (known.is_newly_encrypted(), known.decide()),
                (news, ruling),
                "{known:?}"
            );
        }
    }
}
