//! Files that the target side does not accept are named there, with a link where the portal allows it.

use footbridge_store::{Copies, Delivery, EntryId, Error};

use super::{Lane, removals::as_new};
use crate::{
    message::{Action, Message},
    outlet::{Outgoing, Plan, Step},
};

impl Lane {
    /// The outlet's plan, with links where it would only name files.
    pub(super) async fn plan_with_media_links(
        &self,
        delivery: &Delivery,
        known: &Copies,
        mut outgoing: Outgoing,
    ) -> Result<Plan, Error> {
        // All copies of a message that is known are left out (see `leave_out`).
        let is_anew = outgoing.copies.is_empty() && !known.copies.is_empty();
        let plan_of = |outgoing: &Outgoing| {
            let now = self.clock.now();
            if is_anew {
                let anew = as_new(outgoing.clone(), known.copies.first());
                self.outlet.plan(&anew, now)
            } else {
                self.outlet.plan(outgoing, now)
            }
        };
        let plan = plan_of(&outgoing);
        let linked = self.with_media_links(delivery, &outgoing.message, known, &plan);
        Ok(match linked.await? {
            Some(linked) => {
                outgoing.message = linked;
                plan_of(&outgoing)
            }
            None => plan,
        })
    }

    /// The message with links to its files, where this plan only names them; `None` where no link is needed or allowed.
    async fn with_media_links(
        &self,
        delivery: &Delivery,
        message: &Message,
        known: &Copies,
        plan: &Plan,
    ) -> Result<Option<Message>, Error> {
        let Plan::Steps(steps) = plan else {
            return Ok(None);
        };
        let carried = |step: &Step| matches!(step, Step::SendFile { .. });
        // For an edited message, its copy carries its files, or has the links.
        let entry: EntryId = match &message.action {
            Action::Post { .. } => delivery.entry,
            Action::Edit { .. } => known.entry.unwrap_or(delivery.entry),
            _ => return Ok(None),
        };
        let Some(links) = self.links.as_ref().filter(|_| !message.files.is_empty()) else {
            return Ok(None);
        };
        let choice = self.effective_policy(delivery, |filters| filters.file_links);
        if steps.iter().any(carried) || !self.is_allowed_by(choice, delivery).await? {
            return Ok(None);
        }
        let mut linked = message.clone();
        for file in &mut linked.files {
            let now = self.clock.now();
            let linked = links.link_for(&self.store, entry, &delivery.to, file, now);
            *file = linked.await?;
        }
        Ok(Some(linked))
    }
}
