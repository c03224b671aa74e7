//! Edits that do not go out as they are: a later one was there before them, or the message they change failed and is
//! kept to be tried again.

use footbridge_store::{Copies, Delivery, Error, RemoteId};

use super::{
    Lane,
    batch::{INCLUDED, rewrite},
};
use crate::{
    message::{Action, Message},
    outlet::{Plan, Step},
};

/// The rule for an edit that comes after a later one.
const SUPERSEDED: &str = "superseded";

/// The plan, in which whatever is taken back is followed by the events that had changed it: they have its words, too.
pub(super) fn with_edits(plan: Plan, edits: &[(RemoteId, RemoteId)]) -> Plan {
    let Plan::Steps(steps) = plan else {
        return plan;
    };
    let removed = |step: &Step| match step {
        Step::Remove { target, .. } => Some(target.clone()),
        _ => None,
    };
    let behind = |removed: RemoteId| {
        let edits = edits.iter().filter(move |(of, _)| *of == removed);
        edits.map(|(_, edit)| Step::Remove {
            target: edit.clone(),
            replaced: false,
        })
    };
    let behind: Vec<Step> = steps.iter().filter_map(removed).flat_map(behind).collect();
    Plan::Steps(steps.into_iter().chain(behind).collect())
}

impl Lane {
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
        let included =
            known.copies.is_empty() && self.rewrite_failed(delivery, edit, target).await?;
        Ok(included.then_some(INCLUDED))
    }

    /// Writes the new text into the message if that failed and is kept: trying it again sends what its author wants
    /// by then.
    async fn rewrite_failed(
        &self,
        delivery: &Delivery,
        edit: &Message,
        target: &RemoteId,
    ) -> Result<bool, Error> {
        for parked in self.store.parked_about(&delivery.from, target).await? {
            let kept = parked.letter.filter(|_| parked.to == delivery.to);
            let Some(mut message) = kept.and_then(|letter| Message::from_bytes(&letter).ok())
            else {
                continue;
            };
            rewrite(&mut message, edit);
            let is_new = matches!(message.action, Action::Post { .. });
            if let (true, Ok(letter)) = (is_new, message.to_bytes()) {
                return self.store.rewrite_failed(parked.id, letter).await;
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_a_message_is_taken_back_with_it() {
        let remove = |id: &str| Step::Remove {
            target: RemoteId::from(id),
            replaced: false,
        };
        let edits = [("$a", "$a1"), ("$b", "$b1"), ("$a", "$a2")]
            .map(|(of, edit)| (RemoteId::from(of), RemoteId::from(edit)));
        let plan = with_edits(Plan::Steps(vec![remove("$a"), remove("$c")]), &edits);
        let all = ["$a", "$c", "$a1", "$a2"].map(remove);
        assert_eq!(plan, Plan::Steps(all.to_vec()));
    }
}
