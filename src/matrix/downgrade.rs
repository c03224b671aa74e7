//! Whether something may be sent into a room, by what is known of its encryption (P04). Pure: nothing goes in the clear
//! where the room is, or ever was, encrypted.

/// What is known of a room's encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// It is or was encrypted, as our own database has it.
    pub ever: bool,
    /// The SDK will encrypt what is sent now.
    pub will_encrypt: bool,
    /// The homeserver says, asked this moment, that the room is encrypted.
    pub is_now: bool,
}

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// The room is in the clear and always was.
    InClear,
    /// It will be encrypted.
    Encrypted,
    /// The room has just been encrypted, and the SDK does not know it yet: nothing before it does.
    NotYet,
    /// The room was encrypted, and the homeserver denies it: nothing.
    Downgraded,
}

impl Known {
    /// Whether the room is encrypted and our database does not know it.
    pub(super) fn is_news(self) -> bool {
        !self.ever && (self.will_encrypt || self.is_now)
    }

    /// What may be sent.
    pub(super) fn ruling(self) -> Ruling {
        if self.will_encrypt {
            Ruling::Encrypted
        } else if self.is_now {
            Ruling::NotYet
        } else if self.ever {
            Ruling::Downgraded
        } else {
            Ruling::InClear
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p04_only_what_was_never_encrypted_gets_anything_in_the_clear() {
        use Ruling::{Downgraded, Encrypted, InClear, NotYet};
        for (ever, will_encrypt, is_now, news, ruling) in [
            (false, false, false, false, InClear),
            (false, false, true, true, NotYet),
            (false, true, false, true, Encrypted),
            (false, true, true, true, Encrypted),
            (true, false, false, false, Downgraded),
            (true, false, true, false, NotYet),
            (true, true, false, false, Encrypted),
            (true, true, true, false, Encrypted),
        ] {
            let known = Known {
                ever,
                will_encrypt,
                is_now,
            };
            assert_eq!(
                (known.is_news(), known.ruling()),
                (news, ruling),
                "{known:?}"
            );
        }
    }
}
