//! Whose invites are accepted, and for which rooms an invite waits until its portal is open.

use std::sync::{Mutex, PoisonError};

use footbridge_core::persons::is_admin;

/// What the operator says about invites.
#[derive(Debug)]
pub(super) struct InvitePolicy {
    /// User ids and servers from which invites are accepted.
    inviters: Vec<String>,
    greeting: String,
    /// Rooms, by id or alias, that portals name and that are not resolved yet.
    awaited_rooms: Mutex<Vec<String>>,
}

impl InvitePolicy {
    /// `inviters` are user ids and servers, `greeting` is what the bridge says in a room to which one of them invited
    /// it.
    pub(super) fn of(inviters: Vec<String>, greeting: String) -> Self {
        Self {
            inviters,
            greeting,
            awaited_rooms: Mutex::default(),
        }
    }

    /// Whether invites from this user are accepted.
    pub(super) fn admits(&self, inviter: &str) -> bool {
        is_admin(&self.inviters, inviter)
    }

    /// The bridge's greeting in a room that it has just joined by such an invite.
    pub(super) fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Sets the rooms, by id or alias, of portals that are not resolved yet.
    pub(super) fn set_awaited_rooms(&self, rooms: Vec<String>) {
        *self
            .awaited_rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = rooms;
    }

    /// The rooms, by id or alias, of portals that are not resolved yet.
    pub(super) fn awaited_rooms(&self) -> Vec<String> {
        let awaited = self.awaited_rooms.lock();
        awaited.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invites_are_accepted_from_users_and_servers_on_the_list_only() {
        let list = ["@ann:a.example", "b.example"].map(str::to_owned).to_vec();
        let policy = InvitePolicy::of(list, "Hello".to_owned());
        assert!(policy.admits("@ann:a.example"));
        assert!(!policy.admits("@bob:a.example"));
        assert!(!InvitePolicy::of(Vec::new(), String::new()).admits("@ann:a.example"));
        assert_eq!(policy.greeting(), "Hello");
        policy.set_awaited_rooms(vec!["#a:x".to_owned()]);
        assert_eq!(policy.awaited_rooms(), ["#a:x"]);
    }
}
