//! Edits that are not sent as they are: a later edit was delivered before them, or the message they change failed and is parked
//! for a retry.

use std::{collections::HashSet, time::Duration};

use footbridge_store::{
    Cancelled, Copies, Copy, Delivery, Error, ParkedDelivery, RemoteId, SkipRule,
};

use super::{Lane, coalesce::rewrite, redacted_edits::is_restoration};
use crate::{
    file::File,
    message::{Action, Message},
    outlet::{Outcome, Plan, SendError, Step},
};

/// Why the parked delivery of a message that its author deleted is no longer kept.
pub(super) const DELETED_BY_AUTHOR: &str = "its author deleted it";
/// Why an edit fails whose message failed with an unknown outcome.
const MAY_HAVE_ARRIVED: &str = "its message failed, and nobody knows whether that arrived; after a retry of both the edit follows the message";

/// The same for a message that was edited since.
const OVERTAKEN: &str = "a later edit replaced it";

/// The largest number of events that replace the text of one of the bridge's messages. A deletion takes one request for each
/// event, and the lane waits for them.
const MOST_EDITS: usize = 24;

/// Adds to a plan the events that edited a copy. For each copy that is deleted, the events that edited it are deleted after it:
/// they contain its text, too. When the whole message is deleted (`whole`), all of its edit events are deleted, also those whose
/// copy is deleted already. When an edit adds to more than [`MOST_EDITS`] events, the oldest are deleted.
pub(super) fn with_edit_removals(plan: Plan, message: &Message, known: &Copies) -> Plan {
    let whole = matches!(message.action, Action::Delete { .. }) && !known.shared;
    let steps = match plan {
        Plan::Steps(steps) => steps,
        Plan::Skip(_) if whole && !known.edits.is_empty() => Vec::new(),
        Plan::Skip(rule) => return Plan::Skip(rule),
    };
    let edits_of = |of: RemoteId| {
        let edits = known.edits.iter();
        edits
            .filter(move |(target, _)| *target == of)
            .map(|(_, edit)| edit)
    };
    let behind: Vec<&RemoteId> = if whole {
        known.edits.iter().map(|(_, edit)| edit).collect()
    } else {
        let of = |step: &Step| match step {
            Step::Delete { target, .. } => edits_of(target.clone()).collect(),
            Step::Edit { target, .. } | Step::EditPart { target, .. } => {
                let surplus = (edits_of(target.clone()).count() + 1).saturating_sub(MOST_EDITS);
                // Events from before this limit existed are deleted a few at a time.
                edits_of(target.clone()).take(surplus.min(2)).collect()
            }
            _ => Vec::new(),
        };
        steps.iter().flat_map(of).collect()
    };
    let deleted: HashSet<&RemoteId> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Delete { target, .. } => Some(target),
            _ => None,
        })
        .collect();
    let behind: Vec<Step> = behind
        .into_iter()
        .filter(|edit| !deleted.contains(edit))
        .map(|edit| Step::Delete {
            target: edit.clone(),
            by_edit: false,
        })
        .collect();
    Plan::Steps(steps.into_iter().chain(behind).collect())
}

/// The copies of the message that a delivery is about. An edit gets those that somebody else deleted, too: each stands for its
/// part of the message, which is not posted again (see [`without_removed`]).
pub(super) fn copies_to_edit(message: &Message, known: &Copies) -> Vec<Copy> {
    if message.is_edit() && !known.copies.is_empty() {
        known.with_removed()
    } else {
        known.copies.clone()
    }
}

/// The plan of an edit without the steps for the parts of the message that somebody else deleted.
pub(super) fn without_removed(plan: Plan, message: &Message, known: &Copies) -> Plan {
    let Plan::Steps(steps) = plan else {
        return plan;
    };
    if !message.is_edit() || known.removed_by_others.is_empty() {
        return Plan::Steps(steps);
    }
    let removed: Vec<&Copy> = known
        .removed_by_others
        .iter()
        .map(|(_, copy)| copy)
        .collect();
    let is_removed = |remote: &RemoteId| removed.iter().any(|copy| copy.remote == *remote);
    let has_removed_file = |file: &File| {
        let digest = file.digest();
        removed
            .iter()
            .any(|copy| copy.file_digest() == Some(&*digest))
    };
    // Where the texts can no longer be changed, each is posted again.
    let is_posted_again = steps.iter().all(|step| matches!(step, Step::Post { .. }));
    let texts = known.with_removed();
    let mut texts = texts.iter().filter(|copy| copy.file_digest().is_none());
    let steps = steps.into_iter().filter(|step| match step {
        Step::Edit { target, .. } | Step::EditPart { target, .. } | Step::Delete { target, .. } => {
            !is_removed(target)
        }
        Step::SendFile { file, .. } => !has_removed_file(file),
        Step::Post { .. } if is_posted_again => {
            texts.next().is_none_or(|copy| !is_removed(&copy.remote))
        }
        _ => true,
    });
    Plan::Steps(steps.collect())
}

