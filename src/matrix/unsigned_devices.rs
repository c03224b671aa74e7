//! People whose messages cannot be read because of something that only they can change: they are told in the room, and that
//! it is over once it is. Who writes from a device that they have not signed cannot read that there, so their first message
//! gets a sign, too: reactions are not encrypted, and this one says nothing of what is in the message.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
};

use footbridge_core::inbox::{Inbox, UndecryptableTexts};
use footbridge_store::{Place, Store, UndecryptableEvent};
use matrix_sdk::ruma::{DeviceId, UserId};
use serde_json::Value;

use super::{
    Matrix, MatrixError,
    decrypt::DecryptionResult,
    timeline::EventFields,
    undecryptable::{self, UNSIGNED},
};

/// The sign on what does not cross.
pub(super) const LOCK: &str = "🔒";

/// Why messages cannot be read.
#[derive(Clone, Copy)]
pub(super) struct UnreadableReason<'a> {
    /// A fixed word.
    pub reason: &'a str,
    /// The device that they come from, where it is what is wrong.
    pub device: Option<&'a str>,
}

/// Whose notices stand that their device is not signed, and who of them has written from a signed one since.
#[derive(Debug, Default)]
pub(super) struct UnsignedNotices {
    told: HashSet<(Place, String)>,
    crossed: HashSet<(Place, String)>,
}

impl UnsignedNotices {
    /// Those of whom the store knows.
    pub(super) async fn learn(store: &Store) -> Result<Self, footbridge_store::Error> {
        let standing = store.outdated_groups().await?.into_iter();
        let told = standing
            .filter(|(group, _)| group.reason == UNSIGNED)
            .map(|(group, _)| (group.place, group.sender))
            .collect();
        Ok(Self {
            told,
            crossed: HashSet::new(),
        })
    }
}

impl Matrix {
    /// Tells of a message whose device did not become known as signed in time.
    pub(super) async fn notify_unsigned(
        &self,
        waiting: &UndecryptableEvent,
        device: Option<&str>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let Some(sender) = undecryptable::sender_of(waiting) else {
            return Ok(());
        };
        let why = UnreadableReason {
            reason: UNSIGNED,
            device,
        };
        let (entries, place) = (vec![waiting.entry], &waiting.place);
        self.tell(entries, place, &sender, why, inbox).await
    }

    /// A notice stands of this sender.
    pub(super) fn deliveries(&self, place: &Place, sender: &str) {
        let told = (place.clone(), sender.to_owned());
        self.standing().told.insert(told);
    }

    /// A message of this sender has crossed, encrypted.
    pub(super) fn has_crossed(&self, place: &Place, sender: &str) {
        let mut standing = self.standing();
        let who = (place.clone(), sender.to_owned());
        if standing.told.contains(&who) {
            standing.crossed.insert(who);
        }
    }

    /// Says of devices that are signed by now that they are.
    pub(super) async fn notify_signed(&self, inbox: &Inbox) -> Result<(), MatrixError> {
        let crossed = std::mem::take(&mut self.standing().crossed);
        if crossed.is_empty() {
            return Ok(());
        }
        for (group, device) in self.store.outdated_groups().await? {
            let who = (group.place.clone(), group.sender.clone());
            let is_over = group.reason == UNSIGNED
                && crossed.contains(&who)
                && self.is_signed(&group.sender, device.as_deref()).await;
            if !is_over {
                continue;
            }
            let name = self.name_of(&group.place, &group.sender).await;
            let keeps_here = self.has_opted_out(&group.place, &group.sender).await?;
            let words = signed(&name, keeps_here, group.skipped);
            inbox.notify_obsolete(group, words).await?;
            self.standing().told.remove(&who);
        }
        Ok(())
    }

    /// Whether the owner of this device has signed it, as far as the SDK knows; no request is made.
    async fn is_signed(&self, user: &str, device: Option<&str>) -> bool {
        let (Ok(user), Some(device)) = (<&UserId>::try_from(user), device) else {
            return false;
        };
        let device = <&DeviceId>::from(device);
        let found = self.client.encryption().get_device(user, device).await;
        matches!(found, Ok(Some(device)) if device.is_cross_signed_by_owner())
    }

    fn standing(&self) -> MutexGuard<'_, UnsignedNotices> {
        self.unsigned_notices
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device that an entry which waits comes from: as its room key says, or, where that says nothing, the event.
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

/// What whoever sent the messages can do, if they can do anything.
pub(super) fn advice(reason: &str, name: &str, device: Option<&str>) -> Option<String> {
    Some(match reason {
        UNSIGNED => {
            let device = match device {
                Some(device) => format!("the device {device}"),
                None => "one of your devices".to_owned(),
            };
            format!(
                "🔒 {name}, what you write from {device} does not cross: you have not signed that device. Verify it from \
                 another device of yours, or enter your recovery key on it; what you write after that crosses. Until \
                 then it cannot read what the bridge writes here, this notice included, so {LOCK} stands on your message."
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

/// What is said when a device has been signed. Who keeps their messages here is not named there.
fn signed(name: &str, keeps_here: bool, dropped: u64) -> UndecryptableTexts {
    let lost = lost(dropped);
    let (there, here) = if keeps_here {
        (
            "🔓 The device that messages from somebody came from is signed now.".to_owned(),
            format!("🔓 {name}, your device is signed now."),
        )
    } else {
        (
            format!(
                "🔓 Messages from {name} cross: the device they come from is signed now.{lost}"
            ),
            format!("🔓 {name}, your device is signed now, and your messages cross.{lost}"),
        )
    };
    UndecryptableTexts {
        elsewhere: Some(there),
        to_sender: Some(here),
        ..UndecryptableTexts::default()
    }
}

/// How many did not cross before.
fn lost(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(" Before that, {} did not.", undecryptable::messages(count)),
    }
}

/// Whether a device's id can stand in a text as it is.
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
    fn p02_who_can_change_it_is_told_what_to_do_and_nobody_else() {
        let told = |reason| advice(reason, "Ann", Some("ANN")).unwrap_or_default();
        let unsigned = told(UNSIGNED);
        for part in ["Ann", "the device ANN", "Verify it", "recovery key", LOCK] {
            assert!(unsigned.contains(part), "{part}: {unsigned}");
        }
        assert!(told("m.blacklisted").contains("Unblock"));
        assert!(told("m.unverified").contains("Verify the bridge"));
        for nothing_to_do in ["no-key", "later-key", undecryptable::CHANGED, "m.no_olm"] {
            assert_eq!(told(nothing_to_do), "");
        }
        assert!(is_plain("ABC1") && is_plain("AB-c_1"));
        for strange in ["", "a b", "@room", &"x".repeat(65)] {
            assert!(!is_plain(strange), "{strange}");
        }
    }

    #[test]
    fn p02_that_a_device_is_signed_is_said_with_its_count_and_names_nobody_who_stays_here() {
        let words = signed("Ann", false, 3);
        let (there, here) = (words.elsewhere.unwrap(), words.to_sender.unwrap());
        for text in [&there, &here] {
            assert!(
                text.contains("Ann") && text.contains("3 messages did not"),
                "{text}"
            );
        }
        let words = signed("Ann", true, 3);
        let (there, here) = (words.elsewhere.unwrap(), words.to_sender.unwrap());
        assert!(!there.contains("Ann"), "{there}");
        assert!(!here.contains("cross"), "{here}");
    }
}
