//! One verification from its request to its end. Its state is polled several times a second: the SDK's streams report
//! changes only, and miss one from before the subscription.

use std::time::Duration;

use matrix_sdk::{
    encryption::verification::{
        SasState, SasVerification, Verification, VerificationRequest, VerificationRequestState,
    },
    ruma::events::key::verification::VerificationMethod,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{Emoji, VerificationAnswer, VerificationStage, Verifier, compare};

/// How often the state is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(150);

/// One verification.
pub(super) struct VerificationFlow<'a> {
    verifier: &'a Verifier,
    request: VerificationRequest,
    deadline: Instant,
}

/// Why a verification ended.
enum FlowEnd {
    Done,
    /// By the other side, or by the SDK.
    Cancelled(String),
    /// By the person here; the other side was notified.
    Refused,
    TimedOut,
    /// The same user started another one.
    Superseded,
    Failed(matrix_sdk::Error),
}

impl From<matrix_sdk::Error> for FlowEnd {
    fn from(error: matrix_sdk::Error) -> Self {
        Self::Failed(error)
    }
}

impl<'a> VerificationFlow<'a> {
    pub(super) fn of(verifier: &'a Verifier, request: VerificationRequest) -> Self {
        Self {
            verifier,
            request,
            deadline: Instant::now() + verifier.verifications.time_limit,
        }
    }

    pub(super) async fn run(self) {
        let user = self.request.other_user_id().to_owned();
        if !self.verifier.verifications.is_admin(user.as_str()) {
            warn!(matrix.user = %user, "A user who is not on the list of admins wants to verify the bridge; declined");
            self.cancel().await;
            return;
        }
        let stage = if self.request.we_started() {
            VerificationStage::Waiting
        } else {
            VerificationStage::Requested
        };
        let answers = self
            .verifier
            .verifications
            .enter(&user, self.request.flow_id(), stage);
        let stage = match self.run_steps(answers).await {
            Ok(()) | Err(FlowEnd::Done) => {
                info!(matrix.user = %user, "Verified: both sides confirmed the emoji");
                self.verifier.identities.pin_verified(&user).await;
                self.send_notice("Verified: both sides have confirmed.")
                    .await;
                VerificationStage::Done
            }
            Err(end) => {
                let why = self.ended(end).await;
                warn!(matrix.user = %user, "A verification was cancelled: {why}");
                if !self
                    .verifier
                    .verifications
                    .is_passed(&user, self.request.flow_id())
                {
                    self.send_notice(&format!("The verification was cancelled: {why}."))
                        .await;
                }
                VerificationStage::Cancelled(why)
            }
        };
        self.verifier
            .verifications
            .set(&user, self.request.flow_id(), stage);
    }

    /// Cancels the verification on this side, if it is not finished, and returns the reason.
    async fn ended(&self, end: FlowEnd) -> String {
        match end {
            FlowEnd::Done => String::new(),
            FlowEnd::Cancelled(why) => why,
            FlowEnd::Refused => "the emoji were not confirmed here".to_owned(),
            FlowEnd::TimedOut => {
                self.cancel().await;
                "it took too long".to_owned()
            }
            FlowEnd::Superseded => {
                self.cancel().await;
                "another one was started".to_owned()
            }
            FlowEnd::Failed(error) => {
                self.cancel().await;
                format!("the homeserver could not be reached: {error}")
            }
        }
    }

    async fn cancel(&self) {
        if let Err(error) = self.request.cancel().await {
            let error = error.to_string();
            warn!(
                error,
                "Failed to notify the other side that a verification was cancelled"
            );
        }
    }

    async fn send_notice(&self, text: &str) {
        self.verifier.notify(&self.request, text).await;
    }

    fn set(&self, stage: VerificationStage) {
        let user = self.request.other_user_id();
        self.verifier
            .verifications
            .set(user, self.request.flow_id(), stage);
    }

    async fn run_steps(
        &self,
        mut answers: mpsc::UnboundedReceiver<VerificationAnswer>,
    ) -> Result<(), FlowEnd> {
        if !self.request.we_started() {
            self.begin(&mut answers).await?;
        }
        let sas = self.sas(&mut answers).await?;
        let emoji = self.exchanged(&sas, &mut answers).await?;
        self.confirmed(&sas, emoji, &mut answers).await?;
        loop {
            match sas.state() {
                SasState::Done { .. } => return Ok(()),
                SasState::Cancelled(why) => {
                    return Err(FlowEnd::Cancelled(why.reason().to_owned()));
                }
                _ => self.pause().await?,
            }
        }
    }

