//! When a try fails: later, never, or the whole place is closed. Also who is to blame (D22, D23).
//!
//! One message may not block its lane for ever, and an outage of the other side may not cost a message. So only
//! what speaks against the message counts against it:
//!
//! - What asks us to wait (a rate limit) never counts.
//! - An answer that looks like never counts as one of `attempts`, unless the other lanes of the side fail as
//!   well: then a proxy or the whole side is out of order, and it counts like any other failure.
//! - Any other failure counts by time, against `give_up`: the time since the try before, if in it a step of
//!   another lane worked, or, where no other lane tried, if the side answered a sync or a feed. While nothing is
//!   answered, no time passes for the message. While all lanes fail and yet syncs are answered it passes at a
//!   quarter of its speed: two messages that are to blame must not shield each other for ever.
//! - A step that may have happened is looked for once more before it is given up.

use std::time::Duration;

use footbridge_store::{Delivery, Error, Millis, Setback, Tell, Undelivered};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Attempt, Lane,
    doubt::{Looking, Recalled},
    notice,
    peers::Word,
};
use crate::{
    backoff, causes, crash,
    message::{Action, Message},
    outlet::{Outcome, SendError, Step},
};

/// No single wait counts for more than this: the process may have been down in between.
const MOST_BLAMED: Duration = Duration::from_mins(10);

/// A server that asks to be asked again sooner than this is believed once.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long to wait before the next try of a delivery; `after` is what the other side asked for.
fn pause(delivery: &Delivery, after: Option<Duration>) -> Duration {
    match after {
        None => backoff::after(delivery.attempts + 1),
        Some(after) if delivery.attempts == 0 => after,
        // Nobody keeps a lane busy with one message.
        Some(after) => after.max(SHORTEST),
    }
}

/// How much one message may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tries of what looks refused for good.
    pub attempts: u32,
    /// How long a message is tried that is not taken although its side is well.
    pub give_up: Duration,
}

/// What failed.
pub(super) struct Trial<'a> {
    pub message: &'a Message,
    /// The step and its number; `None` where it failed before any.
    pub step: Option<(usize, &'a Step)>,
    /// Whether it is the last one.
    pub last: bool,
    /// When this try began.
    pub began: Millis,
    pub stop: &'a CancellationToken,
}

impl Lane {
    /// It is not known what a delivery takes.
    pub(super) async fn not_planned(
        &self,
        delivery: &Delivery,
        refusal: SendError,
        message: &Message,
        stop: &CancellationToken,
    ) -> Result<Attempt, Error> {
        let trial = Trial {
            message,
            step: None,
            last: true,
            began: self.clock.now(),
            stop,
        };
        self.put_off(delivery, refusal, &trial).await
    }

    /// A try failed: later, never, or the whole side is out.
    pub(super) async fn put_off(
        &self,
        delivery: &Delivery,
        error: SendError,
        trial: &Trial<'_>,
    ) -> Result<Attempt, Error> {
        let kind = error.kind();
        match error {
            SendError::Refused { reason } => {
                self.fail(delivery, kind, reason, Some(trial.message)).await
            }
            SendError::TooLate => {
                let reason = "the other side no longer allows the change".to_owned();
                self.fail(delivery, kind, reason, Some(trial.message)).await
            }
            SendError::Rejected { reason } => self.rejected(delivery, reason, trial.message).await,
            SendError::SignedOut { reason } => {
                // Whoever found out has said so once for all lanes.
                debug!(reason, "Signed out: this lane waits");
                self.shut(delivery, &reason, kind, true).await?;
                Ok(Attempt::SignedOut)
            }
            SendError::Closed { reason } => {
                self.shut(delivery, &reason, kind, true).await?;
                Ok(Attempt::Settled)
            }
            // Not of the step itself, but of a look that was needed before it: what is in doubt stays so.
            SendError::Limited { after } => {
                let now = self.clock.now();
                let wait = pause(delivery, after);
                self.postpone(
                    delivery,
                    Setback::of_nobody(now, now.plus(wait), false, kind),
                )
                .await
            }
            SendError::Retry {
                after,
                outcome,
                source,
            } => {
                let wait = pause(delivery, after);
                warn!(
                    delivery.id = delivery.id.0,
                    attempt = delivery.attempts + 1,
                    wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    error = causes::once(source.as_ref()),
                    "Not delivered yet"
                );
                let now = self.clock.now();
                let blamed = match after {
                    Some(_) => Duration::ZERO,
                    None => self.blame(delivery, now),
                };
                if delivery.blamed + blamed >= self.limits.give_up {
                    return self.give_up(delivery, outcome, trial).await;
                }
                let setback = Setback {
                    blamed,
                    ..Setback::of_nobody(now, now.plus(wait), outcome == Outcome::NotDone, kind)
                };
                self.postpone(delivery, setback).await
            }
        }
    }

    async fn postpone(&self, delivery: &Delivery, setback: Setback) -> Result<Attempt, Error> {
        self.store.postponed(delivery.id, setback).await?;
        if setback.sure {
            self.bells.step_settled();
        }
        Ok(Attempt::Settled)
    }

