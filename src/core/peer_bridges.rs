//! Peer bridges: other bridges of the same kind (C18). Two of them that link one room to one channel would relay each other's
//! copies back and forth. So every event of the bridge carries hashes of the channels to which it links the room, and of its
//! accounts there. A message that a peer relayed from a channel of this bridge is not relayed, and neither is what the peer's
//! account writes there for others.

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

/// The key in an event's content for the channels to which its room is linked.
const MARKER_KEY: &str = "org.footbridge.joins";
/// The prefix of the id of an account that writes for somebody else, where the network shows that it is a bridge of this kind.
pub const ACCOUNT_PREFIX: &str = "footbridge.";
/// The length of a shortened hash, in bytes.
const HASH: usize = 16;

/// The identity of a channel, the same for everybody who links it, and the bridge's account there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeMarker {
    /// The same for every bridge, whatever name the silo has in its configuration.
    pub channel: String,
    /// The bridge's account, as others see it there; `None` until it is known.
    pub account: Option<String>,
}

/// A channel to which a room is linked.
#[derive(Debug)]
struct LinkedChannel {
    place: Place,
    marker: BridgeMarker,
}

/// Which rooms are linked to which channels. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PeerBridges(Arc<Mutex<HashMap<Place, HashMap<String, LinkedChannel>>>>);

/// A peer bridge that links a room to a channel of this bridge.
#[derive(Debug, PartialEq, Eq)]
pub struct PeerBridge {
    /// The channel.
    pub place: Place,
    /// The hash of its account there, if it declares one.
    pub account: Option<String>,
}

impl PeerBridges {
    /// Records that a room is linked to a channel.
    pub fn add(&self, room: &Place, place: &Place, marker: Option<BridgeMarker>) {
        let Some(marker) = marker else {
            return;
        };
        let join = LinkedChannel {
            place: place.clone(),
            marker,
        };
        let channel = hash(&["channel", &join.marker.channel]);
        let mut rooms = self.rooms();
        rooms.entry(room.clone()).or_default().insert(channel, join);
    }

    /// Updates the marker of a channel to which a room is linked. Any other place that messages into the room come from, such as
    /// the bridge itself, is no channel.
    pub fn update(&self, room: &Place, place: &Place, marker: Option<BridgeMarker>) {
        let rooms = self.rooms();
        let known = rooms.get(room);
        let joined = known.is_some_and(|known| known.values().any(|join| join.place == *place));
        drop(rooms);
        if joined {
            self.add(room, place, marker);
        }
    }

    /// Keeps only the links between these rooms and channels.
    pub fn retain(&self, joined: &[(&Place, &Place)]) {
        for (room, rooms) in self.rooms().iter_mut() {
            rooms.retain(|_, join| joined.contains(&(room, &join.place)));
        }
    }

    /// Adds to an event the channels to which its room is linked.
    pub fn mark(&self, room: &Place, content: &mut Value) {
        let rooms = self.rooms();
        let Some((joined, content)) = rooms.get(room).zip(content.as_object_mut()) else {
            return;
        };
        let joined = joined.iter().map(|(channel, join)| {
            let account = join.marker.account.as_ref();
            (
                channel.clone(),
                json!(account.map(|id| account_hash(&join.marker.channel, id))),
            )
        });
        content.insert(MARKER_KEY.to_owned(), joined.collect());
    }

    /// The peer bridge that an event of another sender is from, once for each channel to which both bridges link the room.
    #[must_use]
    pub fn peers_in(&self, room: &Place, content: &Value) -> Vec<PeerBridge> {
        let rooms = self.rooms();
        let theirs = content.get(MARKER_KEY).and_then(Value::as_object);
        let Some((joined, theirs)) = rooms.get(room).zip(theirs) else {
            return Vec::new();
        };
        let both = joined.iter().filter_map(|(channel, join)| {
            let account = theirs.get(channel)?.as_str();
            Some(PeerBridge {
                place: join.place.clone(),
                account: account
                    .filter(|account| is_hash(account))
                    .map(str::to_owned),
            })
        });
        both.collect()
    }

