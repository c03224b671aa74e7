//! Notices to people whose messages cannot be relayed or decrypted for a reason that only they can change: they get
//! a notice in the room, and another one when it is solved. A sender with an unsigned device cannot read the notice there,
//! so their first message also gets a reaction: reactions are not encrypted, and this one reveals nothing about the
//! message.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use footbridge_core::inbox::UndecryptableTexts;
use footbridge_store::{Place, Store, UndecryptableEvent};
use serde_json::Value;

use super::{
    decrypt::DecryptionResult,
    event_fields::EventFields,
    undecryptable::{self, UNSIGNED},
};

/// The reaction to a message of an unsigned device.
pub(super) const LOCK: &str = "🔒";

/// Why messages cannot be relayed or decrypted.
#[derive(Clone, Copy)]
pub(super) struct UnreadableReason<'a> {
    /// A fixed reason code.
    pub reason: &'a str,
    /// The device that sent them, if it is the cause.
    pub device: Option<&'a str>,
}

/// The senders with a notice that their device is not signed, and those of them who have written from a signed device
/// since.
#[derive(Debug, Default)]
pub(super) struct UnsignedNotices(Mutex<NotifiedSenders>);

#[derive(Debug, Default)]
struct NotifiedSenders {
    notified: HashSet<(Place, String)>,
    relayed: HashSet<(Place, String)>,
}

impl UnsignedNotices {
    /// Loads the senders with such a notice from the store.
    pub(super) async fn load(store: &Store) -> Result<Self, footbridge_store::Error> {
        let notices = store.outdated_groups().await?.into_iter();
        let notified = notices
            .filter(|(group, _)| group.reason == UNSIGNED)
            .map(|(group, _)| (group.place, group.sender))
            .collect();
        let senders = NotifiedSenders {
            notified,
            relayed: HashSet::new(),
        };
        Ok(Self(Mutex::new(senders)))
    }

    /// Records that this sender has such a notice.
    pub(super) fn note_notified(&self, place: &Place, sender: &str) {
        let who = (place.clone(), sender.to_owned());
        self.lock().notified.insert(who);
    }

    /// Records that an encrypted message of this sender was relayed.
    pub(super) fn has_relayed(&self, place: &Place, sender: &str) {
        let mut senders = self.lock();
        let who = (place.clone(), sender.to_owned());
        if senders.notified.contains(&who) {
            senders.relayed.insert(who);
        }
    }

    /// Takes the senders with such a notice of whom a message was relayed since.
    pub(super) fn take_relayed(&self) -> HashSet<(Place, String)> {
        std::mem::take(&mut self.lock().relayed)
    }

    /// The notice about this sender is over.
    pub(super) fn forget(&self, place: Place, sender: String) {
        self.lock().notified.remove(&(place, sender));
    }

    fn lock(&self) -> MutexGuard<'_, NotifiedSenders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device that sent a waiting entry: from its room key or, without one, from the event.
pub(super) fn device_of(
    unsealed: &DecryptionResult<'_>,
    waiting: &UndecryptableEvent,
) -> Option<String> {
    let info = unsealed.event.encryption_info();
    let known = info.and_then(|info| info.sender_device.as_ref());
    let device = if let Some(device) = known {
        device.to_string()
    } else {
        let envelope: EventFields = serde_json::from_slice(&waiting.raw).ok()?;
        let claimed = envelope.content.get("device_id").and_then(Value::as_str)?;
        claimed.to_owned()
    };
    is_plain(&device).then_some(device)
}

/// What the sender of the messages can do, if they can do anything.
pub(super) fn advice(reason: &str, name: &str, device: Option<&str>) -> Option<String> {
    Some(match reason {
        UNSIGNED => {
            let device = match device {
                Some(device) => format!("the device {device}"),
                None => "one of your devices".to_owned(),
            };
            format!(
                "🔒 {name}, messages from {device} are not relayed: you have not signed that device. Verify it from \
                 another device of yours, or enter your recovery key on it; messages that you send after that are \
                 relayed. Until then that device cannot decrypt the bridge's messages, including this notice, so \
                 your message has the reaction {LOCK}."
            )
        }
        "m.blacklisted" => format!(
            "🔒 {name}, the bridge cannot read your messages: its device is blocked in your app. Unblock it there."
        ),
        "m.unverified" => format!(
            "🔒 {name}, the bridge cannot read your messages: your app shares keys with verified devices only. Verify \
             the bridge in your app, or let it share keys with devices that their owner has signed."
        ),
        _ => return None,
    })
}

/// The texts when a device has been signed. A sender who has opted out is not named on the other side.
pub(super) fn signed(name: &str, opted_out: bool, dropped: u64) -> UndecryptableTexts {
    let lost = lost(dropped);
    let (there, here) = if opted_out {
        (
            "🔓 The device of a sender is signed now.".to_owned(),
            format!("🔓 {name}, your device is signed now."),
        )
    } else {
        (
            format!(
                "🔓 Messages from {name} are relayed: the device they come from is signed now.{lost}"
            ),
            format!("🔓 {name}, your device is signed now, and your messages are relayed.{lost}"),
        )
    };
    UndecryptableTexts {
        elsewhere: Some(there),
        to_sender: Some(here),
        ..UndecryptableTexts::default()
    }
}

/// How many messages were not relayed before.
fn lost(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(
            " Before that, {} could not be relayed.",
            undecryptable::messages(count)
        ),
    }
}

/// Whether a device id can be inserted into a text unchanged.
fn is_plain(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 64
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p02_only_the_sender_who_can_fix_it_gets_the_remedy() {
        let text = |reason| advice(reason, "Ann", Some("ANN")).unwrap_or_default();
        let unsigned = text(UNSIGNED);
        for part in ["Ann", "the device ANN", "Verify it", "recovery key", LOCK] {
            assert!(unsigned.contains(part), "{part}: {unsigned}");
        }
        assert!(text("m.blacklisted").contains("Unblock"));
        assert!(text("m.unverified").contains("Verify the bridge"));
        for nothing_to_do in ["no-key", "later-key", undecryptable::CHANGED, "m.no_olm"] {
            assert_eq!(text(nothing_to_do), "");
        }
        assert!(is_plain("ABC1") && is_plain("AB-c_1"));
        for strange in ["", "a b", "@room", &"x".repeat(65)] {
            assert!(!is_plain(strange), "{strange}");
        }
    }

    #[test]
    fn p02_the_notice_of_a_signed_device_has_the_count_and_names_nobody_who_opted_out() {
        let texts = signed("Ann", false, 3);
        let (there, here) = (texts.elsewhere.unwrap(), texts.to_sender.unwrap());
        for text in [&there, &here] {
            assert!(
                text.contains("Ann") && text.contains("3 messages could not be relayed"),
                "{text}"
            );
        }
        let texts = signed("Ann", true, 3);
        let (there, here) = (texts.elsewhere.unwrap(), texts.to_sender.unwrap());
        assert!(!there.contains("Ann"), "{there}");
        assert!(!here.contains("relayed"), "{here}");
    }
}
