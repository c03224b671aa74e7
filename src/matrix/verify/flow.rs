//! One verification from its request to its end. It is looked at several times a second: the SDK's streams tell of
//! changes only, and one that came before somebody listened is missed.

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

use super::{Answer, Emoji, Matrix, Stage, compare};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(150);

/// One verification.
pub(super) struct Flow<'a> {
    matrix: &'a Matrix,
    request: VerificationRequest,
    deadline: Instant,
}

/// Why it goes no further.
enum End {
    Done,
    /// By the other side, or by the SDK.
    Cancelled(String),
    /// By the person here; the other side was told.
    Refused,
    TimedOut,
    /// The same user began another one.
    Passed,
    Failed(matrix_sdk::Error),
}

impl From<matrix_sdk::Error> for End {
    fn from(error: matrix_sdk::Error) -> Self {
        Self::Failed(error)
    }
}

impl<'a> Flow<'a> {
    pub(super) fn of(matrix: &'a Matrix, request: VerificationRequest) -> Self {
        Self {
            matrix,
            request,
            deadline: Instant::now() + matrix.verify.patience,
        }
    }

    pub(super) async fn run(self) {
        let user = self.request.other_user_id().to_owned();
        if !self.matrix.verify.is_admin(user.as_str()) {
            warn!(matrix.user = %user, "Somebody who is not on the list of admins wants to verify the bridge; declined");
            self.cancel().await;
            return;
        }
        let stage = if self.request.we_started() {
            Stage::Waiting
        } else {
            Stage::Asked
        };
        let answers = self
            .matrix
            .verify
            .enter(&user, self.request.flow_id(), stage);
        let stage = match self.walk(answers).await {
            Ok(()) | Err(End::Done) => {
                info!(matrix.user = %user, "Verified: both sides confirmed the emoji");
                self.matrix.believe_verified(&user).await;
                self.tell("Verified: both sides have confirmed.").await;
                Stage::Done
            }
            Err(end) => {
                let why = self.ended(end).await;
                warn!(matrix.user = %user, "A verification was cancelled: {why}");
                if !self.matrix.verify.is_passed(&user, self.request.flow_id()) {
                    self.tell(&format!("The verification was cancelled: {why}."))
                        .await;
                }
                Stage::Cancelled(why)
            }
        };
        self.matrix.verify.set(&user, self.request.flow_id(), stage);
    }

    /// Ends it on our side, if it is not over, and says why.
    async fn ended(&self, end: End) -> String {
        match end {
            End::Done => String::new(),
            End::Cancelled(why) => why,
            End::Refused => "the emoji were not confirmed here".to_owned(),
            End::TimedOut => {
                self.cancel().await;
                "it took too long".to_owned()
            }
            End::Passed => {
                self.cancel().await;
                "another one was begun".to_owned()
            }
            End::Failed(error) => {
                self.cancel().await;
                format!("the homeserver was not reached: {error}")
            }
        }
    }

    async fn cancel(&self) {
        if let Err(error) = self.request.cancel().await {
            let error = error.to_string();
            warn!(
                error,
                "The other side was not told that a verification is cancelled"
            );
        }
    }

    async fn tell(&self, text: &str) {
        self.matrix.tell_verifier(&self.request, text).await;
    }

    fn set(&self, stage: Stage) {
        let user = self.request.other_user_id();
        self.matrix.verify.set(user, self.request.flow_id(), stage);
    }

    async fn walk(&self, mut answers: mpsc::UnboundedReceiver<Answer>) -> Result<(), End> {
        if !self.request.we_started() {
            self.begin(&mut answers).await?;
        }
        let sas = self.sas(&mut answers).await?;
        let emoji = self.exchanged(&sas, &mut answers).await?;
        self.confirmed(&sas, emoji, &mut answers).await?;
        loop {
            match sas.state() {
                SasState::Done { .. } => return Ok(()),
                SasState::Cancelled(why) => return Err(End::Cancelled(why.reason().to_owned())),
                _ => self.pause().await?,
            }
        }
    }

