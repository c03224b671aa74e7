//! Edits that do not leave their message as it is: one that was redacted itself, and one that makes a notice of it.

use footbridge_store::{Delivery, EDIT_REDACTED, Error, RemoteId, Shows, TakenBack};
use tokio_util::sync::CancellationToken;

use super::{Lane, Tastes, edits::SUPERSEDED, instead::not_read};
use crate::{
    message::{Action, Message, Sender, Style},
    outlet::{Outlet, Plan, SendError, Step, TextBefore},
    text::Body,
};

/// The rule for the redaction of an edit of a message that was redacted itself.
const MESSAGE_GONE: &str = "message-redacted";
/// The rule for what changes a message that is not there.
const NOT_THERE: &str = "unknown-target";
/// What the bridge says in the place of a redacted edit where nothing of before may be shown.
const NOTHING_BEFORE: &str =
    "(An edit of this message was redacted. What it said before cannot be shown here.)";

/// Why what failed of a message is not kept any more that an edit makes a notice of.
const A_NOTICE: &str = "its author made a notice of it, which the portal does not carry over";

/// What a delivery says by now.
pub(super) enum Present {
    /// This.
    Says(Message),
    /// What it said before an edit that was redacted. The copies and events that the edit had made are removed with it.
    Restores(Message, Vec<RemoteId>),
    /// Nothing, by this rule.
    Nothing(&'static str),
    /// It cannot be told yet.
    Unknown(SendError),
    /// Told to stop before it was known.
    Stopped,
}

impl Lane {
    /// What a delivery says by now: the redaction of an edit restores the text of before, and an edit that was redacted while
    /// it waited is not sent.
    pub(super) async fn present(
        &self,
        delivery: &Delivery,
        message: Message,
        stop: &CancellationToken,
    ) -> Result<Present, Error> {
        let present = match &message.action {
            // What may be there already is looked for first, so that it is known what its redaction has to take back.
            Action::Edit { .. } if !may_be_there(delivery) && self.is_gone(delivery).await? => {
                return Ok(Present::Nothing(EDIT_REDACTED));
            }
            Action::Delete { target } => {
                let redacted = (&delivery.from, target);
                let found = self
                    .store
                    .taken_back(redacted, &delivery.to, delivery.entry);
                match found.await? {
                    Some(found) => self.before(delivery, &message, found, stop).await?,
                    None => Present::Says(message),
                }
            }
            _ => Present::Says(message),
        };
        let (Present::Says(message) | Present::Restores(message, _)) = &present else {
            return Ok(present);
        };
        if delivery.plan.is_some() {
            return Ok(present);
        }
        let as_a_notice = self.as_a_notice(delivery, message).await?;
        Ok(as_a_notice.unwrap_or(present))
    }

    /// What the redaction of an edit makes of the message.
    async fn before(
        &self,
        delivery: &Delivery,
        redaction: &Message,
        found: TakenBack,
        stop: &CancellationToken,
    ) -> Result<Present, Error> {
        // Of an edit that had failed, its notice says by now that it was redacted.
        self.tell().await?;
        let Some(message) = found.message else {
            return Ok(Present::Nothing(EDIT_REDACTED));
        };
        if delivery.plan.is_some() {
            if delivery.again && found.shown != Shows::Redacted {
                // It failed in the middle, and a later edit has gone since.
                return Ok(Present::Nothing(SUPERSEDED));
            }
            // What is restored stands in the plan.
            let action = Action::Edit {
                target: message,
                body: Body::default(),
                style: Style::Text,
            };
            return Ok(Present::Says(Message {
                action,
                ..redaction.clone()
            }));
        }
        match found.shown {
            Shows::Redacted => {}
            Shows::Later => return Ok(Present::Nothing(SUPERSEDED)),
            Shows::Earlier => return Ok(Present::Nothing(EDIT_REDACTED)),
        }
        let known = self.store.copies(&delivery.from, &message, &delivery.to);
        let known = known.await?;
        if known.copies.is_empty() && known.owed.is_none() {
            // There is nothing to restore. If the message failed and is kept, it says what its newest edit says.
            return Ok(Present::Nothing(NOT_THERE));
        }
        let events: Vec<RemoteId> = found.others.iter().map(|edit| edit.fact.clone()).collect();
        let text = tokio::select! {
            () = stop.cancelled() => return Ok(Present::Stopped),
            text = self.matrix().text_before(&delivery.from, &message, &events) => text,
        };
        let (text, by) = match text {
            // What has not gone there before does not by this.
            Ok(TextBefore::Says(text, by)) if by.is_some() || found.own => (text, by),
            Ok(TextBefore::Says(..) | TextBefore::Unreadable) => {
                // The redacted words do not stay either.
                (Box::new(nothing_before(redaction, &message)), None)
            }
            Ok(TextBefore::Redacted) => return Ok(Present::Nothing(MESSAGE_GONE)),
            Err(error) => return Ok(Present::Unknown(not_read(error))),
        };
        let by = by.and_then(|by| found.others.iter().find(|edit| edit.fact == by));
        self.store
            .restores(
                (&delivery.from, &message),
                &delivery.to,
                delivery.entry,
                by.map(|edit| edit.entry),
            )
            .await?;
        Ok(Present::Restores(*text, found.made))
    }