    /// Waits until a person starts a verification that the other side requested.
    async fn begin(
        &self,
        answers: &mut mpsc::UnboundedReceiver<VerificationAnswer>,
    ) -> Result<(), FlowEnd> {
        let user = self.request.other_user_id();
        info!(matrix.user = %user, "An admin asks to verify the bridge; they must send `!bridge verify`");
        self.send_notice(
            "You want to verify this bridge. Send `!bridge verify` here to begin; seven emoji follow.",
        )
        .await;
        loop {
            match self.answer(answers).await? {
                Some(VerificationAnswer::Begin) => break,
                Some(VerificationAnswer::Different) => {
                    self.cancel().await;
                    return Err(FlowEnd::Refused);
                }
                Some(VerificationAnswer::Same) | None => {}
            }
        }
        self.set(VerificationStage::Waiting);
        let methods = vec![VerificationMethod::SasV1];
        Ok(self.request.accept_with_methods(methods).await?)
    }

    /// The key exchange, started by the requesting side.
    async fn sas(
        &self,
        answers: &mut mpsc::UnboundedReceiver<VerificationAnswer>,
    ) -> Result<SasVerification, FlowEnd> {
        loop {
            match self.request.state() {
                VerificationRequestState::Transitioned {
                    verification: Verification::SasV1(sas),
                } => {
                    if !sas.we_started() {
                        sas.accept().await?;
                    }
                    return Ok(sas);
                }
                VerificationRequestState::Ready { .. } if self.request.we_started() => {
                    // If the other side started it meanwhile, the next poll finds that.
                    let _started = self.request.start_sas().await?;
                }
                VerificationRequestState::Done => return Err(FlowEnd::Done),
                _ => {}
            }
            self.wait_or_cancel(answers).await?;
        }
    }

    async fn exchanged(
        &self,
        sas: &SasVerification,
        answers: &mut mpsc::UnboundedReceiver<VerificationAnswer>,
    ) -> Result<Vec<Emoji>, FlowEnd> {
        loop {
            match sas.state() {
                SasState::KeysExchanged { .. } => {
                    let Some(emoji) = sas.emoji() else {
                        sas.cancel().await?;
                        return Err(FlowEnd::Cancelled("the other side shows no emoji".into()));
                    };
                    return Ok(emoji
                        .iter()
                        .map(|one| Emoji {
                            symbol: one.symbol.to_owned(),
                            name: one.description.to_owned(),
                        })
                        .collect());
                }
                // Both sides started: the SDK has kept one of the two.
                SasState::Cancelled(why) => {
                    return Err(FlowEnd::Cancelled(why.reason().to_owned()));
                }
                _ => self.wait_or_cancel(answers).await?,
            }
        }
    }

    /// Waits until a person has compared the emoji.
    async fn confirmed(
        &self,
        sas: &SasVerification,
        emoji: Vec<Emoji>,
        answers: &mut mpsc::UnboundedReceiver<VerificationAnswer>,
    ) -> Result<(), FlowEnd> {
        let user = self.request.other_user_id();
        let names: Vec<&str> = emoji.iter().map(|one| one.name.as_str()).collect();
        info!(matrix.user = %user, "Compare with the other screen: {}", names.join(", "));
        let text = compare(&emoji);
        self.set(VerificationStage::Compare(emoji));
        self.send_notice(&text).await;
        loop {
            if let SasState::Cancelled(why) = sas.state() {
                return Err(FlowEnd::Cancelled(why.reason().to_owned()));
            }
            match self.answer(answers).await? {
                Some(VerificationAnswer::Same) => break,
                Some(VerificationAnswer::Different) => {
                    sas.mismatch().await?;
                    return Err(FlowEnd::Refused);
                }
                Some(VerificationAnswer::Begin) | None => {}
            }
        }
        self.set(VerificationStage::Confirmed);
        Ok(sas.confirm().await?)
    }

    /// While waiting for the other side, a person may only cancel.
    async fn wait_or_cancel(
        &self,
        answers: &mut mpsc::UnboundedReceiver<VerificationAnswer>,
    ) -> Result<(), FlowEnd> {
        if let Some(VerificationAnswer::Different) = self.answer(answers).await? {
            self.cancel().await;
            return Err(FlowEnd::Refused);
        }
        Ok(())
    }

    /// Waits a moment for an answer; fails when the verification has ended for another reason.
    async fn answer(
        &self,
        answers: &mut mpsc::UnboundedReceiver<VerificationAnswer>,
    ) -> Result<Option<VerificationAnswer>, FlowEnd> {
        tokio::select! {
            Some(answer) = answers.recv() => Ok(Some(answer)),
            paused = self.pause() => paused.map(|()| None),
        }
    }

    async fn pause(&self) -> Result<(), FlowEnd> {
        sleep(POLL_INTERVAL).await;
        let user = self.request.other_user_id();
        if let Some(why) = self.request.cancel_info() {
            return Err(FlowEnd::Cancelled(why.reason().to_owned()));
        }
        if self
            .verifier
            .verifications
            .is_passed(user, self.request.flow_id())
        {
            return Err(FlowEnd::Superseded);
        }
        if Instant::now() > self.deadline {
            return Err(FlowEnd::TimedOut);
        }
        Ok(())
    }
}
