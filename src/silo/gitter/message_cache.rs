//! The last version of each recent message of a channel, in memory. It tells an edit from a changed counter, and an
//! outdated version from a new one.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use footbridge_store::Millis;

use super::api::ChatMessage;

/// Listings show the newest hundred, and edits end after ten minutes.
const CAPACITY: usize = 400;

/// The last version of each recent message of one channel.
#[derive(Default)]
pub struct MessageCache {
    looks: HashMap<String, CachedMessage>,
    hashes: RandomState,
}

/// The last version of a message.
#[derive(Clone, Copy)]
pub struct CachedMessage {
    sent_at: Millis,
    edited_at: Option<Millis>,
    version: Option<i64>,
    text: u64,
    /// Whether the bridge posted it.
    pub ours: bool,
    deleted: bool,
}

/// What a new version of a known message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageChange {
    /// The text is the same, or the version is older than the last one.
    None,
    /// It has a new text.
    Edited,
    /// Its text was removed.
    Emptied,
}

impl MessageCache {
    /// The last version of this message.
    pub fn get(&self, id: &str) -> Option<CachedMessage> {
        self.looks.get(id).copied()
    }

    /// Compares a message with its last version.
    pub fn compare(&self, last: CachedMessage, message: &ChatMessage) -> MessageChange {
        let older = matches!((message.v, last.version), (Some(now), Some(then)) if now < then);
        let Some(text) = message.text.as_deref().filter(|_| !older && !last.deleted) else {
            return MessageChange::None;
        };
        if text.is_empty() {
            return MessageChange::Emptied;
        }
        let edited_at = message.edited_at();
        let edited = edited_at > last.edited_at
            || (edited_at == last.edited_at && self.hashes.hash_one(text) != last.text);
        if edited {
            MessageChange::Edited
        } else {
            MessageChange::None
        }
    }

    /// Stores this version.
    pub fn keep(&mut self, message: &ChatMessage, ours: bool) {
        let look = CachedMessage {
            sent_at: message.sent_at(),
            edited_at: message.edited_at(),
            version: message.v,
            text: self.hashes.hash_one(message.raw()),
            ours,
            deleted: message.raw().is_empty(),
        };
        self.looks.insert(message.id.clone(), look);
        if self.looks.len() > CAPACITY * 2 {
            let mut times: Vec<Millis> = self.looks.values().map(|look| look.sent_at).collect();
            times.sort_unstable();
            let oldest = times
                .get(times.len() - CAPACITY)
                .copied()
                .unwrap_or_default();
            self.looks.retain(|_, look| look.sent_at >= oldest);
        }
    }

    /// This message was deleted.
    pub fn deleted(&mut self, id: &str, at: Millis) {
        let look = self.looks.entry(id.to_owned()).or_insert(CachedMessage {
            sent_at: at,
            edited_at: None,
            version: None,
            text: 0,
            ours: false,
            deleted: true,
        });
        look.deleted = true;
    }

    /// Whether this message is known to be deleted.
    pub fn is_deleted(&self, id: &str) -> bool {
        self.looks.get(id).is_some_and(|look| look.deleted)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn message(value: Value) -> ChatMessage {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_edit_is_a_new_moment_or_text_and_never_a_counter() {
        let mut ledger = MessageCache::default();
        ledger.keep(&message(json!({"id": "a", "text": "x", "v": 1})), false);
        let last = ledger.get("a").unwrap();
        let table = [
            (
                json!({"id": "a", "text": "x", "v": 2, "threadMessageCount": 1}),
                MessageChange::None,
            ),
            (json!({"id": "a", "text": "x", "v": 1}), MessageChange::None),
            (
                json!({"id": "a", "text": "y", "v": 2}),
                MessageChange::Edited,
            ),
            (
                json!({"id": "a", "text": "x", "v": 2, "editedAt": "2020-07-27T10:00:00.123Z"}),
                MessageChange::Edited,
            ),
            (
                json!({"id": "a", "text": "", "v": 2}),
                MessageChange::Emptied,
            ),
            (json!({"id": "a", "v": 2}), MessageChange::None),
        ];
        for (now, change) in table {
            assert_eq!(ledger.compare(last, &message(now.clone())), change, "{now}");
        }
    }

    #[test]
    fn an_old_picture_changes_nothing() {
        let mut ledger = MessageCache::default();
        let edited =
            json!({"id": "a", "text": "y", "v": 3, "editedAt": "2020-07-27T10:00:00.123Z"});
        ledger.keep(&message(edited), false);
        let old = message(json!({"id": "a", "text": "x", "v": 1}));
        assert_eq!(
            ledger.compare(ledger.get("a").unwrap(), &old),
            MessageChange::None
        );
        let unversioned = message(json!({"id": "a", "text": "x"}));
        assert_eq!(
            ledger.compare(ledger.get("a").unwrap(), &unversioned),
            MessageChange::None
        );
    }

    #[test]
    fn a_deleted_message_stays_deleted() {
        let mut ledger = MessageCache::default();
        ledger.deleted("a", Millis(5));
        let again = message(json!({"id": "a", "text": "x", "v": 1}));
        assert!(ledger.is_deleted("a"));
        assert_eq!(
            ledger.compare(ledger.get("a").unwrap(), &again),
            MessageChange::None
        );
    }

    #[test]
    fn only_the_newest_are_kept() {
        let mut ledger = MessageCache::default();
        for number in 0..2000_u32 {
            ledger.keep(
                &message(json!({"id": format!("{number:08x}"), "text": "x"})),
                false,
            );
        }
        assert!(ledger.looks.len() <= CAPACITY * 2);
        assert!(ledger.get("000007cf").is_some() && ledger.get("00000000").is_none());
    }
}
