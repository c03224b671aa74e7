//! Edits that do not go out as they are: a later one was there before them, or the message they change failed and is
//! kept to be tried again.

use footbridge_store::{Copies, Delivery, Error, Parked, RemoteId};

use super::{
    Lane,
    batch::{INCLUDED, rewrite},
};
use crate::{
    file::File,
    message::{Action, Message},
    outlet::{Plan, Step},
};

/// The rule for an edit that comes after a later one.
pub(super) const SUPERSEDED: &str = "superseded";

/// Why what failed of a message is not kept any more that its author takes back.
pub(super) const TAKEN_BACK: &str = "its author took it back";
/// The same of a message that was edited since.
const OVERTAKEN: &str = "a later edit has taken its place";

/// The most events that replace the text of one of ours. A deletion takes a request for each, and the lane waits for them.
const MOST_EDITS: usize = 24;

/// What belongs to a plan beside the copies. Whatever is taken back is followed by the events that had changed it: they have
/// its words, too. Of a message of which nothing is left (`whole`) all go, those as well whose copy is gone already. Where
/// an edit adds to a great many, the oldest go.
pub(super) fn with_edits(plan: Plan, message: &Message, known: &Copies) -> Plan {
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
            Step::Remove { target, .. } => edits_of(target.clone()).collect(),
            Step::Replace { target, .. } | Step::Revise { target, .. } => {
                let surplus = (edits_of(target.clone()).count() + 1).saturating_sub(MOST_EDITS);
                // What was there before this limit goes little by little.
                edits_of(target.clone()).take(surplus.min(2)).collect()
            }
            _ => Vec::new(),
        };
        steps.iter().flat_map(of).collect()
    };
    let behind: Vec<Step> = behind
        .into_iter()
        .map(|edit| Step::Remove {
            target: edit.clone(),
            replaced: false,
        })
        .collect();
    Plan::Steps(steps.into_iter().chain(behind).collect())
}

/// The plan of a deletion, with what an edit had to leave.
pub(super) fn with_kept(plan: Plan, kept: &[RemoteId]) -> Plan {
    if kept.is_empty() {
        return plan;
    }
    let steps = match plan {
        Plan::Steps(steps) => steps,
        Plan::Skip(_) => Vec::new(),
    };
    let kept = kept.iter().map(|kept| Step::Remove {
        target: kept.clone(),
        replaced: false,
    });
    Plan::Steps(steps.into_iter().chain(kept).collect())
}

impl Lane {
    /// The plan that was written down, unless what it says is no longer what its message says: where that failed in the middle,
    /// and is tried again, a later edit may have gone before it.
    pub(super) async fn kept_plan(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<Option<Plan>, Error> {
        let kept = delivery.plan.as_deref();
        let Some(plan) = kept.and_then(|kept| serde_json::from_slice(kept).ok()) else {
            return Ok(None);
        };
        let (entry, to) = (delivery.entry, &delivery.to);
        let is_over = delivery.again
            && match &message.action {
                Action::Post { .. } => self.store.is_overtaken(entry, to).await?,
                Action::Edit { target, .. } => {
                    let from = &delivery.from;
                    !self.store.is_latest_edit(from, target, to, entry).await?
                }
                _ => false,
            };
        Ok(Some(if is_over {
            Plan::Skip(SUPERSEDED.to_owned())
        } else {
            plan
        }))
    }

    /// What failed and is kept of a message that no longer says it, for this reason, is not tried again. Answers whether that
    /// was so.
    pub(super) async fn take_back_failed(
        &self,
        delivery: &Delivery,
        target: &RemoteId,
        why: &'static str,
    ) -> Result<bool, Error> {
        let (from, to) = (&delivery.from, &delivery.to);
        let was_kept = self.store.take_back(from, target, to, why).await?;
        if was_kept {
            self.tell().await?;
        }
        Ok(was_kept)
    }

    /// The files that a message no longer has are offered no more by the media gateway.
    pub(super) async fn withdraw_files(
        &self,
        message: &Message,
        known: &Copies,
    ) -> Result<(), Error> {
        match (&message.action, known.entry) {
            (Action::Delete { .. }, Some(entry)) => self.store.withdraw(entry).await,
            (Action::Edit { .. }, Some(entry)) => {
                let left: Vec<String> = message.files.iter().map(File::digest).collect();
                let is_gone = move |letter: &[u8]| {
                    let file = serde_json::from_slice::<File>(letter);
                    file.is_ok_and(|file| !left.contains(&file.digest()))
                };
                self.store.withdraw_where(entry, is_gone).await
            }
            _ => Ok(()),
        }
    }

    /// The rule by which this edit of `target` is not sent, if any.
    pub(super) async fn edit_rule(
        &self,
        delivery: &Delivery,
        edit: &Message,
        target: &RemoteId,
        known: &Copies,
    ) -> Result<Option<&'static str>, Error> {
        let latest =
            self.store
                .is_latest_edit(&delivery.from, target, &delivery.to, delivery.entry);
        if !latest.await? {
            return Ok(Some(SUPERSEDED));
        }
        if !known.copies.is_empty() {
            return Ok(None);
        }
        let failed = self.store.parked_about(&delivery.from, target).await?;
        // What failed of others in its thread is about it, too.
        let own = failed
            .into_iter()
            .filter(|failed| Some(failed.entry) == known.entry);
        let included = self.rewrite_failed(delivery, edit, own).await?;
        Ok(included.then_some(INCLUDED))
    }