    /// An edit may make a notice of a message: where those do not cross, what the message said is taken back. `None` where it
    /// is none, or nothing of it has crossed.
    async fn as_a_notice(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<Option<Present>, Error> {
        let Action::Edit { target, .. } = &message.action else {
            return Ok(None);
        };
        let mut passed = self.passed(delivery);
        if !passed.any(|(toward, tastes): (_, Tastes)| tastes.against(message, toward).is_some()) {
            return Ok(None);
        }
        let copies = self.store.copies(&delivery.from, target, &delivery.to);
        let copies = copies.await?;
        let is_at_home = copies.home.as_ref() == Some(&delivery.from);
        if !is_at_home {
            return Ok(None);
        }
        let latest =
            self.store
                .is_latest_edit(&delivery.from, target, &delivery.to, delivery.entry);
        let latest = latest.await?;
        if copies.copies.is_empty() && copies.owed.is_none() {
            // By that rule it does not cross, nor does what failed of it and is kept.
            if latest {
                self.take_back_failed(delivery, target, A_NOTICE).await?;
            }
            return Ok(None);
        }
        if !latest {
            return Ok(Some(Present::Nothing(SUPERSEDED)));
        }
        let action = Action::Delete {
            target: target.clone(),
        };
        Ok(Some(Present::Says(Message {
            action,
            files: Vec::new(),
            ..message.clone()
        })))
    }

    /// Whether what is delivered is an edit that was redacted itself.
    pub(super) async fn is_gone(&self, delivery: &Delivery) -> Result<bool, Error> {
        self.store.is_edit_taken_back(delivery.entry).await
    }

    /// The side that rooms are on.
    fn matrix(&self) -> &dyn Outlet {
        match self.id.toward {
            footbridge_store::Side::Matrix => self.outlet.as_ref(),
            footbridge_store::Side::Silo => self.source.as_ref(),
        }
    }
}

/// Whether some of it is there, or may be.
fn may_be_there(delivery: &Delivery) -> bool {
    delivery.steps_done > 0
        || delivery.unsure_since.is_some()
        || delivery.unanswered_since.is_some()
}

/// What the bridge itself says of a message whose edit was redacted.
fn nothing_before(redaction: &Message, message: &RemoteId) -> Message {
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

/// The plan, which also removes what a redacted edit had made and nothing in the plan changes.
pub(super) fn without(plan: Plan, made: &[RemoteId]) -> Plan {
    let Plan::Steps(mut steps) = plan else {
        return plan;
    };
    let changed = |step: &Step| match step {
        Step::Replace { target, .. }
        | Step::Remove { target, .. }
        | Step::Revise { target, .. } => Some(target.clone()),
        _ => None,
    };
    let touched: Vec<RemoteId> = steps.iter().filter_map(changed).collect();
    let left = made.iter().filter(|remote| !touched.contains(remote));
    steps.extend(left.map(|remote| Step::Remove {
        target: remote.clone(),
        replaced: true,
    }));
    Plan::Steps(steps)
}

/// The plan of an edit: whatever it removes, it takes nothing along that others have answered.
pub(super) fn by_an_edit(plan: Plan) -> Plan {
    let Plan::Steps(steps) = plan else {
        return plan;
    };
    let steps = steps.into_iter().map(|step| match step {
        Step::Remove { target, .. } => Step::Remove {
            target,
            replaced: true,
        },
        step => step,
    });
    Plan::Steps(steps.collect())
}
