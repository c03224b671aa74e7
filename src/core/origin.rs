//! Other bridges of our kind (C18): two of them that join one room to one channel would carry each other's copies back
//! and forth. So every event of ours says, in hashes, which channels we join its room to, and as whom. What another
//! bridge brought from a channel of ours goes no further, and neither does what its account writes there for others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use footbridge_store::Place;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    message::{Action, Message},
    text::{Block, Inline},
};

/// Under this key an event says which channels its room is joined to.
const JOINS: &str = "org.footbridge.joins";
/// The rule for what another bridge has brought.
pub const ANOTHER_BRIDGE: &str = "another-bridge";
/// Stands before the id of an account that speaks for somebody, where the network shows that it is one of our kind.
pub const OURS: &str = "footbridge.";
/// So much of a hash is enough, in bytes.
const HASH: usize = 16;

/// Where a channel is for everybody who joins it, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The same for every bridge, whatever it calls the silo.
    pub channel: String,
    /// Our account, as others see it there; `None` until it is known.
    pub account: Option<String>,
}

/// A channel that a room is joined to.
#[derive(Debug)]
struct Join {
    place: Place,
    origin: Origin,
}

/// Which rooms are joined to which channels. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Origins(Arc<Mutex<HashMap<Place, HashMap<String, Join>>>>);

/// Another bridge that joins a room to a channel of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Other {
    /// The channel.
    pub place: Place,
    /// Its account there, hashed, as far as it says.
    pub account: Option<String>,
}

impl Origins {
    /// A room is joined to a channel.
    pub fn note(&self, room: &Place, place: &Place, origin: Option<Origin>) {
        let Some(origin) = origin else {
            return;
        };
        let join = Join {
            place: place.clone(),
            origin,
        };
        let channel = hash(&["channel", &join.origin.channel]);
        let mut joins = self.joins();
        joins.entry(room.clone()).or_default().insert(channel, join);
    }

    /// More is known of a channel that a room is joined to. Anything else that comes into the room, as what the bridge itself
    /// has to say, is from no channel.
    pub fn renew(&self, room: &Place, place: &Place, origin: Option<Origin>) {
        let joins = self.joins();
        let known = joins.get(room);
        let joined = known.is_some_and(|known| known.values().any(|join| join.place == *place));
        drop(joins);
        if joined {
            self.note(room, place, origin);
        }
    }

    /// Only these rooms are joined to these channels any more.
    pub fn keep(&self, joined: &[(&Place, &Place)]) {
        for (room, joins) in self.joins().iter_mut() {
            joins.retain(|_, join| joined.contains(&(room, &join.place)));
        }
    }

    /// Says in an event which channels its room is joined to.
    pub fn mark(&self, room: &Place, content: &mut Value) {
        let joins = self.joins();
        let Some((joined, content)) = joins.get(room).zip(content.as_object_mut()) else {
            return;
        };
        let joined = joined.iter().map(|(channel, join)| {
            let account = join.origin.account.as_ref();
            (
                channel.clone(),
                json!(account.map(|id| account_hash(&join.origin.channel, id))),
            )
        });
        content.insert(JOINS.to_owned(), joined.collect());
    }

    /// The other bridge that an event of somebody else's is from, once for each channel that both of us join the room to.
    #[must_use]
    pub fn others(&self, room: &Place, content: &Value) -> Vec<Other> {
        let joins = self.joins();
        let theirs = content.get(JOINS).and_then(Value::as_object);
        let Some((joined, theirs)) = joins.get(room).zip(theirs) else {
            return Vec::new();
        };
        let both = joined.iter().filter_map(|(channel, join)| {
            let account = theirs.get(channel)?.as_str();
            Some(Other {
                place: join.place.clone(),
                account: account
                    .filter(|account| is_hash(account))
                    .map(str::to_owned),
            })
        });
        both.collect()
    }

    /// The hashes of the author of a message, if it may be another bridge's account which speaks for somebody; none where the
    /// message does not look like that. What a member of the room claims must silence nobody who speaks for themselves.
    #[must_use]
    pub fn suspects(&self, place: &Place, message: &Message) -> Vec<String> {
        let id = message.sender.id.as_str();
        let account = match id.split_once('/') {
            // An account of Matterbridge's API.
            Some((account, _)) if account.starts_with("api.") => account,
            Some((account, _)) => match account.strip_prefix(OURS) {
                Some(account) => account,
                None => return Vec::new(),
            },
            None if begins_with_a_name(message) => id,
            None => return Vec::new(),
        };
        let joins = self.joins();
        let origins = joins.values().flat_map(HashMap::values);
        let here = origins.filter(|join| join.place == *place);
        here.map(|join| account_hash(&join.origin.channel, account))
            .collect()
    }

    fn joins(&self) -> MutexGuard<'_, HashMap<Place, HashMap<String, Join>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn account_hash(channel: &str, account: &str) -> String {
    hash(&["account", channel, account])
}

fn hash(words: &[&str]) -> String {
    let mut digest = Sha256::new();
    for word in words {
        digest.update(word);
        digest.update([0]);
    }
    let digest = digest.finalize();
    URL_SAFE_NO_PAD.encode(digest.get(..HASH).unwrap_or_default())
}