/// The plan of a deletion, with the leftovers that an edit could not delete.
pub(super) fn with_leftovers(plan: Plan, leftovers: &[RemoteId]) -> Plan {
    if leftovers.is_empty() {
        return plan;
    }
    let steps = match plan {
        Plan::Steps(steps) => steps,
        Plan::Skip(_) => Vec::new(),
    };
    let leftovers = leftovers.iter().map(|leftover| Step::Delete {
        target: leftover.clone(),
        by_edit: false,
    });
    Plan::Steps(steps.into_iter().chain(leftovers).collect())
}

impl Lane {
    /// The saved plan, unless its text is no longer the text of its message: where the message failed after some steps and is
    /// retried, a later edit may have been delivered before it.
    pub(super) async fn saved_plan(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<Option<Plan>, Error> {
        let saved = delivery.plan.as_deref();
        let Some(plan) = saved.and_then(|saved| serde_json::from_slice(saved).ok()) else {
            return Ok(None);
        };
        let (entry, to) = (delivery.entry, &delivery.to);
        let is_superseded = delivery.is_retry
            && match &message.action {
                Action::Post { .. } => self.store.has_newer_edit(entry, to).await?,
                Action::Edit { target, .. } => {
                    let from = &delivery.from;
                    !self
                        .store
                        .advance_latest_edit(from, target, to, entry)
                        .await?
                }
                _ => false,
            };
        if delivery.is_retry && self.has_no_copy_left(delivery, message).await? {
            return Ok(Some(Plan::Skip(SkipRule::UnknownTarget)));
        }
        Ok(Some(if is_superseded {
            Plan::Skip(SkipRule::Superseded)
        } else {
            plan
        }))
    }

    /// Whether this is an edit of a message that was deleted since, so that nothing of the edit may be posted.
    async fn has_no_copy_left(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<bool, Error> {
        let Action::Edit { target, .. } = &message.action else {
            return Ok(false);
        };
        let known = self.store.copies(&delivery.from, target, &delivery.to);
        let known = known.await?;
        Ok(known.copies.is_empty() && known.pending.is_none())
    }

    /// Cancels, for this reason, the parked delivery of a message that no longer has that text. Returns whether there was one.
    pub(super) async fn cancel_failed(
        &self,
        delivery: &Delivery,
        target: &RemoteId,
        why: &'static str,
    ) -> Result<bool, Error> {
        let (from, to) = (&delivery.from, &delivery.to);
        let which = if why == OVERTAKEN {
            Cancelled::Texts
        } else {
            Cancelled::All
        };
        let was_parked = self
            .store
            .cancel_failed_delivery(from, target, to, which, why)
            .await?;
        if was_parked {
            self.refresh_notices().await?;
        }
        Ok(was_parked)
    }

    /// Revokes the media gateway's links to the files that a message no longer has.
    pub(super) async fn revoke_media_links(
        &self,
        message: &Message,
        known: &Copies,
    ) -> Result<(), Error> {
        match (&message.action, known.entry) {
            (Action::Delete { .. }, Some(entry)) => self.store.revoke_media_links(entry).await,
            (Action::Edit { .. }, Some(entry)) => {
                let left: Vec<String> = message.files.iter().map(File::digest).collect();
                let is_removed = move |payload: &[u8]| {
                    let file = serde_json::from_slice::<File>(payload);
                    file.is_ok_and(|file| !left.contains(&file.digest()))
                };
                self.store.revoke_media_links_where(entry, is_removed).await
            }
            _ => Ok(()),
        }
    }

    /// The rule by which this edit of `target` is not sent, if any; or the error, where its message failed and may have arrived.
    pub(super) async fn edit_skip_rule(
        &self,
        delivery: &Delivery,
        edit: &Message,
        target: &RemoteId,
        known: &Copies,
    ) -> Result<Result<Option<SkipRule>, SendError>, Error> {
        let latest =
            self.store
                .advance_latest_edit(&delivery.from, target, &delivery.to, delivery.entry);
        if !latest.await? {
            return Ok(Ok(Some(SkipRule::Superseded)));
        }
        if !known.copies.is_empty() {
            return Ok(Ok(None));
        }
        let failed = self
            .store
            .parked_deliveries_of(&delivery.from, target)
            .await?;
        // Failed deliveries of other messages in its thread are also about it.
        let own: Vec<ParkedDelivery> = failed
            .into_iter()
            .filter(|failed| Some(failed.entry) == known.entry && failed.to == delivery.to)
            .collect();
        // With the same transaction key the other side would take the new text for the old one.
        let may_be_there = |failed: &ParkedDelivery| {
            failed.retryable && (failed.outcome_unknown || failed.bundle.is_some())
        };
        if self.is_idempotent() && own.iter().any(may_be_there) {
            return Ok(Err(SendError::Refused {
                reason: MAY_HAVE_ARRIVED.to_owned(),
            }));
        }
        if self.rewrite_failed(delivery, edit, own.into_iter()).await? {
            return Ok(Ok(Some(SkipRule::EditIncluded)));
        }
        let now = self.store.copies(&delivery.from, target, &delivery.to);
        if known.pending.is_none() && now.await?.pending.is_some() {
            // Somebody has just retried the message: the edit goes after it.
            return Ok(Err(SendError::Retry {
                after: Some(Duration::ZERO),
                outcome: Outcome::NotDone,
                source: anyhow::anyhow!("its message is being retried"),
            }));
        }
        Ok(Ok(None))
    }

    /// A step of this delivery is done. If it is an edit, a parked delivery of its message, failed after some steps, or of an
    /// older edit, must not follow. The redaction of an edit brings no new text: a newer edit that failed stays parked.
    pub(super) async fn cancel_overtaken(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<(), Error> {
        if let Action::Edit { target, .. } = &message.action
            && delivery.steps_done == 0
            && !is_restoration(delivery)
        {
            self.cancel_failed(delivery, target, OVERTAKEN).await?;
        }
        Ok(())
    }

    /// Writes the new text into the message if that failed and is parked: a retry then sends the author's newest text.
    async fn rewrite_failed(
        &self,
        delivery: &Delivery,
        edit: &Message,
        failed: impl Iterator<Item = ParkedDelivery> + Send,
    ) -> Result<bool, Error> {
        for parked in failed {
            let payload = parked.payload.filter(|_| parked.to == delivery.to);
            let Some(mut message) = payload.and_then(|payload| Message::from_bytes(&payload).ok())
            else {
                continue;
            };
            rewrite(&mut message, edit);
            let is_new = matches!(message.action, Action::Post { .. });
            if let (true, Ok(payload)) = (is_new, message.to_bytes()) {
                let written = self
                    .store
                    .rewrite_failed(parked.id, payload, delivery.entry);
                return written.await;
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::Millis;

    use super::*;
    use crate::{message::Style, outlet::Content, text::Body};

    fn remove(id: &str) -> Step {
        Step::Delete {
            target: RemoteId::from(id),
            by_edit: false,
        }
    }

    fn known(edits: &[(&str, &str)]) -> Copies {
        let ids = |(of, edit): &(&str, &str)| (RemoteId::from(*of), RemoteId::from(*edit));
        Copies {
            edits: edits.iter().map(ids).collect(),
            ..Copies::default()
        }
    }

    fn about(action: Action) -> Message {
        Message {
            action,
            ..Message::notice("", Millis(0))
        }
    }

    fn edit() -> Message {
        about(Action::Edit {
            target: RemoteId::from("$1"),
            body: Body::plain("new"),
            style: Style::Text,
        })
    }

    #[test]
    fn the_edits_of_a_message_are_deleted_with_it() {
        let mut known = known(&[("$a", "$a1"), ("$b", "$b1"), ("$a", "$a2")]);
        let plan = Plan::Steps(vec![remove("$a"), remove("$c")]);
        let steps = |ids: &[&str]| Plan::Steps(ids.iter().copied().map(remove).collect());
        let edited = with_edit_removals(plan.clone(), &edit(), &known);
        assert_eq!(edited, steps(&["$a", "$c", "$a1", "$a2"]));
        let delete = about(Action::Delete {
            target: RemoteId::from("$1"),
        });
        let deleted = with_edit_removals(plan.clone(), &delete, &known);
        assert_eq!(deleted, steps(&["$a", "$c", "$a1", "$b1", "$a2"]));
        // Somebody else deleted the copies.
        let skip = Plan::Skip(SkipRule::UnknownTarget);
        let deleted = with_edit_removals(skip.clone(), &delete, &known);
        assert_eq!(deleted, steps(&["$a1", "$b1", "$a2"]));
        assert_eq!(with_edit_removals(skip.clone(), &edit(), &known), skip);
        // The message still contains text of others.
        known.shared = true;
        let deleted = with_edit_removals(plan, &delete, &known);
        assert_eq!(deleted, steps(&["$a", "$c", "$a1", "$a2"]));
        assert_eq!(with_edit_removals(skip.clone(), &delete, &known), skip);
    }

    #[test]
    fn a_message_that_is_edited_again_and_again_keeps_its_newest_edits() {
        let replace = Step::Edit {
            target: RemoteId::from("$a"),
            content: Content {
                text: String::new(),
                html: None,
                style: Style::Text,
                author: None,
                mentions: Vec::new(),
            },
            is_caption: false,
            fallback: None,
        };
        let redacted = |edits: usize| {
            let names: Vec<String> = (0..edits).map(|edit| format!("$a{edit}")).collect();
            let edits: Vec<(&str, &str)> = names.iter().map(|name| ("$a", &name[..])).collect();
            let plan = Plan::Steps(vec![replace.clone()]);
            let Plan::Steps(steps) = with_edit_removals(plan, &edit(), &known(&edits)) else {
                panic!("steps");
            };
            assert_eq!(steps[0], replace);
            steps[1..].to_vec()
        };
        assert_eq!(redacted(MOST_EDITS - 1), []);
        assert_eq!(redacted(MOST_EDITS), [remove("$a0")]);
        assert_eq!(redacted(MOST_EDITS * 2), ["$a0", "$a1"].map(remove));
    }

    #[test]
    fn leftovers_of_an_edit_are_deleted_with_the_message() {
        let kept = [RemoteId::from("$k")];
        let plan = with_leftovers(Plan::Steps(vec![remove("$a")]), &kept);
        assert_eq!(plan, Plan::Steps(["$a", "$k"].map(remove).to_vec()));
        let skip = || Plan::Skip(SkipRule::UnknownTarget);
        assert_eq!(
            with_leftovers(skip(), &kept),
            Plan::Steps(vec![remove("$k")])
        );
        assert_eq!(with_leftovers(skip(), &[]), skip());
    }

    fn copy(id: &str, file: &str) -> Copy {
        Copy {
            remote: RemoteId::from(id),
            thread: None,
            sent_at: Millis(1),
            file: Some(file.to_owned()),
        }
    }

    #[test]
    fn no_edit_posts_again_what_a_moderator_deleted() {
        let file = |source: &str| File {
            source: source.to_owned(),
            ..File::default()
        };
        let (f, g) = (file("mxc://x/f"), file("mxc://x/g"));
        let known = Copies {
            copies: vec![copy("b", "")],
            removed_by_others: vec![(0, copy("a", "")), (1, copy("c", &g.digest()))],
            ..Copies::default()
        };
        let all: Vec<_> = copies_to_edit(&edit(), &known);
        let all: Vec<_> = all.iter().map(|copy| copy.remote.as_str()).collect();
        assert_eq!(all, ["a", "b", "c"]);
        let delete = about(Action::Delete {
            target: RemoteId::from("$1"),
        });
        assert_eq!(copies_to_edit(&delete, &known).len(), 1);
        let content = Content {
            text: String::new(),
            html: None,
            style: Style::Text,
            author: None,
            mentions: Vec::new(),
        };
        let said = |text: &str| Step::Post {
            content: Content {
                text: text.to_owned(),
                ..content.clone()
            },
            thread: None,
            reply_to: None,
        };
        let sent = |file: &File| Step::SendFile {
            file: file.clone(),
            content: content.clone(),
            thread: None,
            reply_to: None,
            fallback: None,
        };
        let left = |steps: Vec<Step>| match without_removed(Plan::Steps(steps), &edit(), &known) {
            Plan::Steps(steps) => steps,
            Plan::Skip(rule) => panic!("{rule:?}"),
        };
        assert_eq!(left(vec![remove("a"), remove("b")]), [remove("b")]);
        let anew = vec![sent(&f), sent(&g), remove("b")];
        assert_eq!(left(anew), [sent(&f), remove("b")]);
        // Where the texts can no longer be changed, only the part of the copy that is left follows.
        let late = vec![said("one"), said("two"), said("three")];
        assert_eq!(left(late), [said("two"), said("three")]);
    }
}
