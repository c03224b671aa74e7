//! Edits that remove or restore a text: an edit that was redacted, and an edit that turns its message into a notice.

use footbridge_store::{
    Delivery, Error, MessageRef, RedactedEdit, RemoteId, ShownText, SkipRule, TextCarrier,
};
use tokio_util::sync::CancellationToken;

use super::{Attempt, Lane, RelayFilter, fallback::read_error, reconcile::may_have_begun};
use crate::{
    message::{Action, Message, Sender, Style},
    outlet::{Outlet, SendError, TextBeforeEdit},
    text::Body,
};

/// What the bridge writes in the place of a redacted edit where no earlier text may be shown.
const NOTHING_BEFORE: &str =
    "(An edit of this message was redacted. Its earlier text cannot be shown here.)";

/// Why the parked delivery of a message that an edit turned into a notice is no longer kept.
const A_NOTICE: &str = "its author changed it to a notice, which this portal does not relay";

/// The current text of a delivery.
pub(super) enum CurrentText {
    /// This text.
    Text(Message),
    /// The text from before an edit that was redacted. What contains the edit's text is changed or deleted.
    Restores(Message, Vec<TextCarrier>),
    /// No new text: a later edit stands. What contains the text of the redacted edit is deleted.
    Removes(Message, Vec<TextCarrier>),
    /// The saved plan does not apply any more: the delivery is planned again.
    PlansAgain,
    /// No text, by this rule.
    Nothing(SkipRule),
    /// The text cannot be read yet.
    Unknown(SendError),
    /// Stopped before it was known.
    Stopped,
}

impl Lane {
    /// The current text of a delivery: the redaction of an edit restores the text from before, and an edit that was redacted
    /// while it waited is not sent.
    pub(super) async fn current_text(
        &self,
        delivery: &Delivery,
        message: Message,
        stop: &CancellationToken,
    ) -> Result<CurrentText, Error> {
        let current_text = match &message.action {
            // An edit that may have been delivered already is reconciled first, so that the lane knows what its redaction must
            // delete.
            Action::Edit { .. }
                if !may_be_there(delivery) && self.is_redacted(delivery).await? =>
            {
                return Ok(CurrentText::Nothing(SkipRule::EditRedacted));
            }
            Action::Delete { target } => {
                let (from, to) = (&delivery.from, &delivery.to);
                let found = self.store.redacted_edit(from, target, to, delivery.entry);
                let Some(found) = found.await? else {
                    return Ok(CurrentText::Text(message));
                };
                match self.with_failed_linked(delivery, target, found).await? {
                    Ok(found) => self.restore_text(delivery, &message, found, stop).await?,
                    Err(error) => return Ok(CurrentText::Unknown(error)),
                }
            }
            _ => CurrentText::Text(message),
        };
        let (CurrentText::Text(message) | CurrentText::Restores(message, _)) = &current_text else {
            return Ok(current_text);
        };
        if delivery.plan.is_some() {
            return Ok(current_text);
        }
        let retraction = self.retract_if_notice(delivery, message).await?;
        Ok(retraction.unwrap_or(current_text))
    }

