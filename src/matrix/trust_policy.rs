//! Whose messages are relayed (P02): the table. One pure function decides over everything that can be known of a
//! message's origin.

use matrix_sdk::deserialized_responses::{DeviceLinkProblem, VerificationLevel, VerificationState};

use super::{config::Trust, security_metrics::SecurityClass};

/// The rule for a message of a device that did not become known as signed.
pub(super) const UNTRUSTED: &str = SecurityClass::UntrustedDevice.as_str();
/// The rule for what was not encrypted although the room is or was.
pub(super) const PLAINTEXT: &str = SecurityClass::Plaintext.as_str();
/// The rule for a key out of a backup, a file or somebody else's hands.
const INSECURE: &str = SecurityClass::InsecureKey.as_str();
/// The rule for a key that belongs to somebody else.
pub(super) const MISMATCH: &str = SecurityClass::SenderMismatch.as_str();

/// What is known of where a message came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Provenance<'a> {
    /// It was not encrypted, in a room that was never encrypted or that was.
    Plaintext { ever_encrypted: bool },
    /// It was encrypted by a device that was in this state when its room key came, signed by this identity.
    Device(&'a VerificationState, &'a PinStatus),
}

/// The identity that signed a message beside the one by which its sender is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PinStatus {
    /// None has signed it, and no other of the sender was ever seen.
    None,
    /// Nobody was believed by that name before: this one is from now on.
    First(String),
    /// It is the one. It does not matter whether another one was seen meanwhile: nobody else can sign with it.
    Same,
    /// It is another one, or none where another one of the sender was seen.
    Changed,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrustDecision {
    /// It crosses.
    Relay,
    /// Not yet.
    Hold(TrustHold),
    /// It does not cross, by this rule.
    Skip(&'static str),
}

/// What a message is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrustHold {
    /// Its owner may have signed the device, and we have not heard of it yet.
    Signature,
    /// The list of the sender's devices, on which this one is not.
    DeviceList,
    /// Somebody in charge, who has to accept the sender's changed identity.
    Approval,
}

/// Whose messages are relayed: the table of P02.
pub(super) fn decide(trust: Trust, origin: Provenance<'_>) -> TrustDecision {
    let (state, pin) = match origin {
        Provenance::Plaintext {
            ever_encrypted: true,
        } => return TrustDecision::Skip(PLAINTEXT),
        Provenance::Plaintext {
            ever_encrypted: false,
        } => return TrustDecision::Relay,
        Provenance::Device(state, pin) => (state, pin),
    };
    let level = match state {
        // Somebody compared this identity by hand, and accepted it thereby; another one may have been accepted since.
        VerificationState::Verified if *pin == PinStatus::Changed => {
            return TrustDecision::Hold(TrustHold::Approval);
        }
        VerificationState::Verified => return TrustDecision::Relay,
        VerificationState::Unverified(level) => level,
    };
    match level {
        VerificationLevel::MismatchedSender => TrustDecision::Skip(MISMATCH),
        VerificationLevel::None(DeviceLinkProblem::InsecureSource) => TrustDecision::Skip(INSECURE),
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

    /// Every state, each with its row of the table: with cross-signed devices only, and with any device.
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
        let believed = [
            [Relay, Relay],
            [Relay, Relay],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Signature), Relay],
            [Held(TrustHold::DeviceList), Relay],
            [Skip("insecure-key"), Skip("insecure-key")],
            [Skip("sender-mismatch"), Skip("sender-mismatch")],
        ];
        let changed = [
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Held(TrustHold::Approval), Held(TrustHold::Approval)],
            [Skip("insecure-key"), Skip("insecure-key")],
            [Skip("sender-mismatch"), Skip("sender-mismatch")],
        ];
        let pins = [
            (PinStatus::None, &believed),
            (PinStatus::First("key".into()), &believed),
            (PinStatus::Same, &believed),
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
            assert_eq!(clear(true), Skip("plaintext-in-encrypted-room"));
            assert_eq!(clear(false), Relay);
        }
    }
}
