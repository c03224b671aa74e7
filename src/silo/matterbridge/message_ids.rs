//! Ids for Matterbridge's messages. Its API gives none, but each object has the time, in nanoseconds, at which
//! Matterbridge accepted it, on the WebSocket and in the buffer alike. With coarse clocks several have the same time:
//! author and text distinguish them. The text goes into a keyed hash, so that the stored ids do not reveal it. Messages
//! that are equal in everything are numbered: neither the WebSocket nor the buffer repeats a message, and both keep the
//! order.

use std::collections::HashMap;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{api::Event, listener::EventSource};

/// The most different messages of one time that are counted. A bridge whose messages have no time repeats one time for ever.
const MAX_COUNTED: usize = 10_000;

/// The most of them that are saved for another process.
const MAX_SAVED: usize = 100;

/// Makes the ids of events.
pub struct MessageIds {
    key: String,
    live: MomentRun,
    buffered: MomentRun,
}

/// Successive messages of the same time.
#[derive(Default, Serialize, Deserialize)]
struct MomentRun {
    moment: String,
    counts: HashMap<String, u32>,
}

impl MessageIds {
    /// With the naming key of the store, and what [`Self::to_saved`] returned for the last message of the buffer.
    pub fn new(key: String, saved: Option<&str>) -> Self {
        let buffered = saved.and_then(|saved| serde_json::from_str(saved).ok());
        Self {
            key,
            live: MomentRun::default(),
            buffered: buffered.unwrap_or_default(),
        }
    }

    /// What another process must know to number the next messages of the buffer: those of the same time that were read already.
    pub fn to_saved(&self) -> String {
        let counts = &self.buffered.counts;
        if counts.len() > MAX_SAVED {
            return String::new();
        }
        serde_json::to_string(&self.buffered).unwrap_or_default()
    }

    /// A connection begins. It may repeat messages of the previous one; the buffer repeats nothing.
    pub fn begin(&mut self) {
        self.live = MomentRun::default();
    }

    /// Sets the ids of events, in the order in which they arrived.
    pub fn name(&mut self, events: &mut [Event], source: EventSource) {
        let run = match source {
            EventSource::Live => &mut self.live,
            EventSource::Buffered => &mut self.buffered,
        };
        for event in events {
            let moment = event.moment().map_or_else(
                || event.timestamp.clone(),
                |moment| moment.as_nanosecond().to_string(),
            );
            let digest = digest(&self.key, event);
            if run.moment != moment {
                run.moment.clone_from(&moment);
                run.counts.clear();
            }
            // A time that cannot be parsed may contain anything, so it only goes into the hash.
            let moment = event.moment().map_or("0", |_| moment.as_str());
            if run.counts.len() >= MAX_COUNTED && !run.counts.contains_key(&digest) {
                run.counts.clear();
            }
            let count = run.counts.entry(digest.clone()).or_default();
            event.identity = match *count {
                0 => format!("{moment}-{digest}"),
                more => format!("{moment}-{digest}-{more}"),
            };
            *count += 1;
        }
    }
}

