//! The steps of a plan, one after the other: each waits for its turn, is looked for where it is in doubt, is noted
//! before it is tried, and is settled before the next.

use footbridge_store::{Delivery, Error};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Attempt, Lane, batch,
    doubt::{Recalled, step_key},
    failure::Trial,
};
use crate::{
    budget::Permit,
    crash,
    message::{Action, Message},
    outlet::{Done, Outcome, Plan, SendError, Step},
};

impl Lane {
    /// The steps that are not done yet, one after the other, as far as they go.
    pub(super) async fn walk(
        &self,
        delivery: &Delivery,
        message: &Message,
        steps: &[Step],
        mut turn: Option<Permit>,
        stop: &CancellationToken,
    ) -> Result<Attempt, Error> {
        let plan = serde_json::to_vec(&Plan::Steps(steps.to_vec())).unwrap_or_default();
        let mut unkept = delivery.plan.is_none().then_some(plan);
        let mut doubt = delivery.unsure_since.or(delivery.unanswered_since);
        let done = usize::try_from(delivery.steps_done).unwrap_or(usize::MAX);
        let count = steps.len();

        for (index, step) in steps.iter().enumerate().skip(done) {
            let last = index + 1 == count;
            if let Some(since) = doubt.take() {
                match self
                    .recall(delivery, message, (index, step, last), since, stop)
                    .await?
                {
                    Recalled::Adopted => continue,
                    Recalled::NeverHappened => {}
                    Recalled::NotNow(error) => {
                        return self.not_looked(delivery, error).await;
                    }
                    Recalled::NeverKnown(reason) => {
                        return self.unknown(delivery, reason, message).await;
                    }
                    Recalled::Stopped => return Ok(Attempt::Stopped),
                }
            }
            let permit = match turn.take() {
                Some(permit) => permit,
                None => match self.turn(message, stop).await {
                    Some(permit) => permit,
                    None => return Ok(Attempt::Stopped),
                },
            };
            if !self.store.may_go(delivery.id, self.clock.now()).await? {
                // It was held up, or taken apart, since it was read: while it waited for its turn, or was looked for.
                drop(permit);
                if index == done && delivery.unsure_since.is_some() {
                    self.store.held_back(delivery.id).await?;
                }
                self.bells.step_settled();
                return Ok(Attempt::Settled);
            }
            self.announce(delivery, step, count, &mut unkept).await?;
            crash::point("perform.before");
            let key = step_key(delivery, index, step);
            let began = self.clock.now();
            let mut result = self.perform(delivery, &key, step).await;
            crash::point("perform.after");
            if let Err(error) = &result
                && let Some(instead) = instead_of(step, error)
            {
                self.announce(delivery, instead, count, &mut unkept).await?;
                result = self.outlet.perform(&delivery.to, &key, instead).await;
            }
            match result {
                Ok(done) => {
                    permit.passed(batch::carried(step));
                    self.settle(delivery, message, &done, last).await?;
                }
                Err(error) => {
                    self.note_unanswered(delivery, &error, began).await?;
                    let trial = Trial {
                        message,
                        step: Some((index, step)),
                        last,
                        began,
                        stop,
                    };
                    return self.not_done(delivery, error, permit, &trial).await;
                }
            }
        }
        Ok(Attempt::Settled)
    }

    /// One step; its author's picture and a file are fetched first.
    async fn perform(
        &self,
        delivery: &Delivery,
        key: &str,
        step: &Step,
    ) -> Result<Done, SendError> {
        self.introduce(delivery, step).await;
        let Step::Send { file, .. } = step else {
            return self.outlet.perform(&delivery.to, key, step).await;
        };
        let spooled = self.source.fetch(file, &self.spool).await;
        let spooled = spooled.map_err(not_fetched)?;
        let preview = self.preview(delivery, file).await;
        let carried = (&spooled, preview.as_ref());
        let outlet = &self.outlet;
        outlet.send_file(&delivery.to, key, step, carried).await
    }

    /// Writes down, before a step, what a restart must know about it.
    async fn announce(
        &self,
        delivery: &Delivery,
        step: &Step,
        steps: usize,
        unkept: &mut Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let repeatable = self.outlet.dedupes()
            || matches!(
                step,
                Step::Remove { .. }
                    | Step::Revise { .. }
                    | Step::React { .. }
                    | Step::Unreact { .. }
            );
        if !repeatable {
            self.store
                .unsure(delivery.id, unkept.take().as_deref(), self.clock.now())
                .await?;
        } else if steps > 1
            && let Some(plan) = unkept.take()
        {
            self.store.planned(delivery.id, &plan).await?;
        }
        crash::point("plan.kept");
        Ok(())
    }

    pub(super) async fn settle(
        &self,
        delivery: &Delivery,
        message: &Message,
        done: &Done,
        last: bool,
    ) -> Result<(), Error> {
        let (made, gone) = match done {
            Done::Made(copy) => (Some(copy), None),
            Done::Changed(_) | Done::Struck(..) | Done::Shown(_) | Done::Hidden(_) => (None, None),
            Done::Gone(remote) => (None, Some(remote)),
        };
        let about_reactions = matches!(
            message.action,
            Action::React { .. } | Action::Unreact { .. } | Action::Delete { .. }
        );
        if let Done::Struck(remote, slot) = done {
            self.store.struck(delivery.id, remote, *slot, last).await?;
        } else if let Done::Shown(copy) = done {
            self.store
                .step_shown(delivery.id, copy, false, last)
                .await?;
        } else if let (Some(line), true) = (made, about_reactions) {
            self.store.step_shown(delivery.id, line, true, last).await?;
        } else if let (Done::Gone(remote), true) | (Done::Hidden(remote), _) =
            (done, about_reactions)
        {
            self.store.step_hidden(delivery.id, remote, last).await?;
        } else if let (Some(copy), Action::Edit { target, .. }, false) =
            (made, &message.action, self.outlet.edits_are_messages())
        {
            // A new text that had to become a message of its own belongs to the original: when that is taken
            // back, so is this.
            self.store
                .step_made_for(delivery.id, copy, (&delivery.from, target), last)
                .await?;
        } else {
            self.store
                .step_done(delivery.id, made, gone, last, self.clock.now())
                .await?;
        }
        crash::point("step.settled");
        self.bells.step_settled();
        debug!(
            delivery.id = delivery.id.0,
            entry.id = delivery.entry.0,
            last,
            "Step settled"
        );
        self.let_in().await?;
        if last && delivery.again {
            self.tell().await?;
        }
        Ok(())
    }
}

/// What is done instead of a step that can never be done like this.
fn instead_of<'a>(step: &'a Step, error: &SendError) -> Option<&'a Step> {
    match (step, error) {
        (Step::Replace { otherwise, .. } | Step::Revise { otherwise, .. }, SendError::TooLate)
        | (Step::Send { otherwise, .. }, SendError::Refused { .. }) => otherwise.as_deref(),
        _ => None,
    }
}

/// What is wrong with the side that has a file is not wrong with the side that should get it.
fn not_fetched(error: SendError) -> SendError {
    match error {
        SendError::Refused { .. } | SendError::Retry { .. } => error,
        SendError::Limited { after } => SendError::Retry {
            after,
            outcome: Outcome::NotDone,
            source: anyhow::anyhow!("the side that has the file is asked too often"),
        },
        other => SendError::Retry {
            after: None,
            outcome: Outcome::NotDone,
            source: anyhow::anyhow!("the file cannot be fetched now: {other}"),
        },
    }
}
