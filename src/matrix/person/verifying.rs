//! A person verifies somebody by emoji, as clients let them do it.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, anyhow};
use matrix_sdk::{
    encryption::verification::{
        SasState, Verification, VerificationRequest, VerificationRequestState,
    },
    ruma::{UserId, events::key::verification::VerificationMethod},
};
use tokio::sync::Mutex;

use super::TestClient;
use crate::Boxed;

/// The verifications that this person's client has shown: the SDK forgets those that are over.
pub(super) type KnownFlows = Arc<Mutex<HashMap<String, VerificationRequest>>>;

/// What this person's client shows of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerificationScreen {
    /// Somebody asks.
    Asked,
    /// The other side has its turn.
    Waiting,
    /// The names of the seven emoji.
    Compare(Vec<String>),
    /// Confirmed here, and not yet there.
    Confirmed,
    /// Verified.
    Done,
    /// Not verified, for this reason.
    Cancelled(String),
}

fn emoji_only() -> Vec<VerificationMethod> {
    vec![VerificationMethod::SasV1]
}

impl TestClient {
    /// Asks this user for a verification in a direct room, which is made when there is none; answers the name of the
    /// flow.
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

    /// The same from device to device, without any room.
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

    /// Asks the homeserver for the identity and the devices of this user.
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

    /// The direct room with this user, once there is one.
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

    /// Accepts the request.
    #[must_use]
    pub fn accept_verification(&self, user: &str, flow: &str) -> Boxed<'_, anyhow::Result<()>> {
        let (user, flow) = (user.to_owned(), flow.to_owned());
        Box::pin(async move {
            let request = self.verification(&user, &flow).await?;
            Ok(request.accept_with_methods(emoji_only()).await?)
        })
    }

    /// Does what a client does by itself, and shows what it shows.
    #[must_use]
    pub fn screen(&self, user: &str, flow: &str) -> Boxed<'_, anyhow::Result<VerificationScreen>> {
        let (user, flow) = (user.to_owned(), flow.to_owned());
        Box::pin(async move {
            let request = self.verification(&user, &flow).await?;
            Ok(match request.state() {
                VerificationRequestState::Created { .. } => VerificationScreen::Waiting,
                VerificationRequestState::Requested { .. } => VerificationScreen::Asked,
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
                    return Err(anyhow!("this is not by emoji"));
                }
                VerificationRequestState::Done => VerificationScreen::Done,
                VerificationRequestState::Cancelled(why) => {
                    VerificationScreen::Cancelled(why.reason().to_owned())
                }
            })
        })
    }

    /// Says whether the emoji are the same.
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
                return Err(anyhow!("there is nothing to compare"));
            };
            match same {
                EmojiComparison::Same => Ok(sas.confirm().await?),
                EmojiComparison::Different => Ok(sas.mismatch().await?),
            }
        })
    }

    /// Whether this person's identity has verified that of the user.
    #[must_use]
    pub fn has_verified(&self, user: &str) -> Boxed<'_, anyhow::Result<bool>> {
        let user = user.to_owned();
        Box::pin(async move {
            let user = <&UserId>::try_from(user.as_str())?;
            let identity = self.client.encryption().get_user_identity(user).await?;
            Ok(identity.is_some_and(|identity| identity.is_verified()))
        })
    }

    /// Goes on without having verified the user.
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

/// What a person sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmojiComparison {
    /// The same seven.
    Same,
    /// Others.
    Different,
}
