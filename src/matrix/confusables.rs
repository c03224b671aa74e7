//! Names that could be taken for somebody else's (C10): each author from a channel is distinguished from the members of
//! the room and from the other authors there.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use footbridge_core::{message::Sender, names, outlet::Content};
use footbridge_store::Place;
use matrix_sdk::{Room, RoomMemberships, ruma::OwnedUserId};
use tokio::time::Instant;

use super::convert::renamed;

/// How long the names of a room's members stay valid.
const MEMBERS_TTL: Duration = Duration::from_mins(5);
/// The most names of authors that are kept per room.
const MAX_SPEAKERS: usize = 10_000;
/// How many characters of an id distinguish two authors with one name.
const ID_CHARS: usize = 8;

/// The names of each room's members and authors.
#[derive(Debug)]
pub(super) struct RoomNameTable {
    own: OwnedUserId,
    rooms: Mutex<HashMap<Place, RoomNames>>,
}

#[derive(Debug, Default)]
struct RoomNames {
    members: HashSet<String>,
    read: Option<Instant>,
    /// Which author used a name first, by the name's skeleton.
    speakers: HashMap<String, String>,
}

impl RoomNames {
    /// The mark for this author, if somebody else's name looks like theirs.
    fn mark(&mut self, author: &Sender) -> Option<String> {
        let confusable_skeleton = names::confusable_skeleton(&author.name);
        if confusable_skeleton.is_empty() {
            return None;
        }
        if self.members.contains(&confusable_skeleton) {
            return Some("bridged".to_owned());
        }
        if self.speakers.len() >= MAX_SPEAKERS {
            self.speakers.clear();
        }
        let first = self.speakers.entry(confusable_skeleton);
        let first = first.or_insert_with(|| author.id.clone());
        (*first != author.id).then(|| author.id.chars().take(ID_CHARS).collect())
    }
}

impl RoomNameTable {
    /// For the rooms of the account with this user id.
    pub(super) fn of(own: OwnedUserId) -> Self {
        Self {
            own,
            rooms: Mutex::default(),
        }
    }

    /// The content with a name that nobody else in the room has.
    pub(super) async fn disambiguate(&self, room: &Room, to: &Place, content: &Content) -> Content {
        let Some(author) = &content.author else {
            return content.clone();
        };
        // If the members cannot be read now, the next message reads them.
        if !self.is_fresh(to)
            && let Ok(members) = room.members(RoomMemberships::ACTIVE).await
        {
            let others = members.iter();
            let others = others.filter(|member| member.user_id() != self.own);
            let names = others.flat_map(|member| [member.name(), member.user_id().localpart()]);
            self.learn(to, names.map(names::confusable_skeleton));
        }
        match self.mark(to, author) {
            Some(mark) => renamed(content, &format!("{} ({mark})", author.name)),
            None => content.clone(),
        }
    }

    fn with<T>(&self, place: &Place, act: impl FnOnce(&mut RoomNames) -> T) -> T {
        let mut all = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        act(all.entry(place.clone()).or_default())
    }

    fn is_fresh(&self, place: &Place) -> bool {
        self.with(place, |known| {
            known.read.is_some_and(|at| at.elapsed() < MEMBERS_TTL)
        })
    }

    fn learn(&self, place: &Place, members: impl Iterator<Item = String>) {
        let members = members.filter(|name| !name.is_empty()).collect();
        self.with(place, |known| {
            (known.members, known.read) = (members, Some(Instant::now()));
        });
    }

    fn mark(&self, place: &Place, author: &Sender) -> Option<String> {
        self.with(place, |known| known.mark(author))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(id: &str, name: &str) -> Sender {
        Sender {
            id: id.to_owned(),
            name: name.to_owned(),
            avatar: None,
        }
    }

    #[test]
    fn c10_who_looks_like_a_member_or_like_another_speaker_is_marked() {
        let all = RoomNameTable::of(OwnedUserId::try_from("@bridge:x").unwrap());
        let room = Place::room("!r:x");
        all.learn(
            &room,
            [names::confusable_skeleton("Ann"), String::new()].into_iter(),
        );
        assert!(all.is_fresh(&room) && !all.is_fresh(&Place::room("!other:x")));
        let mark = |id: &str, name: &str| all.mark(&room, &person(id, name));
        assert_eq!(mark("u1", "Ann").as_deref(), Some("bridged"));
        assert_eq!(mark("u2", "Аnn").as_deref(), Some("bridged"));
        assert_eq!(mark("u3", "Bob"), None);
        assert_eq!(mark("u3", "Bob"), None);
        assert_eq!(mark("an-id-of-many", "b o b").as_deref(), Some("an-id-of"));
        assert_eq!(mark("u3", "Bobby"), None);
        assert_eq!(mark("u5", "🎉"), None);
    }
}