/// A keyed hash of author, text and place: 16 hex digits.
fn digest(key: &str, event: &Event) -> String {
    // HMAC accepts keys of any length, so this never fails.
    let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    let unreadable = if event.moment().is_none() {
        event.timestamp.as_str()
    } else {
        ""
    };
    let parts = [
        &event.gateway,
        &event.account,
        &event.channel,
        &event.userid,
        &event.username,
        &event.word,
        &event.text,
    ];
    for part in parts.map(String::as_str).into_iter().chain([unreadable]) {
        mac.update(&part.len().to_le_bytes());
        mac.update(part.as_bytes());
    }
    let bytes = mac.finalize().into_bytes();
    let short = bytes.iter().take(8);
    let short = short.fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    format!("{short:016x}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::matterbridge::api;

    const MOMENT: &str = "2026-11-22T12:06:31.632804119Z";

    fn event(userid: &str, text: &str, timestamp: &str) -> Event {
        let object =
            json!({"text": text, "timestamp": timestamp, "account": "irc.a", "userid": userid});
        api::read(object.to_string().as_bytes()).unwrap()
    }

    fn named(
        identities: &mut MessageIds,
        heard: EventSource,
        mut events: Vec<Event>,
    ) -> Vec<String> {
        identities.name(&mut events, heard);
        events.into_iter().map(|event| event.identity).collect()
    }

    fn identities() -> MessageIds {
        MessageIds::new("key".to_owned(), None)
    }

    #[test]
    fn events_are_known_by_moment_author_and_text() {
        let one = event("u", "hi", MOMENT);
        let elsewhere = event("u", "hi", "2026-11-22T13:06:31.632804119+01:00");
        let same = |one: Event, other: Event| {
            let name = |event| named(&mut identities(), EventSource::Live, vec![event]);
            name(one) == name(other)
        };
        assert!(same(one.clone(), elsewhere));
        for other in [
            event("u", "hi", "2026-11-22T12:06:31.632804120Z"),
            event("v", "hi", MOMENT),
            // Of the same length.
            event("u", "ho", MOMENT),
        ] {
            assert!(!same(one.clone(), other));
        }
        assert!(!same(event("u", "hi", "once"), event("u", "hi", "twice")));
        let name = named(&mut identities(), EventSource::Live, vec![one]).remove(0);
        assert!(name.starts_with("1795349191632804119-"), "{name}");
    }

    #[test]
    fn what_is_the_same_in_everything_is_counted_on_each_way_alike() {
        let mut identities = identities();
        let twins = || vec![event("u", "hi", MOMENT), event("u", "hi", MOMENT)];
        let live = named(&mut identities, EventSource::Live, twins());
        assert_ne!(live[0], live[1]);
        // The buffer returns them one by one, and over two readings.
        let mut buffered = Vec::new();
        for twin in twins() {
            buffered.extend(named(&mut identities, EventSource::Buffered, vec![twin]));
        }
        assert_eq!(live, buffered);
        // A repetition by another connection is no third one.
        identities.begin();
        assert_eq!(named(&mut identities, EventSource::Live, twins()), live);
    }

    #[test]
    fn a_process_goes_on_with_the_numbers_of_the_one_before() {
        let mut first = identities();
        let twin = || vec![event("u", "hi", MOMENT)];
        let one = named(&mut first, EventSource::Buffered, twin());
        let mut second = MessageIds::new("key".to_owned(), Some(&first.to_saved()));
        let other = named(&mut second, EventSource::Buffered, twin());
        assert_eq!(other, [format!("{}-1", one[0])]);
        // Another time begins anew.
        let later = event("u", "hi", "2026-11-22T12:06:32Z");
        let mut third = MessageIds::new("key".to_owned(), Some(&second.to_saved()));
        let named_later = named(&mut third, EventSource::Buffered, vec![later]);
        assert!(!named_later[0].ends_with("-1"), "{named_later:?}");
    }

    #[test]
    fn messages_without_a_time_take_a_limited_amount_of_memory() {
        let mut identities = identities();
        for number in 0..MAX_COUNTED + 2 {
            let many = vec![event("u", &number.to_string(), "once")];
            named(&mut identities, EventSource::Live, many);
        }
        assert!(identities.live.counts.len() <= MAX_COUNTED);
        let two = (0..=MAX_SAVED).map(|number| event("u", &number.to_string(), "once"));
        named(&mut identities, EventSource::Buffered, two.collect());
        assert_eq!(identities.to_saved(), "");
    }

    #[test]
    fn nothing_can_be_guessed_without_the_key() {
        let name = |key: &str| {
            let mut identities = MessageIds::new(key.to_owned(), None);
            named(
                &mut identities,
                EventSource::Live,
                vec![event("u", "hi", MOMENT)],
            )
            .remove(0)
        };
        assert_ne!(name("key"), name("another"));
    }
}
