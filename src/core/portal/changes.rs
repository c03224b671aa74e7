//! Changes of a message that was not sent yet, or that was written in another place than the change.

use footbridge_store::{Copies, Delivery, Error};
use tracing::debug;

use super::{
    Lane,
    batch::{self, Changes, is_untouched},
};
use crate::{
    message::{Action, Message},
    outlet::Plan,
};

/// The rule for a change of what was written elsewhere. Who may change a copy has no say over the original or over other
/// copies, and our account lends nobody its power there.
const ELSEWHERE: &str = "written-elsewhere";

impl Lane {
    /// The plan for a change of a message that was written elsewhere; `None` where it was written there, or is no change.
    pub(super) async fn elsewhere(
        &self,
        delivery: &Delivery,
        message: &Message,
        known: &Copies,
    ) -> Result<Option<Plan>, Error> {
        if !is_elsewhere(delivery, message, known) {
            return Ok(None);
        }
        if let Action::Delete { target } = &message.action {
            self.store.copy_is_gone(&delivery.from, target).await?;
        }
        Ok(Some(Plan::Skip(ELSEWHERE.to_owned())))
    }

    /// Whether anything became of a message that was never tried by the edits and the deletion that stand behind it, where it
    /// was held up or only waited: it takes in the edits, and goes nowhere if it was taken back. Then it is looked at anew.
    pub(super) async fn was_changed(
        &self,
        head: &Delivery,
        message: &Message,
    ) -> Result<bool, Error> {
        let (mut now, mut changes) = (message.clone(), Changes::default());
        // One at a time: a member decides how many there are, and how long.
        for (id, taken_back) in self.store.changes_behind(head.id).await? {
            let Some(change) = self.store.owed(self.id, id).await? else {
                continue;
            };
            let Ok(changed) = Message::from_bytes(&change.payload) else {
                continue;
            };
            match &changed.action {
                Action::Delete { .. } => {
                    let ended = self.store.take_back_owed(head.id, id, batch::DELETED);
                    if ended.await? {
                        self.bells.step_settled();
                        return Ok(true);
                    }
                }
                Action::Edit { .. } if is_untouched(&change) && taken_back => {
                    changes.gone.push(id);
                }
                Action::Edit { .. } if is_untouched(&change) => {
                    changes.include(id, &mut now, &changed);
                }
                _ => {}
            }
        }
        if changes.is_empty() {
            return Ok(false);
        }
        let ended = changes.ended();
        self.store.include(changes.of(head.id), ended).await?;
        Ok(true)
    }

    /// Whether this is about a message that is still owed, and waits behind it: where that was said in another place it may
    /// be held up. A deletion of what was not sent yet ends both.
    pub(super) async fn waits_behind(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<bool, Error> {
        let (Action::Edit { target: about, .. }
        | Action::Delete { target: about }
        | Action::React { target: about, .. }
        | Action::Unreact { target: about, .. }) = &message.action
        else {
            return Ok(false);
        };
        let known = self.store.copies(&delivery.from, about, &delivery.to);
        let known = known.await?;
        let Some(owed) = known.owed.filter(|_| known.copies.is_empty()) else {
            return Ok(false);
        };
        if is_elsewhere(delivery, message, &known) {
            return Ok(false);
        }
        if !matches!(message.action, Action::Delete { .. }) {
            return self.store.wait_behind(delivery.id, owed).await;
        }
        if let Some(entry) = known.entry {
            self.store.withdraw(entry).await?;
        }
        let ended = self.store.take_back_owed(owed, delivery.id, batch::DELETED);
        if ended.await? {
            debug!(
                delivery.id = delivery.id.0,
                rule = batch::DELETED,
                "Skipped"
            );
            if delivery.again {
                self.tell().await?;
            }
        }
        self.bells.step_settled();
        Ok(true)
    }
}

/// Whether this changes a message that was written in another place than the change.
fn is_elsewhere(delivery: &Delivery, message: &Message, known: &Copies) -> bool {
    let is_change = matches!(message.action, Action::Edit { .. } | Action::Delete { .. });
    let home = known.home.as_ref().filter(|_| is_change);
    home.is_some_and(|home| *home != delivery.from)
}
