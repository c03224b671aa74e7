//! The steps of a plan, one after the other: each waits for its turn, is looked for where it is in doubt, is noted
//! before it is tried, and is settled before the next.

use footbridge_store::{Along, Copy, Delivery, EDIT_REDACTED, Emptied, Error, Millis};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Attempt, Lane, batch,
    doubt::{Looking, Recalled, is_unknown, step_key},
    failure::Trial,
    instead::{carried_by, in_words, instead_of, not_fetched},
};
use crate::{
    budget::Permit,
    crash,
    message::{Action, Message},
    outlet::{Done, Plan, SendError, Step},
    picture::Picture,
    spool::Spooled,
};

/// What a look for a step in doubt leads to.
enum Looked {
    /// It happened.
    Adopted,
    /// It did not, and is tried again.
    Repeat,
    /// This attempt is over.
    Ends(Attempt),
}

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
            let parts = batch::carried(step);
            if let Some(since) = doubt.take() {
                let looked = self.look(delivery, message, (index, step, last), since, stop);
                match looked.await? {
                    Looked::Adopted => continue,
                    Looked::Repeat => {}
                    Looked::Ends(attempt) => return Ok(attempt),
                }
            }
            if index > 0 && self.is_gone_meanwhile(delivery, message).await? {
                // What is there by now its redaction takes back; nothing more of it goes.
                return self.ends_here(delivery).await;
            }
            let permit = match turn.take() {
                Some(permit) => permit,
                None => match self.turn(message, stop).await {
                    Some(permit) => permit,
                    None => return Ok(Attempt::Stopped),
                },
            };
            let key = step_key(delivery, index, step);
            let began = self.clock.now();
            let fetched = self.fetch(delivery, step).await;
            // It may have been held up, or taken apart, since it was read: while it waited for its turn, was looked for,
            // or its file was fetched.
            if !self.sets_off(delivery, parts).await? {
                let in_doubt = index == done && delivery.unsure_since.is_some();
                if matches!(message.action, Action::React { .. }) {
                    self.store.react_later(delivery.entry, &delivery.to).await?;
                }
                return self.held_up(delivery, permit, in_doubt).await;
            }
            let mut result = match fetched {
                Ok(file) => {
                    self.announce(delivery, step, count, &mut unkept).await?;
                    crash::point("perform.before");
                    let result = self.perform(delivery, &key, step, file).await;
                    crash::point("perform.after");
                    result
                }
                Err(error) => Err(error),
            };
            if let Err(error) = &result
                && let Some(instead) = instead_of(step, error)
            {
                if !self.sets_off(delivery, parts).await? {
                    return self.held_up(delivery, permit, true).await;
                }
                self.announce(delivery, instead, count, &mut unkept).await?;
                result = self.outlet.perform(&delivery.to, &key, instead).await;
                result = result.map(|done| in_words(step, done));
            }
            if let Ok(Done::TakesAlong(along)) = result {
                result = self.remove_along(delivery, step, along).await?;
            }
            match result {
                Ok(done) => {
                    permit.passed(parts);
                    self.settle(delivery, message, (step, &done), last).await?;
                }
                Err(error) => {
                    self.note_unanswered(delivery, &error, began).await?;
                    let set_off = parts > 1 || delivery.text_of.is_some();
                    if set_off && delivery.unanswered_since.is_none() && !is_unknown(&error) {
                        self.store.answered(delivery.id).await?;
                    }
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

    /// Writes a plan down before its first try.
    pub(super) async fn keep(&self, delivery: &Delivery, steps: &[Step]) -> Result<(), Error> {
        let plan = serde_json::to_vec(&Plan::Steps(steps.to_vec())).unwrap_or_default();
        self.store.planned(delivery.id, &plan).await
    }

    /// Looks for a step of which nobody knows since this moment whether it happened.
    async fn look(
        &self,
        delivery: &Delivery,
        message: &Message,
        (index, step, last): (usize, &Step, bool),
        since: Millis,
        stop: &CancellationToken,
    ) -> Result<Looked, Error> {
        // What may not go as it is any more is only let go of when it certainly is not there.
        let parts = batch::carried(step);
        let goes = self.store.may_go(delivery.id, parts, self.clock.now());
        let is_gone = delivery.steps_done == 0
            && matches!(message.action, Action::Edit { .. })
            && self.is_gone(delivery).await?;
        let how = if !is_gone && (parts == 1 || goes.await?) {
            Looking::BeforeRepeating
        } else {
            Looking::BeforeTakingApart
        };
        let recalled = self.recall(delivery, message, (index, step, last), (since, how), stop);
        let attempt = match recalled.await? {
            Recalled::Adopted => return Ok(Looked::Adopted),
            Recalled::NeverHappened if is_gone => {
                let noted = self.store.may_have_crossed(delivery.entry, &delivery.to);
                noted.await?;
                self.skip(delivery, EDIT_REDACTED).await?
            }
            Recalled::NeverHappened if how == Looking::BeforeTakingApart => {
                self.store.held_back(delivery.id).await?;
                self.store.unbind(delivery.id).await?;
                self.bells.step_settled();
                Attempt::Settled
            }
            Recalled::NotNow(SendError::Refused { reason })
                if how == Looking::BeforeTakingApart =>
            {
                self.unknown(delivery, &reason, message).await?
            }
            Recalled::NeverHappened => return Ok(Looked::Repeat),
            Recalled::NotNow(error) => self.not_looked(delivery, error).await?,
            Recalled::NeverKnown(reason) => self.unknown(delivery, reason, message).await?,
            Recalled::Stopped => Attempt::Stopped,
        };
        Ok(Looked::Ends(attempt))
    }

    /// Whether this is an edit that was redacted since it was begun.
    async fn is_gone_meanwhile(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<bool, Error> {
        Ok(matches!(message.action, Action::Edit { .. }) && self.is_gone(delivery).await?)
    }

    /// Ends a delivery with the steps that are done.
    async fn ends_here(&self, delivery: &Delivery) -> Result<Attempt, Error> {
        let now = self.clock.now();
        let ended = self.store.step_done(delivery.id, None, None, true, now);
        ended.await?;
        self.bells.step_settled();
        Ok(Attempt::Settled)
    }

    /// A step may not go now, and did not.
    async fn held_up(
        &self,
        delivery: &Delivery,
        permit: Permit,
        in_doubt: bool,
    ) -> Result<Attempt, Error> {
        drop(permit);
        if in_doubt {
            self.store.held_back(delivery.id).await?;
        }
        self.bells.step_settled();
        Ok(Attempt::Settled)
    }

    /// Whether a delivery may still go; one that pays several debts, or says the text of an edit, then counts as tried.
    async fn sets_off(&self, delivery: &Delivery, parts: usize) -> Result<bool, Error> {
        let now = self.clock.now();
        match delivery.text_of {
            _ if parts > 1 => self.store.sets_off(delivery.id, parts, now).await,
            Some(edit) if delivery.steps_done == 0 => {
                self.store.sets_off_saying(delivery.id, edit, now).await
            }
            _ => self.store.may_go(delivery.id, parts, now).await,
        }
    }

    /// What a step needs besides: its author's picture is there, and its file is here.
    async fn fetch(
        &self,
        delivery: &Delivery,
        step: &Step,
    ) -> Result<Option<(Spooled, Option<Picture>)>, SendError> {
        self.introduce(delivery, step).await;
        let Step::Send { file, .. } = step else {
            return Ok(None);
        };
        let spooled = self.source.fetch(file, &self.spool).await;
        let spooled = spooled.map_err(not_fetched)?;
        let preview = self.preview(delivery, file).await;
        Ok(Some((spooled, preview)))
    }

    async fn perform(
        &self,
        delivery: &Delivery,
        key: &str,
        step: &Step,
        file: Option<(Spooled, Option<Picture>)>,
    ) -> Result<Done, SendError> {
        let outlet = &self.outlet;
        match &file {
            Some((spooled, preview)) => {
                let carried = (spooled, preview.as_ref());
                outlet.send_file(&delivery.to, key, step, carried).await
            }
            None => outlet.perform(&delivery.to, key, step).await,
        }
    }

    /// Removes a message with which others go. Before it happens it is written down which: if the answer is lost, their end is
    /// nobody else's deletion all the same.
    async fn remove_along(
        &self,
        delivery: &Delivery,
        step: &Step,
        along: Along,
    ) -> Result<Result<Done, SendError>, Error> {
        let noted = self.store.takes_along(delivery.id, &delivery.to, along);
        noted.await?;
        crash::point("perform.before");
        let removed = self.outlet.remove_along(&delivery.to, step).await;
        crash::point("perform.after");
        if let Err(
            SendError::Refused { .. }
            | SendError::Rejected { .. }
            | SendError::Closed { .. }
            | SendError::TooLate,
        ) = &removed
        {
            // The message stands there.
            self.store.takes_nothing(delivery.id).await?;
        }
        Ok(removed)
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
        (step, done): (&Step, &Done),
        last: bool,
    ) -> Result<(), Error> {
        let done = &match done {
            Done::Made(copy) if copy.file.is_none() => Done::Made(Copy {
                file: Some(carried_by(step)),
                ..copy.clone()
            }),
            done => done.clone(),
        };
        let (made, gone, replaces) = match done {
            Done::Made(copy) => (Some(copy), None, None),
            Done::Replaced { target, by } => (Some(by), None, Some(target)),
            Done::Changed(_)
            | Done::Emptied(_)
            | Done::Struck { .. }
            | Done::Kept(_)
            | Done::TakesAlong(_)
            | Done::Shown(_)
            | Done::Hidden(_) => (None, None, None),
            Done::Gone(remote) => (None, Some(remote), None),
        };
        let about_reactions = matches!(
            message.action,
            Action::React { .. } | Action::Unreact { .. } | Action::Delete { .. }
        );
        if let Done::Emptied(remote) | Done::Kept(remote) = done {
            let why = match (step, done) {
                (_, Done::Kept(_)) => Emptied::Kept,
                (Step::Remove { replaced: true, .. }, _) => Emptied::Replaced,
                _ => Emptied::Deleted,
            };
            let emptied = self.store.step_emptied(delivery.id, (remote, why), last);
            emptied.await?;
        } else if let Done::Struck { target, slot, by } = done {
            let struck = self.store.struck(delivery.id, (target, *slot), by, last);
            struck.await?;
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
        } else if let (Done::Changed(_), Step::Replace { .. }, true) = (done, step, about_reactions)
        {
            self.store.step_told(delivery.id, last).await?;
        } else if let (Some(copy), Action::Edit { target, .. }) = (made, &message.action) {
            // What an edit made belongs to the original: when that is taken back, so is this.
            let made = (&delivery.to, copy, replaces);
            let of = (delivery.id, delivery.entry);
            self.store
                .step_made_for(of, made, (&delivery.from, target), last)
                .await?;
        } else {
            let now = self.clock.now();
            let owed = self.store.step_done(delivery.id, made, gone, last, now);
            if let (false, Some(copy)) = (owed.await?, made) {
                let known = self.store.made_too_late(delivery.entry, &delivery.to, copy);
                known.await?;
            }
        }
        crash::point("step.settled");
        self.bells.step_settled();
        debug!(
            delivery.id = delivery.id.0,
            entry.id = delivery.entry.0,
            last,
            "Step settled"
        );
        self.has_overtaken(delivery, message).await?;
        self.let_in().await?;
        if last && delivery.again {
            self.tell().await?;
        }
        Ok(())
    }
}
