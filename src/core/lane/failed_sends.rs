//! Failed deliveries of which an attempt was not answered: what they created is looked for before their message, or an edit of it,
//! is redacted, and before the message is retried.

use footbridge_store::{
    Copies, Copy, Delivery, EditResult, Error, FailedSend, MessageRef, ParkedState, RedactedEdit,
    RemoteId,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Attempt, Lane, reconcile::bundle_key};
use crate::{
    message::{Action, Message, Style},
    outlet::{Content, Done, SendError, Step},
};

/// A step by which a new message is looked for.
pub(super) fn a_post() -> Step {
    Step::Post {
        content: no_content(),
        thread: None,
        reply_to: None,
    }
}

/// A step by which an edit of this copy is looked for, or a message that was sent instead.
pub(super) fn an_edit(copy: &RemoteId) -> Step {
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
        let linked = self.link_failed(delivery, message, &known).await?;
        match linked {
            Ok(false) => Ok(Ok(found)),
            Ok(true) => {
                let again = self.store.redacted_edit(from, edit, to, delivery.entry);
                Ok(Ok(again.await?.unwrap_or(found)))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// A message, or an edit of it, is redacted. What arrived of it, of its edits and of restored texts, although the delivery
    /// failed, is linked, so that it is deleted, too. Returns whether there was any, or the error for which that cannot be told now.
    pub(super) async fn link_failed(
        &self,
        delivery: &Delivery,
        target: &RemoteId,
        known: &Copies,
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
            let is_over = matches!(failed.state, ParkedState::Failed | ParkedState::Skipped);
            if failed.to != delivery.to || !is_over || !(is_own || failed.is_edit) {
                continue;
            }
            let step = match known.copies.first().filter(|_| !is_own) {
                Some(copy) => an_edit(&copy.remote),
                None => a_post(),
            };
            let unknown = FailedSend {
                outcome_unknown: failed.outcome_unknown,
                bundle: failed.bundle,
                sender: failed.sender,
            };
            for sought in sends(&failed.key, failed.steps_done, unknown) {
                let (to, since) = (&failed.to, failed.accepted_at);
                let done = self.find_sent(failed.sender, to, &sought.key, &step, since);
                let done = match done.await {
                    Ok(done) => done,
                    // Nobody can tell any more.
                    Err(SendError::Refused { .. }) => continue,
                    Err(error) => return Ok(Err(error)),
                };
                found |= match (edit_result(done), is_own) {
                    (None, _) => false,
                    (Some(EditResult::Created(copy)), true) => {
                        let linked =
                            self.store
                                .link_late_part(entry, &failed.to, &copy, sought.slot);
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
        }
        Ok(Ok(found))
    }

    /// A message is retried that may have arrived before, by itself or in a bundle.
    pub(super) async fn find_before_retry(
        &self,
        delivery: &Delivery,
        message: &Message,
        stop: &CancellationToken,
    ) -> Result<BeforeRetry, Error> {
        let is_new = matches!(message.action, Action::Post { .. });
        if !delivery.is_retry || !is_new || delivery.steps_done > 0 || !self.is_idempotent() {
            return Ok(BeforeRetry::NotSent);
        }
        let Some(mut failed) = self.store.failed_send(delivery.id).await? else {
            return Ok(BeforeRetry::NotSent);
        };
        // The retry itself may have been attempted since.
        failed.outcome_unknown |= delivery.unanswered_since.is_some();
        let (mut is_certain, step, sender) = (true, a_post(), failed.sender);
        for sought in sends(&delivery.key, 0, failed) {
            let (to, since) = (&delivery.to, delivery.accepted_at);
            let found = self.find_sent(sender, to, &sought.key, &step, since);
            match found.await {
                Ok(Some(Done::Created(copy))) => {
                    if self.adopt(delivery, &copy, sought.slot).await? {
                        return Ok(BeforeRetry::Ends(Attempt::Settled));
                    }
                }
                Ok(_) => {}
                Err(SendError::Refused { .. }) => is_certain = false,
                Err(error) => {
                    let postponed = self.handle_plan_error(delivery, error, message, stop);
                    return postponed.await.map(BeforeRetry::Ends);
                }
            }
        }
        if is_certain {
            self.store.forget_failed_send(delivery.id).await?;
            return Ok(BeforeRetry::NotSent);
        }
        // Nobody can tell any more, and a person has decided to send it; but not under a key that the other side may know with a
        // redacted text.
        if self.store.has_redacted_text(delivery.id).await? {
            self.store.forget_failed_send(delivery.id).await?;
            self.store.discard_plan(delivery.id).await?;
            return Ok(BeforeRetry::Ends(Attempt::Settled));
        }
        Ok(BeforeRetry::MayBeSent)
    }

    /// A retried message turned out to have arrived as this copy: in a bundle, which is the whole message, or its first step.
    /// Returns whether that is so; it is not if the copy is known as another message.
    async fn adopt(
        &self,
        delivery: &Delivery,
        copy: &Copy,
        slot: Option<u32>,
    ) -> Result<bool, Error> {
        let is_another = self.store.is_copy_of_another(delivery.id, &copy.remote);
        if slot.is_none() && is_another.await? {
            return Ok(false);
        }
        if let Some(slot) = slot {
            let (entry, to) = (delivery.entry, &delivery.to);
            let linked = self.store.link_late_part(entry, to, copy, Some(slot));
            if !linked.await? {
                return Ok(false);
            }
            self.end_delivery(delivery).await?;
        } else {
            self.store.adopt_failed_send(delivery.id).await?;
        }
        info!(
            delivery.id = delivery.id.0,
            "A retried message had arrived before; not sent again"
        );
        Ok(true)
    }
}

/// What is known before a message is retried.
pub(super) enum BeforeRetry {
    /// It certainly was not sent before.
    NotSent,
    /// Nobody can tell. It is sent under the same key, so its text must not change.
    MayBeSent,
    /// This attempt ends with what was found.
    Ends(Attempt),
}

/// A send to look for.
struct SoughtSend {
    /// Its transaction key.
    key: String,
    /// The part of the bundle, if it is one.
    slot: Option<u32>,
}

/// The sends by which a delivery may have arrived that failed after this many steps.
fn sends(key: &str, steps_done: u32, failed: FailedSend) -> impl Iterator<Item = SoughtSend> {
    let bundle = failed.bundle.map(|bundle| SoughtSend {
        key: bundle_key(&bundle.key),
        slot: Some(bundle.slot),
    });
    let own = failed.outcome_unknown.then(|| SoughtSend {
        key: format!("{key}.{steps_done}"),
        slot: None,
    });
    bundle.into_iter().chain(own)
}

/// What a step that was looked for had created.
fn edit_result(done: Option<Done>) -> Option<EditResult> {
    match done? {
        Done::Created(copy) => Some(EditResult::Created(copy)),
        Done::EditedBy { target, by } => Some(EditResult::Replaced { target, by }),
        _ => None,
    }
}
