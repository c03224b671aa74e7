//! Changes to a message that was not sent yet, or that was written in another place than the change.

use footbridge_store::{Copies, Delivery, Error, SkipRule};
use tracing::debug;

use super::{
    Lane,
    coalesce::{Changes, was_never_tried},
};
use crate::{
    message::{Action, Message},
    outlet::Plan,
};

impl Lane {
    /// The plan for a change to a message that was written in another place; `None` where the message was written in the place of
    /// the change, or where this is no change.
    pub(super) async fn plan_if_written_elsewhere(
        &self,
        delivery: &Delivery,
        message: &Message,
        known: &Copies,
    ) -> Result<Option<Plan>, Error> {
        if !is_elsewhere(delivery, message, known) {
            return Ok(None);
        }
        if let Action::Delete { target } = &message.action {
            self.store.mark_copy_deleted(&delivery.from, target).await?;
        }
        Ok(Some(Plan::Skip(SkipRule::WrittenElsewhere)))
    }

    /// Applies the edits and the deletion that are queued behind a message that was never attempted, whether the message was on
    /// hold or only waited: the message includes the edits if its text may change, and is not sent if it was deleted. Returns whether
    /// anything changed; the message is then read again.
    pub(super) async fn was_changed(
        &self,
        head: &Delivery,
        message: &Message,
        may_change: bool,
    ) -> Result<bool, Error> {
        let (mut now, mut changes) = (message.clone(), Changes::default());
        // One at a time: a member controls how many changes there are, and how long each is.
        for (id, redacted) in self.store.pending_changes(head.id).await? {
            let Some(change) = self.store.pending_delivery(self.id, id).await? else {
                continue;
            };
            let Ok(changed) = Message::from_bytes(&change.payload) else {
                continue;
            };
            match &changed.action {
                Action::Delete { .. } => {
                    let ended =
                        self.store
                            .cancel_pending(head.id, id, SkipRule::DeletedBeforeDelivery);
                    if ended.await? {
                        self.signals.notify_step_settled();
                        return Ok(true);
                    }
                }
                Action::Edit { .. } if !may_change => {}
                Action::Edit { .. } if was_never_tried(&change) && redacted => {
                    changes.redacted.push(id);
                }
                Action::Edit { .. } if was_never_tried(&change) => {
                    changes.include(&change, &changed, &mut now, head.text_of);
                }
                _ => {}
            }
        }
        if changes.is_empty() {
            return Ok(false);
        }
        let ended = changes.ended();
        self.store.include_edits(changes.of(head.id), ended).await?;
        Ok(true)
    }

    /// Whether this is about a message that is still pending, and waits behind it: where the change was written in another place,
    /// it may be put on hold. A deletion of a message that was not sent yet ends both.
    pub(super) async fn queue_behind_target(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<bool, Error> {
        let (Action::Edit { target, .. }
        | Action::Delete { target }
        | Action::React { target, .. }
        | Action::Unreact { target, .. }) = &message.action
        else {
            return Ok(false);
        };
        let known = self.store.copies(&delivery.from, target, &delivery.to);
        let known = known.await?;
        let Some(pending) = known.pending.filter(|_| known.copies.is_empty()) else {
            return Ok(false);
        };
        if is_elsewhere(delivery, message, &known) {
            return Ok(false);
        }
        if !matches!(message.action, Action::Delete { .. }) {
            return self.store.queue_behind(delivery.id, pending).await;
        }
        if let Some(entry) = known.entry {
            self.store.revoke_media_links(entry).await?;
        }
        let ended =
            self.store
                .cancel_pending(pending, delivery.id, SkipRule::DeletedBeforeDelivery);
        if ended.await? {
            debug!(
                delivery.id = delivery.id.0,
                rule = SkipRule::DeletedBeforeDelivery.as_str(),
                "Skipped"
            );
            if delivery.is_retry {
                self.refresh_notices().await?;
            }
        }
        self.signals.notify_step_settled();
        Ok(true)
    }
}

/// Whether this changes a message that was written in another place than the change.
fn is_elsewhere(delivery: &Delivery, message: &Message, known: &Copies) -> bool {
    let is_change = matches!(message.action, Action::Edit { .. } | Action::Delete { .. });
    let origin = known.home.as_ref().filter(|_| is_change);
    origin.is_some_and(|origin| *origin != delivery.from)
}
