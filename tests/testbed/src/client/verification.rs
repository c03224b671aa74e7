//! Emoji verification (SAS) by a test client, step by step as clients let users do it.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, anyhow};
use matrix_sdk::{
    encryption::verification::{
        SasState, Verification, VerificationRequest, VerificationRequestState,
    },
    ruma::{UserId, events::key::verification::VerificationMethod},
};
use tokio::sync::Mutex;

use super::{Boxed, TestClient};

/// The verifications of this client by flow id. Kept here because the SDK forgets those that ended.
pub(super) type KnownFlows = Arc<Mutex<HashMap<String, VerificationRequest>>>;

/// What the client shows of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerificationScreen {
    /// The other side requests a verification.
    Requested,
    /// The client waits for the other side.
    Waiting,
    /// The user compares the emoji: the names of the seven.
    Compare(Vec<String>),
    /// This side confirmed, the other side did not yet.
    Confirmed,
    /// The verification succeeded.
    Done,
    /// The verification was cancelled, for this reason.
    Cancelled(String),
}

fn emoji_only() -> Vec<VerificationMethod> {
    vec![VerificationMethod::SasV1]
}

impl TestClient {
    /// Requests a verification of this user in a direct room, which is created if there is none; returns the flow id.
    #[must_use]
    pub fn ask_to_verify(&self, user: &str) -> Boxed<'_, anyhow::Result<String>> {
        let user = user.to_owned();
        Box::pin(async move {
            let user = <&UserId>::try_from(user.as_str())?;
            let encryption = self.client.encryption();
            let identity = encryption.request_user_identity(user).await?;
            let identity = identity.context("this user has no identity")?;
            let request = identity.request_verification_with_methods(emoji_only());
            Ok(request.await?.flow_id().to_owned())
        })
    }

    /// Requests a verification by to-device messages, without a room; returns the flow id.
    #[must_use]
    pub fn ask_device_to_verify(&self, user: &str) -> Boxed<'_, anyhow::Result<String>> {
        let user = user.to_owned();
        Box::pin(async move {
            let user = <&UserId>::try_from(user.as_str())?;
            let encryption = self.client.encryption();
            encryption.request_user_identity(user).await?;
            let devices = encryption.get_user_devices(user).await?;
            let device = devices.devices().next().context("no device")?;
            let request = device.request_verification_with_methods(emoji_only());
            Ok(request.await?.flow_id().to_owned())
        })
    }

    /// Queries the homeserver for the identity and the devices of this user.
    #[must_use]
    pub fn learn(&self, user: &str) -> Boxed<'_, anyhow::Result<()>> {
        let user = user.to_owned();
        Box::pin(async move {
            let user = <&UserId>::try_from(user.as_str())?;
            let encryption = self.client.encryption();
            encryption.request_user_identity(user).await?;
            Ok(())
        })
    }

    /// The direct room with this user, if there is one.
    #[must_use]
    pub fn direct_room(&self, user: &str) -> Option<String> {
        let room = self.client.get_dm_room(<&UserId>::try_from(user).ok()?)?;
        Some(room.room_id().to_string())
    }

    /// Accepts every invite.
    #[must_use]
    pub fn join_invites(&self) -> Boxed<'_, anyhow::Result<()>> {
        Box::pin(async move {
            for room in self.client.invited_rooms() {
                room.join().await?;
            }
            Ok(())
        })
    }

    /// Accepts the verification request.
    #[must_use]
    pub fn accept_verification(&self, user: &str, flow: &str) -> Boxed<'_, anyhow::Result<()>> {
        let (user, flow) = (user.to_owned(), flow.to_owned());
        Box::pin(async move {
            let request = self.verification(&user, &flow).await?;
            Ok(request.accept_with_methods(emoji_only()).await?)
        })
    }

    /// Performs the steps that clients perform by themselves, and returns what the client shows then.
    #[must_use]
    pub fn screen(&self, user: &str, flow: &str) -> Boxed<'_, anyhow::Result<VerificationScreen>> {
        let (user, flow) = (user.to_owned(), flow.to_owned());
        Box::pin(async move {
            let request = self.verification(&user, &flow).await?;
            Ok(match request.state() {
                VerificationRequestState::Created { .. } => VerificationScreen::Waiting,
                VerificationRequestState::Requested { .. } => VerificationScreen::Requested,
                VerificationRequestState::Ready { .. } => {
                    if request.we_started() {
                        request.start_sas().await?;
                    }
                    VerificationScreen::Waiting
                }
                VerificationRequestState::Transitioned {
                    verification: Verification::SasV1(sas),
                } => match sas.state() {
                    SasState::Started { .. } if !sas.we_started() => {
                        sas.accept().await?;
                        VerificationScreen::Waiting
                    }
                    SasState::KeysExchanged { .. } => {
                        let emoji = sas.emoji().context("no emoji")?;
                        VerificationScreen::Compare(
                            emoji.iter().map(|one| one.description.into()).collect(),
                        )
                    }
                    SasState::Confirmed => VerificationScreen::Confirmed,
                    SasState::Done { .. } => VerificationScreen::Done,
                    SasState::Cancelled(why) => {
                        VerificationScreen::Cancelled(why.reason().to_owned())
                    }
                    _ => VerificationScreen::Waiting,
                },
                VerificationRequestState::Transitioned { .. } => {
                    return Err(anyhow!("the verification does not use emoji"));
                }
                VerificationRequestState::Done => VerificationScreen::Done,
                VerificationRequestState::Cancelled(why) => {
                    VerificationScreen::Cancelled(why.reason().to_owned())
                }
            })
        })
    }

    /// Confirms the verification, or cancels it because the emoji differ.
    #[must_use]
    pub fn compared(
        &self,
        user: &str,
        flow: &str,
        same: EmojiComparison,
    ) -> Boxed<'_, anyhow::Result<()>> {
        let (user, flow) = (user.to_owned(), flow.to_owned());
        Box::pin(async move {
            let request = self.verification(&user, &flow).await?;
            let VerificationRequestState::Transitioned {
                verification: Verification::SasV1(sas),
            } = request.state()
            else {
                return Err(anyhow!("the verification has no emoji to compare"));
            };
            match same {
                EmojiComparison::Same => Ok(sas.confirm().await?),
                EmojiComparison::Different => Ok(sas.mismatch().await?),
            }
        })
    }

    /// Whether this client's identity has verified the identity of the user.
    #[must_use]
    pub fn has_verified(&self, user: &str) -> Boxed<'_, anyhow::Result<bool>> {
        let user = user.to_owned();
        Box::pin(async move {
            let user = <&UserId>::try_from(user.as_str())?;
            let identity = self.client.encryption().get_user_identity(user).await?;
            Ok(identity.is_some_and(|identity| identity.is_verified()))
        })
    }

    /// Withdraws the verification of a user whose identity changed since.
    #[must_use]
    pub fn withdraw_verification(&self, user: &str) -> Boxed<'_, anyhow::Result<()>> {
        let user = user.to_owned();
        Box::pin(async move {
            let user = <&UserId>::try_from(user.as_str())?;
            let identity = self.client.encryption().get_user_identity(user).await?;
            let identity = identity.context("the user has no identity")?;
            Ok(identity.withdraw_verification().await?)
        })
    }

    async fn verification(&self, user: &str, flow: &str) -> anyhow::Result<VerificationRequest> {
        let mut flows = self.verifications.lock().await;
        if let Some(known) = flows.get(flow) {
            return Ok(known.clone());
        }
        let user = <&UserId>::try_from(user)?;
        let encryption = self.client.encryption();
        let request = encryption.get_verification_request(user, flow).await;
        let request = request.context("there is no such verification")?;
        flows.insert(flow.to_owned(), request.clone());
        Ok(request)
    }
}

/// The result of comparing the emoji.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmojiComparison {
    /// Both sides show the same seven.
    Same,
    /// The emoji differ.
    Different,
}
