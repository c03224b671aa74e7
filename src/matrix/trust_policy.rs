//! Whose messages are relayed (P02): the table. One pure function decides, from everything that can be known about a
//! message's origin.

use footbridge_store::SkipRule;
use matrix_sdk::deserialized_responses::{DeviceLinkProblem, VerificationLevel, VerificationState};

use super::config::Trust;

/// What is known about a message's origin.
#[derive(Clone, Copy, Debug)]
pub(super) enum Provenance<'a> {
    /// It was not encrypted; whether its room ever was.
    Plaintext { ever_encrypted: bool },
    /// It was encrypted by a device that was in this state when its room key arrived, signed by an identity with this
    /// pin status.
    Device(&'a VerificationState, &'a PinStatus),
}

/// How the identity that signed a message compares with the sender's pinned identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PinStatus {
    /// No identity has signed it, and no other identity of the sender was ever seen.
    None,
    /// No identity of the sender was pinned before; this one will be.
    First(String),
    /// It is the pinned identity. It does not matter whether another one was seen meanwhile: nobody else can sign with
    /// it.
    Same,
    /// It is another identity; or none signed, and another identity of the sender was seen.
    Changed,
}

/// The decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrustDecision {
    /// It is relayed.
    Relay,
    /// It is held.
    Hold(TrustHold),
    /// It is not relayed, by this rule.
    Skip(SkipRule),
}

/// What a message is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrustHold {
    /// The device's signature: its owner may have signed the device, and the bridge does not know it yet.
    Signature,
    /// The sender's device list, which does not contain the device yet.
    DeviceList,
    /// An admin, who has to approve the sender's changed identity.
    Approval,
}

/// Whose messages are relayed: the table of P02.
pub(super) fn decide(trust: Trust, origin: Provenance<'_>) -> TrustDecision {
    let (state, pin) = match origin {
        Provenance::Plaintext {
            ever_encrypted: true,
        } => return TrustDecision::Skip(SkipRule::PlaintextInEncryptedRoom),
        Provenance::Plaintext {
            ever_encrypted: false,
        } => return TrustDecision::Relay,
        Provenance::Device(state, pin) => (state, pin),
    };
    let level = match state {
        // Somebody verified this identity by hand, which approved it; another one may have been approved since.
        VerificationState::Verified if *pin == PinStatus::Changed => {
            return TrustDecision::Hold(TrustHold::Approval);
        }
        VerificationState::Verified => return TrustDecision::Relay,
        VerificationState::Unverified(level) => level,
    };
    match level {
        VerificationLevel::MismatchedSender => TrustDecision::Skip(SkipRule::SenderMismatch),
        VerificationLevel::None(DeviceLinkProblem::InsecureSource) => {
            TrustDecision::Skip(SkipRule::InsecureKey)
        }
        VerificationLevel::VerificationViolation => TrustDecision::Hold(TrustHold::Approval),
        _ if *pin == PinStatus::Changed => TrustDecision::Hold(TrustHold::Approval),
        // Trust on first use: signed by its owner, whom nobody verified by hand.
        VerificationLevel::UnverifiedIdentity => TrustDecision::Relay,
        VerificationLevel::UnsignedDevice => match trust {
            Trust::CrossSigned => TrustDecision::Hold(TrustHold::Signature),
            Trust::AnyDevice => TrustDecision::Relay,
        },
        VerificationLevel::None(DeviceLinkProblem::MissingDevice) => match trust {
            Trust::CrossSigned => TrustDecision::Hold(TrustHold::DeviceList),
            Trust::AnyDevice => TrustDecision::Relay,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state with its row of the table: with cross-signed devices only, and with any device.
    #[test]
    fn p02_each_state_of_a_device_and_an_identity_has_its_row() {
        use DeviceLinkProblem::{InsecureSource, MissingDevice};
        use Trust::{AnyDevice, CrossSigned};
        use TrustDecision::{Hold as Held, Relay, Skip};
        use VerificationLevel::{
            MismatchedSender, None as Nothing, UnsignedDevice, UnverifiedIdentity,
            VerificationViolation,
        };
        let states = [
            VerificationState::Verified,
            VerificationState::Unverified(UnverifiedIdentity),
            VerificationState::Unverified(VerificationViolation),
            VerificationState::Unverified(UnsignedDevice),
            VerificationState::Unverified(Nothing(MissingDevice)),
            VerificationState::Unverified(Nothing(InsecureSource)),
            VerificationState::Unverified(MismatchedSender),
        ];
        let unchanged = [
            [Relay, Relay],
            [Relay, Relay],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Signature), Relay],
            [Held(TrustHold::DeviceList), Relay],
            [Skip(SkipRule::InsecureKey), Skip(SkipRule::InsecureKey)],
            [
                Skip(SkipRule::SenderMismatch),
                Skip(SkipRule::SenderMismatch),
            ],
        ];
        let changed = [
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Skip(SkipRule::InsecureKey), Skip(SkipRule::InsecureKey)],
            [
                Skip(SkipRule::SenderMismatch),
                Skip(SkipRule::SenderMismatch),
            ],
        ];
        let pins = [
            (PinStatus::None, &unchanged),
            (PinStatus::First("key".into()), &unchanged),
            (PinStatus::Same, &unchanged),
            (PinStatus::Changed, &changed),
        ];
        for (pin, rows) in pins {
            for (state, [cross_signed, any_device]) in states.iter().zip(rows) {
                let origin = Provenance::Device(state, &pin);
                for (trust, wanted) in [(CrossSigned, cross_signed), (AnyDevice, any_device)] {
                    assert_eq!(
                        decide(trust, origin),
                        *wanted,
                        "{trust:?} {state:?} {pin:?}"
                    );
                }
            }
        }
        for trust in [CrossSigned, AnyDevice] {
            let clear = |ever_encrypted| decide(trust, Provenance::Plaintext { ever_encrypted });
            assert_eq!(clear(true), Skip(SkipRule::PlaintextInEncryptedRoom));
            assert_eq!(clear(false), Relay);
        }
    }
}