    /// An answer that looks like never.
    async fn rejected(
        &self,
        delivery: &Delivery,
        reason: String,
        message: &Message,
    ) -> Result<Attempt, Error> {
        let now = self.clock.now();
        self.peers.failed(self.id, now);
        let rejected = self
            .peers
            .word(self.id, delivery.tried_at.unwrap_or(now), now)
            != Word::Fails;
        let blamed = if rejected {
            Duration::ZERO
        } else {
            self.blame(delivery, now)
        };
        if rejected && delivery.rejections + 1 >= self.limits.attempts
            || delivery.blamed + blamed >= self.limits.give_up
        {
            return self.fail(delivery, "rejected", reason, Some(message)).await;
        }
        let wait = backoff::after(delivery.attempts + 1);
        warn!(
            delivery.id = delivery.id.0,
            attempt = delivery.attempts + 1,
            rejected,
            reason,
            "Rejected; trying again"
        );
        let setback = Setback {
            rejected,
            blamed,
            ..Setback::of_nobody(now, now.plus(wait), true, "rejected")
        };
        self.postpone(delivery, setback).await
    }

    /// How much of the time since the last try speaks against the message.
    fn blame(&self, delivery: &Delivery, now: Millis) -> Duration {
        self.peers.failed(self.id, now);
        let Some(since) = delivery.tried_at else {
            return Duration::ZERO;
        };
        let passed = now.since(since).min(MOST_BLAMED);
        match self.peers.word(self.id, since, now) {
            Word::Works => passed,
            _ if !self.outlet.answers(since) => Duration::ZERO,
            Word::Silence => passed,
            Word::Fails => passed / 4,
        }
    }

    /// A step in doubt could not be looked for: the doubt stays, whatever the answer was.
    pub(super) async fn not_looked(
        &self,
        delivery: &Delivery,
        error: SendError,
    ) -> Result<Attempt, Error> {
        let kind = error.kind();
        let after = match error {
            SendError::SignedOut { reason } => {
                self.shut(delivery, &reason, kind, false).await?;
                return Ok(Attempt::SignedOut);
            }
            SendError::Closed { reason } => {
                self.shut(delivery, &reason, kind, false).await?;
                return Ok(Attempt::Settled);
            }
            SendError::Retry { after, .. } | SendError::Limited { after } => after,
            _ => None,
        };
        warn!(
            delivery.id = delivery.id.0,
            kind, "Nobody can say yet whether a message arrived; looking again later"
        );
        let now = self.clock.now();
        let wait = pause(delivery, after);
        let setback = Setback::of_nobody(now, now.plus(wait), false, kind);
        self.postpone(delivery, setback).await
    }

    /// The message has been tried for long enough. What may have happened is looked for first.
    async fn give_up(
        &self,
        delivery: &Delivery,
        outcome: Outcome,
        trial: &Trial<'_>,
    ) -> Result<Attempt, Error> {
        if let (Outcome::Unknown, Some((index, step))) = (outcome, trial.step) {
            let since = delivery
                .unsure_since
                .or(delivery.unanswered_since)
                .unwrap_or(trial.began);
            let looked = self
                .recall(
                    delivery,
                    trial.message,
                    (index, step, trial.last),
                    (since, Looking::BeforeRepeating),
                    trial.stop,
                )
                .await?;
            match looked {
                Recalled::Adopted => return Ok(Attempt::Settled),
                Recalled::Stopped => return Ok(Attempt::Stopped),
                Recalled::NotNow(error) => return self.not_looked(delivery, error).await,
                Recalled::NeverKnown(reason) => {
                    return self.unknown(delivery, reason, trial.message).await;
                }
                Recalled::NeverHappened => {}
            }
        }
        let reason = format!(
            "it was tried {} times and never taken, although others were",
            delivery.tries + 1
        );
        self.fail(delivery, "given-up", reason, Some(trial.message))
            .await
    }

    /// Nobody will ever know whether a step happened. It is not repeated: a person decides.
    pub(super) async fn unknown(
        &self,
        delivery: &Delivery,
        reason: &str,
        message: &Message,
    ) -> Result<Attempt, Error> {
        let reason = reason.to_owned();
        self.fail(delivery, "unknown", reason, Some(message)).await
    }

    /// Ends a delivery as failed, and tells its sender's side.
    pub(super) async fn fail(
        &self,
        delivery: &Delivery,
        kind: &'static str,
        reason: String,
        message: Option<&Message>,
    ) -> Result<Attempt, Error> {
        warn!(
            delivery.id = delivery.id.0,
            entry.id = delivery.entry.0,
            kind,
            reason,
            "Delivery failed for good"
        );
        // Where it speaks of an edit that was redacted, somebody else has asked for it.
        let by_bridge = message.is_some_and(|message| message.sender.is_bridge())
            && Message::from_bytes(&delivery.payload).is_ok_and(|asked| asked.sender.is_bridge());
        let (about, tell) = match message.map(|message| &message.action) {
            // A notice that cannot be changed is not worth a notice either.
            Some(Action::Edit { .. }) if by_bridge => (None, Tell::Nobody),
            Some(Action::Edit { target, .. }) => (Some(target.clone()), Tell::Sender),
            // A notice that cannot be delivered is not worth a notice, and nobody wrote what a network tells.
            // Nor is a reaction worth a line.
            Some(
                Action::Bridge { .. }
                | Action::System { .. }
                | Action::React { .. }
                | Action::Unreact { .. }
                | Action::Mark { .. },
            ) => (None, Tell::Nobody),
            _ => (None, Tell::Sender),
        };
        let how = Undelivered::Failed {
            kind,
            reason,
            about,
            tell,
        };
        self.store
            .undelivered(delivery.id, how, self.clock.now())
            .await?;
        crash::point("failed.parked");
        self.bells.step_settled();
        self.tell().await?;
        Ok(Attempt::Settled)
    }

    /// Writes the notices anew that are no longer right.
    pub(super) async fn tell(&self) -> Result<(), Error> {
        let now = self.clock.now();
        for lane in self.store.refresh_notices(notice::letter, now).await? {
            self.bells.ring(lane);
        }
        Ok(())
    }
}
