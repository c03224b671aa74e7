//! Failed deliveries without an answer to their last attempt: what they created is looked for before their message, or an edit of
//! it, is redacted, and before a message that was bundled with others is retried.

use footbridge_store::{
    Copies, Delivery, EditResult, Error, MessageRef, ParkedDelivery, ParkedState, RedactedEdit,
    RemoteId,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Attempt, Lane, reconcile::bundle_key};
use crate::{
    message::{Message, Style},
    outlet::{Content, Done, SendError, Step},
};

/// A step by which a new message is looked for.
fn a_post() -> Step {
    Step::Post {
        content: no_content(),
        thread: None,
        reply_to: None,
    }
}

/// A step by which an edit of this copy is looked for, or a message that was sent instead.
fn an_edit(copy: &RemoteId) -> Step {
    Step::Edit {
        target: copy.clone(),
        content: no_content(),
        is_caption: false,
        fallback: Some(Box::new(a_post())),
    }
}

fn no_content() -> Content {
    Content {
        text: String::new(),
        html: None,
        style: Style::Text,
        author: None,
        mentions: Vec::new(),
    }
}

impl Lane {
    /// A message is deleted whose delivery failed and may have arrived, or that of an edit: what did arrive is linked, so that it
    /// is deleted, too. Returns whether there was any, or the error for which that cannot be told now.
    pub(super) async fn link_failed(
        &self,
        delivery: &Delivery,
        target: &RemoteId,
        known: &Copies,
    ) -> Result<Result<bool, SendError>, Error> {
        self.link_failed_where(delivery, target, known, |failed| failed.is_edit)
            .await
    }

    /// An edit of this message is redacted: what may have arrived with its text is linked, so that the redaction deletes it.
    pub(super) async fn with_failed_linked(
        &self,
        delivery: &Delivery,
        edit: &RemoteId,
        found: RedactedEdit,
    ) -> Result<Result<RedactedEdit, SendError>, Error> {
        let Some(message) = found.message.as_ref().filter(|_| delivery.plan.is_none()) else {
            return Ok(Ok(found));
        };
        let (from, to) = (&delivery.from, &delivery.to);
        let known = self.store.copies(from, message, to).await?;
        let linked = self
            .link_failed_where(delivery, message, &known, |failed| {
                failed.entry == found.edit
            })
            .await?;
        match linked {
            Ok(false) => Ok(Ok(found)),
            Ok(true) => {
                let again = self.store.redacted_edit(from, edit, to, delivery.entry);
                Ok(Ok(again.await?.unwrap_or(found)))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// The same for the message itself, and for those of its edits of which `is_wanted` says so.
    async fn link_failed_where(
        &self,
        delivery: &Delivery,
        target: &RemoteId,
        known: &Copies,
        is_wanted: impl Fn(&ParkedDelivery) -> bool + Send,
    ) -> Result<Result<bool, SendError>, Error> {
        let Some(entry) = known.entry.filter(|_| self.is_idempotent()) else {
            return Ok(Ok(false));
        };
        let failed = self
            .store
            .parked_deliveries_of(&delivery.from, target)
            .await?;
        let mut found = false;
        for failed in failed {
            let is_own = failed.entry == entry;
            if failed.to != delivery.to || !(is_own || is_wanted(&failed)) || !may_be_there(&failed)
            {
                continue;
            }
            let step = match known.copies.first().filter(|_| !is_own) {
                Some(copy) => an_edit(&copy.remote),
                None => a_post(),
            };
            let done = match self.find_failed(&failed, &step).await {
                Ok(done) => done,
                // Nobody can tell any more.
                Err(SendError::Refused { .. }) => continue,
                Err(error) => return Ok(Err(error)),
            };
            found |= match (edit_result(done), is_own) {
                (None, _) => false,
                (Some(EditResult::Created(copy)), true) => {
                    let slot = failed.bundle.as_ref().map(|bundle| bundle.slot);
                    let linked = self.store.link_late_part(entry, &failed.to, &copy, slot);
                    linked.await?
                }
                (Some(result), _) => {
                    let message = MessageRef {
                        place: &delivery.from,
                        id: target,
                    };
                    let linked =
                        self.store
                            .link_late_edit(message, &failed.to, failed.entry, result);
                    linked.await?
                }
            };
        }
        Ok(Ok(found))
    }

    /// What the present step of a failed delivery did; `None` if it certainly did not happen.
    async fn find_failed(
        &self,
        failed: &ParkedDelivery,
        step: &Step,
    ) -> Result<Option<Done>, SendError> {
        let key = match &failed.bundle {
            Some(bundle) => bundle_key(&bundle.key),
            None => format!("{}.{}", failed.key, failed.steps_done),
        };
        self.outlet
            .find_by_key_always(&failed.to, &key, step, failed.accepted_at)
            .await
    }

    /// A message is retried that may have arrived in a bundle. If it did, it is not sent again. `None`: it is sent.
    pub(super) async fn find_in_bundle(
        &self,
        delivery: &Delivery,
        message: &Message,
        stop: &CancellationToken,
    ) -> Result<Option<Attempt>, Error> {
        if !delivery.is_retry || delivery.steps_done > 0 {
            return Ok(None);
        }
        let Some(bundle) = self.store.failed_bundle(delivery.id).await? else {
            return Ok(None);
        };
        let (to, key, step) = (&delivery.to, bundle_key(&bundle.key), a_post());
        let found = self
            .outlet
            .find_by_key_always(to, &key, &step, delivery.accepted_at);
        match found.await {
            Ok(Some(Done::Created(copy))) => {
                let linked =
                    self.store
                        .link_late_part(delivery.entry, to, &copy, Some(bundle.slot));
                if linked.await? {
                    info!(
                        delivery.id = delivery.id.0,
                        "A retried message had arrived with others; not sent again"
                    );
                    return self.end_delivery(delivery).await.map(Some);
                }
            }
            Ok(_) => self.store.forget_failed_bundle(delivery.id).await?,
            // Nobody can tell any more, and a person has decided to send it.
            Err(SendError::Refused { .. }) => {}
            Err(error) => {
                let postponed = self.handle_plan_error(delivery, error, message, stop);
                return postponed.await.map(Some);
            }
        }
        Ok(None)
    }
}

/// Whether something that is not linked yet may have arrived of a delivery that failed, also of one that is too old to be retried.
fn may_be_there(failed: &ParkedDelivery) -> bool {
    let is_over = matches!(failed.state, ParkedState::Failed | ParkedState::Skipped);
    is_over && (failed.outcome_unknown || failed.bundle.is_some())
}

/// What a step that was looked for had created.
fn edit_result(done: Option<Done>) -> Option<EditResult> {
    match done? {
        Done::Created(copy) => Some(EditResult::Created(copy)),
        Done::EditedBy { target, by } => Some(EditResult::Replaced { target, by }),
        _ => None,
    }
}
