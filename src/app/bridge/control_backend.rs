//! The backend of the chat commands: passes their requests to Matrix and to the silos.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use footbridge_core::{
    lane::personal_accounts::{PersonalAccounts, StandIn},
    persons::UserIdentities,
};
use footbridge_matrix::{Matrix, MatrixError, personal_login};
use footbridge_silo::{Silo, SiloError};
use footbridge_store::{AccountId, Place, Portal, Store, Tombstone};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::control::{
    Audience, Backend, BackendError, CodeProof, FoundChannel, LoggedOut, MemberRights, Successor,
};

/// How long one request may take: a person waits for the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The state event that shows where a room is bridged to (MSC2346).
const BRIDGE_STATE: &str = "uk.half-shot.bridge";

/// Both sides of a running bridge.
pub(super) struct ControlBackend {
    pub matrix: Arc<Matrix>,
    pub silos: BTreeMap<String, Arc<dyn Silo>>,
    /// The personal accounts that send into rooms.
    pub accounts: PersonalAccounts,
    pub store: Store,
    pub http: reqwest::Client,
}

impl ControlBackend {
    fn silo(&self, name: &str) -> Result<&Arc<dyn Silo>, BackendError> {
        self.silos.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.silos.keys().map(String::as_str).collect();
            BackendError::Denied(format!(
                "No silo `{name}` is configured. Configured: {}.",
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            ))
        })
    }
}

/// Asks the homeserver.
async fn ask<T>(
    request: impl Future<Output = Result<T, MatrixError>>,
    no: &str,
) -> Result<T, BackendError> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(MatrixError::Store(error))) => Err(BackendError::Store(error)),
        Ok(Err(MatrixError::NoRoom(_))) => Err(BackendError::Denied(no.to_owned())),
        Ok(Err(_)) | Err(_) => Err(BackendError::Unavailable(
            "The homeserver does not answer now. Please try again in a moment.".to_owned(),
        )),
    }
}

/// Asks a silo.
async fn ask_silo<T>(
    name: &str,
    request: impl Future<Output = Result<T, SiloError>>,
) -> Result<T, BackendError> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(SiloError::Store(error))) => Err(BackendError::Store(error)),
        Ok(Err(SiloError::NoChannel(reason))) => Err(BackendError::Denied(format!(
            "I cannot use that channel of {name}: {}.",
            reason.trim_end_matches('.')
        ))),
        Ok(Err(_)) | Err(_) => Err(BackendError::Unavailable(format!(
            "{name} does not answer now. Please try again in a moment."
        ))),
    }
}

#[async_trait]
impl Backend for ControlBackend {
    async fn room(&self, name: &str) -> Result<Place, BackendError> {
        ask(
            self.matrix.device().resolve(name),
            "I cannot find that room.",
        )
        .await
    }

    async fn member_rights(&self, room: &Place, user: &str) -> Result<MemberRights, BackendError> {
        let rights = ask(
            self.matrix.device().member_rights(room, user),
            "I am not in that room: invite me there first.",
        )
        .await?;
        Ok(MemberRights {
            joined: rights.joined,
            level: rights.level,
            to_change_power: rights.to_change_power,
            state_default: rights.state_default,
            encrypted: rights.encrypted,
        })
    }

    async fn is_private(&self, room: &Place, user: &str) -> Result<bool, BackendError> {
        let private = self.matrix.device().is_private_with(room, user);
        ask(private, "I am not in that room.").await
    }

    fn speaks(&self, account: AccountId) -> bool {
        self.accounts.is_running(account)
    }

    fn new_stand_ins(&self) -> BTreeSet<(AccountId, StandIn)> {
        self.accounts.new_stand_ins()
    }

    async fn log_out(&self, account: AccountId) -> Result<LoggedOut, BackendError> {
        let ended = personal_login::log_out(&self.store, &self.http, account);
        let ended = ask(ended, "That account is not logged in.").await?;
        Ok(match ended {
            personal_login::LoggedOut::Revoked => LoggedOut::Revoked,
            personal_login::LoggedOut::WasGone => LoggedOut::WasGone,
            personal_login::LoggedOut::Expired => LoggedOut::Expired,
        })
    }

    async fn is_room_caught_up(&self, room: &Place) -> bool {
        matches!(
            timeout(
                REQUEST_TIMEOUT,
                self.matrix.device().is_room_caught_up(room)
            )
            .await,
            Ok(Ok(true))
        )
    }

    async fn channel(&self, silo: &str, name: &str) -> Result<FoundChannel, BackendError> {
        let channel = ask_silo(silo, self.silo(silo)?.resolve(name)).await?;
        Ok(FoundChannel {
            place: channel.place,
            name: channel.name,
        })
    }

    async fn audience(&self, silo: &str, channel: &str) -> Audience {
        let unknown = || Audience {
            public: None,
            operator: silo.to_owned(),
        };
        let Ok(found) = self.silo(silo) else {
            return unknown();
        };
        match timeout(REQUEST_TIMEOUT, found.audience(channel)).await {
            Ok(readers) if !readers.operator.is_empty() => Audience {
                public: readers.public,
                operator: readers.operator,
            },
            Ok(_) | Err(_) => unknown(),
        }
    }

    async fn find_code(
        &self,
        silo: &str,
        channel: &Place,
        code: &str,
    ) -> Result<Option<CodeProof>, BackendError> {
        let poster = ask_silo(silo, self.silo(silo)?.find_code(channel, code)).await?;
        Ok(poster.map(|poster| CodeProof {
            by: poster.name,
            in_control: poster.is_admin,
        }))
    }

    async fn show(&self, portal: &Portal) -> Result<(), BackendError> {
        let spec = &portal.spec;
        let key = format!("footbridge/{}/{}", spec.silo, portal.channel.address());
        let content = if portal.active {
            mark(self.matrix.device().user(), portal)
        } else {
            json!({})
        };
        let written =
            self.matrix
                .device()
                .put_plaintext_state(&portal.room, BRIDGE_STATE, &key, &content);
        ask(written, "I am not in that room.").await.map(drop)
    }

    async fn successor(&self, tombstone: &Tombstone) -> Result<Successor, BackendError> {
        let entered = timeout(
            REQUEST_TIMEOUT,
            self.matrix.device().join_successor(tombstone),
        )
        .await;
        match entered {
            Ok(Ok(next)) => Ok(Successor {
                place: next.place,
                predecessor: next.predecessor,
                encrypted: next.encrypted,
            }),
            Ok(Err(MatrixError::Store(error))) => Err(BackendError::Store(error)),
            // An invite may still come.
            Ok(Err(_)) | Err(_) => Err(BackendError::Unavailable(
                "the bridge cannot join the new room yet; invite it there".to_owned(),
            )),
        }
    }

    async fn identities(&self, user: &str) -> Result<UserIdentities, BackendError> {
        ask(
            self.matrix.device().identities_of(user),
            "I am not in that room.",
        )
        .await
    }

    async fn approve(&self, user: &str, key: &str) -> Result<Option<u64>, BackendError> {
        let approved = ask(
            self.matrix.device().approve(user, key),
            "I am not in that room.",
        )
        .await?;
        Ok(approved.map(|approved| approved.held))
    }
}

/// The content of the bridge state event of a portal.
fn mark(bot: &str, portal: &Portal) -> Value {
    let spec = &portal.spec;
    json!({
        "bridgebot": bot,
        "protocol": {"id": spec.silo, "displayname": spec.silo},
        "channel": {"id": portal.channel.address(), "displayname": spec.channel},
    })
}