    /// The other side asked: nothing happens before a person says so.
    async fn begin(&self, answers: &mut mpsc::UnboundedReceiver<Answer>) -> Result<(), End> {
        let user = self.request.other_user_id();
        info!(matrix.user = %user, "An admin asks to verify the bridge; somebody must say `!bridge verify`");
        self.tell(
            "You want to verify this bridge. Say `!bridge verify` here to begin; seven emoji follow.",
        )
        .await;
        loop {
            match self.answer(answers).await? {
                Some(Answer::Begin) => break,
                Some(Answer::Different) => {
                    self.cancel().await;
                    return Err(End::Refused);
                }
                Some(Answer::Same) | None => {}
            }
        }
        self.set(Stage::Waiting);
        let methods = vec![VerificationMethod::SasV1];
        Ok(self.request.accept_with_methods(methods).await?)
    }

    /// The exchange, begun by whoever asked.
    async fn sas(
        &self,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Result<SasVerification, End> {
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
                    // What the other side began meanwhile is found the next time.
                    let _begun = self.request.start_sas().await?;
                }
                VerificationRequestState::Done => return Err(End::Done),
                _ => {}
            }
            self.heed(answers).await?;
        }
    }

    async fn exchanged(
        &self,
        sas: &SasVerification,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Result<Vec<Emoji>, End> {
        loop {
            match sas.state() {
                SasState::KeysExchanged { .. } => {
                    let Some(emoji) = sas.emoji() else {
                        sas.cancel().await?;
                        return Err(End::Cancelled("the other side shows no emoji".into()));
                    };
                    return Ok(emoji
                        .iter()
                        .map(|one| Emoji {
                            symbol: one.symbol.to_owned(),
                            name: one.description.to_owned(),
                        })
                        .collect());
                }
                // Both sides began: the SDK has taken one of the two.
                SasState::Cancelled(why) => return Err(End::Cancelled(why.reason().to_owned())),
                _ => self.heed(answers).await?,
            }
        }
    }

    /// A person compares.
    async fn confirmed(
        &self,
        sas: &SasVerification,
        emoji: Vec<Emoji>,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Result<(), End> {
        let user = self.request.other_user_id();
        let names: Vec<&str> = emoji.iter().map(|one| one.name.as_str()).collect();
        info!(matrix.user = %user, "Compare with the other screen: {}", names.join(", "));
        let text = compare(&emoji);
        self.set(Stage::Compare(emoji));
        self.tell(&text).await;
        loop {
            if let SasState::Cancelled(why) = sas.state() {
                return Err(End::Cancelled(why.reason().to_owned()));
            }
            match self.answer(answers).await? {
                Some(Answer::Same) => break,
                Some(Answer::Different) => {
                    sas.mismatch().await?;
                    return Err(End::Refused);
                }
                Some(Answer::Begin) | None => {}
            }
        }
        self.set(Stage::Confirmed);
        Ok(sas.confirm().await?)
    }

    /// While it is the other side's turn, a person may only end it.
    async fn heed(&self, answers: &mut mpsc::UnboundedReceiver<Answer>) -> Result<(), End> {
        if let Some(Answer::Different) = self.answer(answers).await? {
            self.cancel().await;
            return Err(End::Refused);
        }
        Ok(())
    }

    /// Waits a moment for an answer; fails when the verification is over for another reason.
    async fn answer(
        &self,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Result<Option<Answer>, End> {
        tokio::select! {
            Some(answer) = answers.recv() => Ok(Some(answer)),
            paused = self.pause() => paused.map(|()| None),
        }
    }

    async fn pause(&self) -> Result<(), End> {
        sleep(LOOK).await;
        let user = self.request.other_user_id();
        if let Some(why) = self.request.cancel_info() {
            return Err(End::Cancelled(why.reason().to_owned()));
        }
        if self.matrix.verify.is_passed(user, self.request.flow_id()) {
            return Err(End::Passed);
        }
        if Instant::now() > self.deadline {
            return Err(End::TimedOut);
        }
        Ok(())
    }
}