/// Whether this may be one of [`hash`].
fn is_hash(text: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(text)
        .is_ok_and(|bytes| bytes.len() == HASH)
}

/// As bridges like us begin what others said: with a name in bold and a colon, or as an action.
fn begins_with_a_name(message: &Message) -> bool {
    let (Action::Post { body, .. } | Action::Edit { body, .. }) = &message.action else {
        return false;
    };
    let Some(Block::Paragraph(line)) = body.0.first() else {
        return false;
    };
    let mut line = line.iter();
    match line.next() {
        Some(Inline::Text(mark)) if mark.trim() == "*" => {
            matches!(line.next(), Some(Inline::Bold(_)))
        }
        Some(Inline::Bold(_)) => {
            matches!(line.next(), Some(Inline::Text(rest)) if rest.starts_with(':'))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::Millis;

    use super::*;
    use crate::{
        message::{Sender, Style},
        text::Body,
    };

    fn origin(account: &str) -> Origin {
        Origin {
            channel: "gitter/1".to_owned(),
            account: Some(account.to_owned()),
        }
    }

    fn said(user: &str, line: Vec<Inline>) -> Message {
        let mut message = Message::notice("", Millis(0));
        message.sender = Sender {
            id: user.to_owned(),
            name: "X".to_owned(),
            avatar: None,
        };
        message.action = Action::Post {
            body: Body(vec![Block::Paragraph(line)]),
            style: Style::Text,
            reply_to: None,
            thread: None,
        };
        message
    }

    #[test]
    fn c18_bridges_know_each_other_by_the_channel_and_nobody_else_is_taken_for_one() {
        let room = Place::room("!r:x");
        let (here, there) = (Place::new("gitter", "1"), Place::new("git", "1"));
        let (ours, theirs) = (Origins::default(), Origins::default());
        ours.note(&room, &here, Some(origin("us")));
        theirs.note(&room, &there, Some(origin("them")));
        let mut event = json!({"body": "hi"});
        theirs.mark(&room, &mut event);
        let other = ours.others(&room, &event).remove(0);
        assert_eq!(other.place, here);
        let known = other.account.unwrap();
        assert!(!event.to_string().contains("them"), "{event}");

        let name = Inline::Bold(vec![Inline::Text("Ann".to_owned())]);
        let hi = Inline::Text(": hi".to_owned());
        let relayed = said("them", vec![name, hi.clone()]);
        assert_eq!(ours.suspects(&here, &relayed), std::slice::from_ref(&known));
        let shown = said("footbridge.them/Ann", vec![hi.clone()]);
        assert_eq!(ours.suspects(&here, &shown), [known]);
        let api = said("api.them/@ann:x", vec![hi.clone()]);
        assert_eq!(ours.suspects(&here, &api).len(), 1);
        let bold = || Inline::Bold(vec![Inline::Text("Note".to_owned())]);
        let noted = said("them", vec![bold(), Inline::Text(" well".to_owned())]);
        assert!(ours.suspects(&here, &noted).is_empty());
        // Nobody can be silenced who speaks for themselves, and no program of another kind.
        for user in ["them", "them/GitHub", "irc.local/bob"] {
            assert!(
                ours.suspects(&here, &said(user, vec![hi.clone()]))
                    .is_empty()
            );
        }
        // What comes from no channel makes no two bridges one.
        let (home, elsewhere) = (Place::new("bridge", "home"), Origins::default());
        let of_home = || {
            Some(Origin {
                channel: "gitter/home".to_owned(),
                account: None,
            })
        };
        ours.renew(&room, &home, of_home());
        elsewhere.note(&room, &home, of_home());
        let mut notice = json!({});
        elsewhere.mark(&room, &mut notice);
        assert!(ours.others(&room, &notice).is_empty());
        ours.renew(&room, &here, Some(origin("us anew")));
        assert_eq!(ours.others(&room, &event).len(), 1);
        // What we join no more is nobody's concern.
        ours.keep(&[(&room, &there)]);
        assert!(ours.others(&room, &event).is_empty());
        ours.note(&room, &here, Some(origin("us")));
        ours.keep(&[(&room, &here)]);
        assert_eq!(ours.others(&room, &event).len(), 1);
        // Another room, another channel, no mark at all.
        let elsewhere = Place::room("!s:x");
        assert!(ours.others(&elsewhere, &event).is_empty());
        let mut foreign = json!({});
        let stranger = Origins::default();
        let far = Origin {
            channel: "gitter/2".to_owned(),
            account: None,
        };
        stranger.note(&room, &there, Some(far));
        stranger.mark(&room, &mut foreign);
        assert!(ours.others(&room, &foreign).is_empty());
        assert!(
            ours.others(&room, &json!({"org.footbridge.joins": 7}))
                .is_empty()
        );
        // Whatever somebody writes for an account is kept only if it could be one.
        let joined = hash(&["channel", "gitter/1"]);
        for account in ["", "them", &"A".repeat(40_000), &"A".repeat(23)] {
            let claim = json!({"org.footbridge.joins": {joined.clone(): account}});
            let other = ours.others(&room, &claim).remove(0);
            assert_eq!(other.account, None, "{}", account.len());
        }
    }
}
