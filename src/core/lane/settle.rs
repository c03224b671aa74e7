//! Records in the store what a step did.

use footbridge_store::{Copy, Delivery, EditResult, Emptied, Error};
use tracing::debug;

use super::{Lane, fallback::file_digest_of};
use crate::{
    crash_points,
    message::{Action, Message},
    outlet::{Done, Step},
};

impl Lane {
    /// A step is done.
    pub(super) async fn settle(
        &self,
        delivery: &Delivery,
        message: &Message,
        step: &Step,
        done: &Done,
        last: bool,
    ) -> Result<(), Error> {
        let done = &match done {
            Done::Created(copy) if copy.file.is_none() => Done::Created(Copy {
                file: Some(file_digest_of(step)),
                ..copy.clone()
            }),
            done => done.clone(),
        };
        self.complete(delivery, message, step, done, last).await?;
        crash_points::point("step.settled");
        self.signals.notify_step_settled();
        debug!(
            delivery.id = delivery.id.0,
            entry.id = delivery.entry.0,
            last,
            "Step settled"
        );
        self.cancel_overtaken(delivery, message).await?;
        self.note_open().await?;
        if last && delivery.is_retry {
            self.refresh_notices().await?;
        }
        Ok(())
    }

    /// Records what a step did.
    async fn complete(
        &self,
        delivery: &Delivery,
        message: &Message,
        step: &Step,
        done: &Done,
        last: bool,
    ) -> Result<(), Error> {
        let (created, deleted) = match done {
            Done::Created(copy) => (Some(copy), None),
            Done::EditedBy { by, .. } => (Some(by), None),
            Done::Edited(_)
            | Done::Emptied(_)
            | Done::PartRemoved { .. }
            | Done::Leftover(_)
            | Done::NeedsCascade(_)
            | Done::ReactionAdded(_)
            | Done::ReactionRemoved(_) => (None, None),
            Done::Deleted(remote) => (None, Some(remote)),
        };
        let edit_result = match done.clone() {
            Done::Created(copy) => Some(EditResult::Created(copy)),
            Done::EditedBy { target, by } => Some(EditResult::Replaced { target, by }),
            Done::Edited(target) => Some(EditResult::Changed(target)),
            _ => None,
        };
        let about_reactions = matches!(
            message.action,
            Action::React { .. } | Action::Unreact { .. } | Action::Delete { .. }
        );
        if let Done::Emptied(remote) | Done::Leftover(remote) = done {
            let why = match (step, done) {
                (_, Done::Leftover(_)) => Emptied::Leftover,
                (Step::Delete { by_edit: true, .. }, _) => Emptied::Replaced,
                _ => Emptied::Deleted,
            };
            let emptied = self
                .store
                .complete_emptied_step(delivery.id, remote, why, last);
            emptied.await?;
        } else if let Done::PartRemoved { target, slot, by } = done {
            let struck = self
                .store
                .complete_part_removal(delivery.id, target, *slot, by, last);
            struck.await?;
        } else if let Done::ReactionAdded(copy) = done {
            self.store
                .complete_reaction_step(delivery.id, copy, false, last)
                .await?;
        } else if let (Some(line), true) = (created, about_reactions) {
            self.store
                .complete_reaction_step(delivery.id, line, true, last)
                .await?;
        } else if let (Done::Deleted(remote), true) | (Done::ReactionRemoved(remote), _) =
            (done, about_reactions)
        {
            self.store
                .complete_reaction_removal(delivery.id, remote, last)
                .await?;
        } else if let (Done::Edited(_), Step::Edit { .. }, true) = (done, step, about_reactions) {
            self.store.complete_summary_step(delivery.id, last).await?;
        } else if let (Some(result), Action::Edit { target, .. }) = (edit_result, &message.action) {
            // An event that an edit created belongs to the original: when the original is deleted, so is this event.
            self.store
                .complete_edit_step(delivery, target, result, last)
                .await?;
        } else {
            let now = self.clock.now();
            let was_pending = self
                .store
                .complete_step(delivery.id, created, deleted, last, now);
            if let (false, Some(copy)) = (was_pending.await?, created) {
                let known = self
                    .store
                    .link_late_copy(delivery.entry, &delivery.to, copy);
                known.await?;
            }
        }
        Ok(())
    }
}
