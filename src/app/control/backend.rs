//! What control has to ask of the other sides, and what it has done there. The wiring answers.

use async_trait::async_trait;
use footbridge_core::persons::UserIdentities;
use footbridge_store::{self as store, Place, Portal, Tombstone};

use super::permissions::MemberRights;

/// Why an answer is missing.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// It is so, and one sentence for a person says why.
    #[error("{0}")]
    Denied(String),
    /// It cannot be told now; one sentence for a person.
    #[error("{0}")]
    Unavailable(String),
    /// Our own store failed: the house must stop.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A channel that could be joined to a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundChannel {
    /// Where it is.
    pub place: Place,
    /// Its name as the silo writes it.
    pub name: String,
}

/// Who can read a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Whether everybody can; `None` when the silo does not tell.
    pub public: Option<bool>,
    /// Who runs the silo: a name or a host.
    pub operator: String,
}

/// A code that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeProof {
    /// Who posted it, by name.
    pub by: String,
    /// Whether they may decide about the channel; `None` where the silo does not tell.
    pub in_control: Option<bool>,
}

/// What a room that takes another's place is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The room.
    pub place: Place,
    /// The room that it says it replaces.
    pub predecessor: Option<String>,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// Both sides, as control needs them.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Finds a room by alias or id.
    async fn room(&self, name: &str) -> Result<Place, BackendError>;

    /// How somebody stands in a room now, as the homeserver tells.
    async fn member_rights(&self, room: &Place, user: &str) -> Result<MemberRights, BackendError>;

    /// Whether all that others have said in a room by now has been taken in, as far as that can be told.
    async fn is_room_caught_up(&self, _room: &Place) -> bool {
        false
    }

    /// Finds a channel.
    async fn channel(&self, silo: &str, name: &str) -> Result<FoundChannel, BackendError>;

    /// Who can read a channel.
    async fn audience(&self, silo: &str, channel: &str) -> Audience;

    /// Whether this code stands in the channel.
    async fn heard(
        &self,
        silo: &str,
        channel: &Place,
        code: &str,
    ) -> Result<Option<CodeProof>, BackendError>;

    /// Shows in the state of a room that is not encrypted where its portal leads (MSC2346), or that it leads there no
    /// longer. Where the rights for it are missing, nothing happens. An error is worth another try.
    async fn show(&self, portal: &Portal) -> Result<(), BackendError>;

    /// Enters the room that takes another's place, and tells what it is like.
    async fn successor(&self, tombstone: &Tombstone) -> Result<Successor, BackendError>;

    /// What is known of a user's identities.
    async fn identities(&self, user: &str) -> Result<UserIdentities, BackendError>;

    /// The identity of a user with this key is trusted from now on, and no other. Answers how many messages were held
    /// for it; `None` when no such identity of the user is known.
    async fn approve(&self, user: &str, key: &str) -> Result<Option<u64>, BackendError>;
}
