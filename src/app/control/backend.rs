//! The interface of chat commands to Matrix and the silos. `bridge` implements it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use footbridge_core::{lane::personal_accounts::StandIn, persons::UserIdentities};
use footbridge_store::{self as store, AccountId, Place, Portal, Tombstone};

use super::permissions::MemberRights;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The answer is no; one sentence for a person says why.
    #[error("{0}")]
    Denied(String),
    /// There is no answer now; one sentence for a person.
    #[error("{0}")]
    Unavailable(String),
    /// The bridge's own store failed: the process must stop.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A channel that can be linked to a room.
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

/// A code that was found in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeProof {
    /// Who posted it, by name.
    pub by: String,
    /// Whether they are an admin of the channel; `None` where the silo does not tell.
    pub in_control: Option<bool>,
}

/// What became of a device that was logged out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedOut {
    /// The homeserver no longer accepts its token.
    Revoked,
    /// It had been removed before.
    WasGone,
    /// Its session had expired, so that it could not log itself out.
    Expired,
}

/// The room that replaces another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The room.
    pub place: Place,
    /// The room that it says it replaces.
    pub predecessor: Option<String>,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// Matrix and the silos, as chat commands need them.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Finds a room by alias or id.
    async fn room(&self, name: &str) -> Result<Place, BackendError>;

    /// The membership and power level of a user in a room, asked of the homeserver now.
    async fn member_rights(&self, room: &Place, user: &str) -> Result<MemberRights, BackendError>;

    /// Whether nobody but the bridge and this user is in a room, or invited.
    async fn is_private(&self, _room: &Place, _user: &str) -> Result<bool, BackendError> {
        Ok(false)
    }

    /// Whether the bridge speaks through this personal account now.
    fn speaks(&self, _account: AccountId) -> bool {
        false
    }

    /// For whose personal accounts the bridge has begun to speak itself since the last call, and why.
    fn new_stand_ins(&self) -> BTreeSet<(AccountId, StandIn)> {
        BTreeSet::new()
    }

    /// Logs the device on this personal account out, and says what became of it.
    async fn log_out(&self, _account: AccountId) -> Result<LoggedOut, BackendError> {
        Ok(LoggedOut::WasGone)
    }

    /// Whether the bridge has received everything that others have sent in a room up to now, as far as that is
    /// known.
    async fn is_room_caught_up(&self, _room: &Place) -> bool {
        false
    }

    /// Finds a channel.
    async fn channel(&self, silo: &str, name: &str) -> Result<FoundChannel, BackendError>;

    /// Who can read a channel.
    async fn audience(&self, silo: &str, channel: &str) -> Audience;

    /// Finds this code in the channel; `None` while nobody has posted it.
    async fn find_code(
        &self,
        silo: &str,
        channel: &Place,
        code: &str,
    ) -> Result<Option<CodeProof>, BackendError>;

    /// Writes into the state of an unencrypted room where its portal leads (MSC2346), or removes that. Nothing happens
    /// where the power level is too low. After an error it is worth another attempt.
    async fn show(&self, portal: &Portal) -> Result<(), BackendError>;

    /// Joins the room that replaces another one, and describes it.
    async fn successor(&self, tombstone: &Tombstone) -> Result<Successor, BackendError>;

    /// The known identities of a user.
    async fn identities(&self, user: &str) -> Result<UserIdentities, BackendError>;

    /// Trusts the identity of a user that has this key, and no other, from now on. Returns how many messages were held
    /// for it; `None` when no such identity of the user is known.
    async fn approve(&self, user: &str, key: &str) -> Result<Option<u64>, BackendError>;
}
