//! Edits that remove or restore a text: an edit that was redacted, and an edit that turns its message into a notice.

use footbridge_store::{Delivery, Error, RedactedEdit, RemoteId, ShownText, SkipRule};
use tokio_util::sync::CancellationToken;

use super::{Attempt, Lane, RelayFilter, fallback::read_error};
use crate::{
    message::{Action, Message, Sender, Style},
    outlet::{Outlet, Plan, SendError, Step, TextBeforeEdit},
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
    Says(Message),
    /// The text from before an edit that was redacted. The copies and events that the edit created are removed with it.
    Restores(Message, Vec<RemoteId>),
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
                let redacted = (&delivery.from, target);
                let found = self
                    .store
                    .redacted_edit(redacted, &delivery.to, delivery.entry);
                match found.await? {
                    Some(found) => self.restore_text(delivery, &message, found, stop).await?,
                    None => CurrentText::Says(message),
                }
            }
            _ => CurrentText::Says(message),
        };
        let (CurrentText::Says(message) | CurrentText::Restores(message, _)) = &current_text else {
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
        if delivery.plan.is_some() {
            if delivery.is_retry && found.shown != ShownText::Redacted {
                // It failed after some steps, and a later edit was delivered since.
                return Ok(CurrentText::Nothing(SkipRule::Superseded));
            }
            // The plan contains what is restored.
            let action = Action::Edit {
                target: message,
                body: Body::default(),
                style: Style::Text,
            };
            return Ok(CurrentText::Says(Message {
                action,
                ..redaction.clone()
            }));
        }
        match found.shown {
            ShownText::Redacted => {}
            ShownText::Later => return Ok(CurrentText::Nothing(SkipRule::Superseded)),
            ShownText::Earlier => return Ok(CurrentText::Nothing(SkipRule::EditRedacted)),
        }
        let known = self.store.copies(&delivery.from, &message, &delivery.to);
        let known = known.await?;
        if known.copies.is_empty() && known.pending.is_none() {
            // There is no copy to restore. If the message failed and is parked, it has the text of its newest edit.
            return Ok(CurrentText::Nothing(SkipRule::UnknownTarget));
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
            Ok(TextBeforeEdit::Says(text, by)) if by.is_some() || found.own => (text, by),
            Ok(TextBeforeEdit::Says(..) | TextBeforeEdit::Unreadable) => {
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
                (&delivery.from, &message),
                &delivery.to,
                delivery.entry,
                by.map(|edit| edit.entry),
            )
            .await?;
        Ok(CurrentText::Restores(*text, found.created))
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
        Ok(Some(CurrentText::Says(Message {
            action,
            files: Vec::new(),
            ..message.clone()
        })))
    }

    /// Whether the delivery is an edit that was redacted itself.
    pub(super) async fn is_redacted(&self, delivery: &Delivery) -> Result<bool, Error> {
        self.store.is_edit_redacted(delivery.entry).await
    }

    /// Whether this is an edit, or a message with the text of an edit, that was redacted since it was begun.
    pub(super) async fn is_redacted_meanwhile(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<bool, Error> {
        let edit = match (&message.action, delivery.text_of) {
            (Action::Edit { .. }, _) => delivery.entry,
            (_, Some(edit)) => edit,
            (_, None) => return Ok(false),
        };
        self.store.is_edit_redacted(edit).await
    }

    /// Ends a delivery with the steps that are done: the redaction deletes what they created.
    pub(super) async fn end_delivery(&self, delivery: &Delivery) -> Result<Attempt, Error> {
        let now = self.clock.now();
        let ended = self.store.complete_step(delivery.id, None, None, true, now);
        ended.await?;
        self.signals.notify_step_settled();
        Ok(Attempt::Settled)
    }

    /// The outlet for Matrix.
    fn matrix(&self) -> &dyn Outlet {
        match self.id.toward {
            footbridge_store::Side::Matrix => self.outlet.as_ref(),
            footbridge_store::Side::Silo => self.source.as_ref(),
        }
    }
}

/// Whether the delivery, or a part of it, was delivered or may have been.
fn may_be_there(delivery: &Delivery) -> bool {
    delivery.steps_done > 0
        || delivery.outcome_unknown_since.is_some()
        || delivery.unanswered_since.is_some()
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

/// Adds to the plan the removal of what a redacted edit created, unless the plan changes it already.
pub(super) fn with_removals(plan: Plan, created: &[RemoteId]) -> Plan {
    let Plan::Steps(mut steps) = plan else {
        return plan;
    };
    let changed = |step: &Step| match step {
        Step::Edit { target, .. } | Step::Delete { target, .. } | Step::EditPart { target, .. } => {
            Some(target.clone())
        }
        _ => None,
    };
    let touched: Vec<RemoteId> = steps.iter().filter_map(changed).collect();
    let left = created.iter().filter(|remote| !touched.contains(remote));
    steps.extend(left.map(|remote| Step::Delete {
        target: remote.clone(),
        by_edit: true,
    }));
    Plan::Steps(steps)
}

/// The plan of an edit: no removal in it may take along a message that others have replied to.
pub(super) fn mark_by_edit(plan: Plan) -> Plan {
    let Plan::Steps(steps) = plan else {
        return plan;
    };
    let steps = steps.into_iter().map(|step| match step {
        Step::Delete { target, .. } => Step::Delete {
            target,
            by_edit: true,
        },
        step => step,
    });
    Plan::Steps(steps.collect())
}