    /// A step of this is done. If it is an edit, what failed of its message in part, or of an older edit, must not follow. The
    /// redaction of an edit says nothing new: a newer edit that failed stands.
    pub(super) async fn has_overtaken(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<(), Error> {
        if let Action::Edit { target, .. } = &message.action
            && delivery.steps_done == 0
            && Message::from_bytes(&delivery.payload).is_ok_and(|said| said.is_edit())
        {
            self.take_back_failed(delivery, target, OVERTAKEN).await?;
        }
        Ok(())
    }

    /// Writes the new text into the message if that failed and is kept: trying it again sends what its author wants
    /// by then.
    async fn rewrite_failed(
        &self,
        delivery: &Delivery,
        edit: &Message,
        failed: impl Iterator<Item = Parked> + Send,
    ) -> Result<bool, Error> {
        for parked in failed {
            let kept = parked.letter.filter(|_| parked.to == delivery.to);
            let Some(mut message) = kept.and_then(|letter| Message::from_bytes(&letter).ok())
            else {
                continue;
            };
            rewrite(&mut message, edit);
            let is_new = matches!(message.action, Action::Post { .. });
            if let (true, Ok(letter)) = (is_new, message.to_bytes()) {
                let written = self.store.rewrite_failed(parked.id, letter, delivery.entry);
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
        Step::Remove {
            target: RemoteId::from(id),
            replaced: false,
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
    fn what_changed_a_message_is_taken_back_with_it() {
        let mut known = known(&[("$a", "$a1"), ("$b", "$b1"), ("$a", "$a2")]);
        let plan = Plan::Steps(vec![remove("$a"), remove("$c")]);
        let steps = |ids: &[&str]| Plan::Steps(ids.iter().copied().map(remove).collect());
        let edited = with_edits(plan.clone(), &edit(), &known);
        assert_eq!(edited, steps(&["$a", "$c", "$a1", "$a2"]));
        let delete = about(Action::Delete {
            target: RemoteId::from("$1"),
        });
        let deleted = with_edits(plan.clone(), &delete, &known);
        assert_eq!(deleted, steps(&["$a", "$c", "$a1", "$b1", "$a2"]));
        // Somebody else took the copies back.
        let skip = Plan::Skip("unknown-target".to_owned());
        let deleted = with_edits(skip.clone(), &delete, &known);
        assert_eq!(deleted, steps(&["$a1", "$b1", "$a2"]));
        assert_eq!(with_edits(skip.clone(), &edit(), &known), skip);
        // Others' words stand in the message still.
        known.shared = true;
        let deleted = with_edits(plan, &delete, &known);
        assert_eq!(deleted, steps(&["$a", "$c", "$a1", "$a2"]));
        assert_eq!(with_edits(skip.clone(), &delete, &known), skip);
    }

    #[test]
    fn a_message_that_is_edited_again_and_again_keeps_its_newest_edits() {
        let replace = Step::Replace {
            target: RemoteId::from("$a"),
            content: Content {
                text: String::new(),
                html: None,
                style: Style::Text,
                author: None,
                mentions: Vec::new(),
            },
            below_file: false,
            otherwise: None,
        };
        let redacted = |edits: usize| {
            let names: Vec<String> = (0..edits).map(|edit| format!("$a{edit}")).collect();
            let edits: Vec<(&str, &str)> = names.iter().map(|name| ("$a", &name[..])).collect();
            let plan = Plan::Steps(vec![replace.clone()]);
            let Plan::Steps(steps) = with_edits(plan, &edit(), &known(&edits)) else {
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
    fn what_an_edit_had_to_leave_goes_with_the_message() {
        let kept = [RemoteId::from("$k")];
        let plan = with_kept(Plan::Steps(vec![remove("$a")]), &kept);
        assert_eq!(plan, Plan::Steps(["$a", "$k"].map(remove).to_vec()));
        let skip = || Plan::Skip("unknown-target".to_owned());
        assert_eq!(with_kept(skip(), &kept), Plan::Steps(vec![remove("$k")]));
        assert_eq!(with_kept(skip(), &[]), skip());
    }
}