    /// The text that the message has after the redaction of an edit.
    async fn restore_text(
        &self,
        delivery: &Delivery,
        redaction: &Message,
        found: RedactedEdit,
        stop: &CancellationToken,
    ) -> Result<CurrentText, Error> {
        // If the edit had failed, its notice now says that it was redacted.
        self.refresh_notices().await?;
        let Some(message) = found.message else {
            return Ok(CurrentText::Nothing(SkipRule::EditRedacted));
        };
        let without_text = |target: &RemoteId| Message {
            action: Action::Edit {
                target: target.clone(),
                body: Body::default(),
                style: Style::Text,
            },
            ..redaction.clone()
        };
        if delivery.plan.is_some() {
            // It failed after some steps, and a later edit was delivered since; or what it restores was redacted since.
            let is_superseded = delivery.is_retry && found.shown != ShownText::Redacted;
            if is_superseded
                || !may_have_begun(delivery) && self.restores_redacted(delivery, &message).await?
            {
                self.store.discard_plan(delivery.id).await?;
                return Ok(CurrentText::PlansAgain);
            }
            // The plan contains what is restored.
            return Ok(CurrentText::Text(without_text(&message)));
        }
        let rule = match found.shown {
            ShownText::Redacted => None,
            ShownText::Later => Some(SkipRule::Superseded),
            ShownText::Earlier => Some(SkipRule::EditRedacted),
        };
        if let Some(rule) = rule {
            if found.carriers.is_empty() || !self.outlet.capabilities().can_delete() {
                return Ok(CurrentText::Nothing(rule));
            }
            // A later edit did not change what contains the redacted text. Where an event replaces the text of it, the text of
            // the later edit is sent anew; and that edit may have kept a file.
            let mut carriers = found.carriers.iter();
            if !carriers.any(|carrier| carrier.is_replaced || carrier.has_file) {
                let message = without_text(&message);
                return Ok(CurrentText::Removes(message, found.carriers));
            }
        }
        let known = self.store.copies(&delivery.from, &message, &delivery.to);
        let known = known.await?;
        if known.copies.is_empty() && known.pending.is_none() {
            // There is no copy to restore. If the message failed and is parked, it has the text of its newest edit. Of copies that
            // somebody else deleted the events may be left that replaced their text.
            return Ok(
                if found.carriers.is_empty() || !self.outlet.capabilities().can_delete() {
                    CurrentText::Nothing(SkipRule::UnknownTarget)
                } else {
                    CurrentText::Removes(without_text(&message), found.carriers)
                },
            );
        }
        let events: Vec<RemoteId> = found
            .others
            .iter()
            .map(|edit| edit.event_id.clone())
            .collect();
        let text = tokio::select! {
            () = stop.cancelled() => return Ok(CurrentText::Stopped),
            text = self.matrix().text_before_edit(&delivery.from, &message, &events) => text,
        };
        let (text, by) = match text {
            // A text that was not delivered there before is not delivered by a redaction.
            Ok(TextBeforeEdit::Text(text, by)) if by.is_some() || found.own => (text, by),
            Ok(TextBeforeEdit::Text(..) | TextBeforeEdit::Unreadable) => {
                // The redacted text must not stay either.
                (Box::new(placeholder_edit(redaction, &message)), None)
            }
            Ok(TextBeforeEdit::Redacted) => {
                return Ok(CurrentText::Nothing(SkipRule::MessageRedacted));
            }
            Err(error) => return Ok(CurrentText::Unknown(read_error(error))),
        };
        let by = by.and_then(|by| found.others.iter().find(|edit| edit.event_id == by));
        self.store
            .note_restored_text(
                MessageRef {
                    place: &delivery.from,
                    id: &message,
                },
                &delivery.to,
                delivery.entry,
                by.map(|edit| edit.entry),
            )
            .await?;
        Ok(CurrentText::Restores(*text, found.carriers))
    }