    /// The hashes of the author of a message, if the author may be a peer bridge's account that writes for somebody else; empty
    /// where the message does not look like that. A claim by a member of the room must not silence users who write for
    /// themselves.
    #[must_use]
    pub fn peer_account_hashes(&self, place: &Place, message: &Message) -> Vec<String> {
        let id = message.sender.id.as_str();
        let account = match id.split_once('/') {
            // An account of Matterbridge's API.
            Some((account, _)) if account.starts_with("api.") => account,
            Some((account, _)) => match account.strip_prefix(ACCOUNT_PREFIX) {
                Some(account) => account,
                None => return Vec::new(),
            },
            None if has_name_prefix(message) => id,
            None => return Vec::new(),
        };
        let rooms = self.rooms();
        let channels = rooms.values().flat_map(HashMap::values);
        let channels = channels.filter(|join| join.place == *place);
        channels
            .map(|join| account_hash(&join.marker.channel, account))
            .collect()
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<Place, HashMap<String, LinkedChannel>>> {
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

/// Whether this may be a result of [`hash`].
fn is_hash(text: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(text)
        .is_ok_and(|bytes| bytes.len() == HASH)
}

/// Whether a message begins as bridges of this kind begin relayed messages: with a name in bold and a colon, or as an action.
fn has_name_prefix(message: &Message) -> bool {
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

    fn origin(account: &str) -> BridgeMarker {
        BridgeMarker {
            channel: "gitter/1".to_owned(),
            account: Some(account.to_owned()),
        }
    }

    fn post(user: &str, line: Vec<Inline>) -> Message {
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
    fn c18_bridges_recognise_each_other_by_the_channel_and_nobody_else_is_taken_for_one() {
        let room = Place::room("!r:x");
        let (here, there) = (Place::new("gitter", "1"), Place::new("git", "1"));
        let (ours, theirs) = (PeerBridges::default(), PeerBridges::default());
        ours.add(&room, &here, Some(origin("us")));
        theirs.add(&room, &there, Some(origin("them")));
        let mut event = json!({"body": "hi"});
        theirs.mark(&room, &mut event);
        let other = ours.peers_in(&room, &event).remove(0);
        assert_eq!(other.place, here);
        let known = other.account.unwrap();
        assert!(!event.to_string().contains("them"), "{event}");

        let name = Inline::Bold(vec![Inline::Text("Ann".to_owned())]);
        let hi = Inline::Text(": hi".to_owned());
        let relayed = post("them", vec![name, hi.clone()]);
        assert_eq!(
            ours.peer_account_hashes(&here, &relayed),
            std::slice::from_ref(&known)
        );
        let shown = post("footbridge.them/Ann", vec![hi.clone()]);
        assert_eq!(ours.peer_account_hashes(&here, &shown), [known]);
        let api = post("api.them/@ann:x", vec![hi.clone()]);
        assert_eq!(ours.peer_account_hashes(&here, &api).len(), 1);
        let bold = || Inline::Bold(vec![Inline::Text("Note".to_owned())]);
        let noted = post("them", vec![bold(), Inline::Text(" well".to_owned())]);
        assert!(ours.peer_account_hashes(&here, &noted).is_empty());
        // A claim can silence neither a user who writes for themselves, nor a program of another kind.
        for user in ["them", "them/GitHub", "irc.local/bob"] {
            assert!(
                ours.peer_account_hashes(&here, &post(user, vec![hi.clone()]))
                    .is_empty()
            );
        }
        // A message from no channel does not make two bridges peers.
        let (home, elsewhere) = (Place::new("bridge", "home"), PeerBridges::default());
        let of_home = || {
            Some(BridgeMarker {
                channel: "gitter/home".to_owned(),
                account: None,
            })
        };
        ours.update(&room, &home, of_home());
        elsewhere.add(&room, &home, of_home());
        let mut notice = json!({});
        elsewhere.mark(&room, &mut notice);
        assert!(ours.peers_in(&room, &notice).is_empty());
        ours.update(&room, &here, Some(origin("us anew")));
        assert_eq!(ours.peers_in(&room, &event).len(), 1);
        // A channel that is no longer linked has no peers.
        ours.retain(&[(&room, &there)]);
        assert!(ours.peers_in(&room, &event).is_empty());
        ours.add(&room, &here, Some(origin("us")));
        ours.retain(&[(&room, &here)]);
        assert_eq!(ours.peers_in(&room, &event).len(), 1);
        // Another room, another channel, no marker at all.
        let elsewhere = Place::room("!s:x");
        assert!(ours.peers_in(&elsewhere, &event).is_empty());
        let mut foreign = json!({});
        let stranger = PeerBridges::default();
        let far = BridgeMarker {
            channel: "gitter/2".to_owned(),
            account: None,
        };
        stranger.add(&room, &there, Some(far));
        stranger.mark(&room, &mut foreign);
        assert!(ours.peers_in(&room, &foreign).is_empty());
        assert!(
            ours.peers_in(&room, &json!({"org.footbridge.joins": 7}))
                .is_empty()
        );
        // An account hash in a claim is kept only if it can be one.
        let joined = hash(&["channel", "gitter/1"]);
        for account in ["", "them", &"A".repeat(40_000), &"A".repeat(23)] {
            let claim = json!({"org.footbridge.joins": {joined.clone(): account}});
            let other = ours.peers_in(&room, &claim).remove(0);
            assert_eq!(other.account, None, "{}", account.len());
        }
    }
}