    /// An edit may turn a message into a notice: where notices are not relayed, the message's copies are deleted. `None` where
    /// the edit makes no notice, or nothing of the message was delivered.
    async fn retract_if_notice(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<Option<CurrentText>, Error> {
        let Action::Edit { target, .. } = &message.action else {
            return Ok(None);
        };
        let mut passed = self.passed(delivery);
        if !passed
            .any(|(toward, filter): (_, RelayFilter)| filter.skip_rule(message, toward).is_some())
        {
            return Ok(None);
        }
        let copies = self.store.copies(&delivery.from, target, &delivery.to);
        let copies = copies.await?;
        let is_in_origin = copies.home.as_ref() == Some(&delivery.from);
        if !is_in_origin {
            return Ok(None);
        }
        let latest =
            self.store
                .advance_latest_edit(&delivery.from, target, &delivery.to, delivery.entry);
        let latest = latest.await?;
        if copies.copies.is_empty() && copies.pending.is_none() {
            // That rule skips the edit; a parked delivery of its message is cancelled.
            if latest {
                self.cancel_failed(delivery, target, A_NOTICE).await?;
            }
            return Ok(None);
        }
        if !latest {
            return Ok(Some(CurrentText::Nothing(SkipRule::Superseded)));
        }
        let action = Action::Delete {
            target: target.clone(),
        };
        Ok(Some(CurrentText::Text(Message {
            action,
            files: Vec::new(),
            ..message.clone()
        })))
    }

    /// Whether the delivery is an edit that was redacted itself.
    pub(super) async fn is_redacted(&self, delivery: &Delivery) -> Result<bool, Error> {
        self.store.is_edit_redacted(delivery.entry).await
    }

    /// Whether this is an edit, a message with the text of an edit, or a redaction that restores one, and that edit was redacted
    /// since it was begun.
    pub(super) async fn is_redacted_meanwhile(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<bool, Error> {
        let edit = match (&message.action, delivery.text_of) {
            (Action::Edit { target, .. }, _) if is_restoration(delivery) => {
                return self.restores_redacted(delivery, target).await;
            }
            (Action::Edit { .. }, _) => delivery.entry,
            (_, Some(edit)) => edit,
            (_, None) => return Ok(false),
        };
        self.store.is_edit_redacted(edit).await
    }

    async fn restores_redacted(
        &self,
        delivery: &Delivery,
        message: &RemoteId,
    ) -> Result<bool, Error> {
        let original = MessageRef {
            place: &delivery.from,
            id: message,
        };
        self.store
            .restores_redacted_text(original, &delivery.to, delivery.entry)
            .await
    }

    /// The text of a delivery was redacted before the step with this index, which certainly did not happen: no more of it is sent.
    /// `None` where the store decides what is sent instead.
    pub(super) async fn end_redacted(
        &self,
        delivery: &Delivery,
        message: &Message,
        index: usize,
    ) -> Result<Option<Attempt>, Error> {
        let is_edit = matches!(message.action, Action::Edit { .. });
        if is_edit && is_restoration(delivery) {
            self.store.discard_plan(delivery.id).await?;
            return Ok(Some(Attempt::Settled));
        }
        Ok(match index {
            0 if is_edit => Some(self.skip(delivery, SkipRule::EditRedacted).await?),
            0 => None,
            _ => Some(self.end_delivery(delivery).await?),
        })
    }

    /// Ends a delivery with the steps that are done: the redaction deletes what they created.
    pub(super) async fn end_delivery(&self, delivery: &Delivery) -> Result<Attempt, Error> {
        let now = self.clock.now();
        let ended = self.store.complete_step(delivery.id, None, None, true, now);
        ended.await?;
        if delivery.is_retry {
            self.refresh_notices().await?;
        }
        self.signals.notify_step_settled();
        Ok(Attempt::Settled)
    }

    /// The outlet for Matrix.
    fn matrix(&self) -> &dyn Outlet {
        match self.id.toward {
            footbridge_store::Side::Matrix => self.relay_outlet(),
            footbridge_store::Side::Silo => self.source.as_ref(),
        }
    }
}

/// Whether the delivery, or a part of it, was delivered or may have been.
fn may_be_there(delivery: &Delivery) -> bool {
    delivery.steps_done > 0 || may_have_begun(delivery)
}

/// Whether a delivery that changes a text is the redaction of an edit.
pub(super) fn is_restoration(delivery: &Delivery) -> bool {
    Message::from_bytes(&delivery.payload).is_ok_and(|stored| !stored.is_edit())
}

/// The text that the bridge itself writes for a message whose edit was redacted.
fn placeholder_edit(redaction: &Message, message: &RemoteId) -> Message {
    Message {
        sender: Sender::bridge(),
        sent_at: redaction.sent_at,
        action: Action::Edit {
            target: message.clone(),
            body: Body::plain(NOTHING_BEFORE),
            style: Style::Notice,
        },
        files: Vec::new(),
    }
}
