//! Deletes what contains the text of a redacted edit, where the restored text does not take its place, and prepares deletions.

use footbridge_store::{Copies, Copy, Delivery, Error, RemoteId, SkipRule, TextCarrier};

use super::{Lane, edits::DELETED_BY_AUTHOR};
use crate::{
    file::File,
    message::{Action, Message, ReplyTarget},
    outlet::{Outgoing, Plan, SendError, Step},
    text::{Block, Inline},
};

impl Lane {
    /// What a deletion does before it is planned: it ends what is kept of the message for a retry. Returns the copies that it then
    /// has to delete, or the plan where there is nothing to delete.
    pub(super) async fn prepare_deletion(
        &self,
        delivery: &Delivery,
        message: &Message,
        target: &RemoteId,
        mut known: Copies,
    ) -> Result<Result<Copies, Result<Plan, SendError>>, Error> {
        match self.link_failed(delivery, target, &known).await? {
            Ok(true) => known = self.target_copies(delivery, message).await?,
            Ok(false) => {}
            Err(error) => return Ok(Err(Err(error))),
        }
        self.revoke_media_links(message, &known).await?;
        if known.entry.is_none() {
            let now = self.clock.now();
            self.store
                .note_deleted_before_arrival(&delivery.from, target, delivery.entry, now)
                .await?;
        }
        if self
            .cancel_failed(delivery, target, DELETED_BY_AUTHOR)
            .await?
            && known.copies.is_empty()
            && known.edits.is_empty()
            && known.leftovers.is_empty()
        {
            return Ok(Err(Ok(Plan::Skip(SkipRule::DeletedBeforeDelivery))));
        }
        Ok(Ok(known))
    }

    /// Whether a step of the plan is not needed: an earlier step gave its message another text instead.
    pub(super) async fn is_done_otherwise(
        &self,
        delivery: &Delivery,
        steps: &[Step],
        index: usize,
    ) -> Result<bool, Error> {
        let Some((Step::Delete { target, .. }, before)) = steps
            .get(index)
            .and_then(|step| Some((step, steps.get(..index)?)))
        else {
            return Ok(false);
        };
        let is_edited = before.iter().any(|step| edited(step) == Some(target));
        Ok(is_edited
            && !self
                .store
                .contains_redacted_text(&delivery.to, target)
                .await?)
    }

    /// Takes from the copies of a message those that must be deleted, because they contain a redacted text and an edit cannot
    /// remove it: where edits are events of their own, all of them, elsewhere those that the plan does not change.
    pub(super) fn leave_out(&self, outgoing: &mut Outgoing, carriers: &[TextCarrier]) {
        if carriers.is_empty() {
            return;
        }
        let outlet = &self.outlet;
        let kept: Vec<RemoteId> = if outlet.capabilities().keeps_earlier_texts() {
            Vec::new()
        } else {
            match outlet.plan(outgoing, self.clock.now()) {
                Plan::Steps(steps) => steps.iter().filter_map(changed).cloned().collect(),
                Plan::Skip(_) => return,
            }
        };
        let files = digests(&outgoing.message);
        let dead = |copy: &Copy, is_first: bool| {
            carriers.iter().any(|carrier| carrier.remote == copy.remote)
                && !kept.contains(&copy.remote)
                && !only_carries(copy, is_first, &files)
        };
        let mut is_first = true;
        outgoing
            .copies
            .retain(|copy| !dead(copy, std::mem::take(&mut is_first)));
    }
}

/// Whether a copy has one of these files and no words: only the first copy of a message has a caption.
fn only_carries(copy: &Copy, is_first: bool, files: &[String]) -> bool {
    let file = copy.file.as_ref().filter(|_| !is_first);
    file.is_some_and(|file| files.contains(file))
}

fn digests(message: &Message) -> Vec<String> {
    message.files.iter().map(File::digest).collect()
}

/// An edit as a new message, for a message whose copies must all be deleted.
pub(super) fn as_new(mut outgoing: Outgoing, first: Option<&Copy>) -> Outgoing {
    let thread = first.and_then(|copy| copy.thread.clone());
    let Action::Edit { body, style, .. } = &outgoing.message.action else {
        return outgoing;
    };
    outgoing.message.action = if outgoing.message.sender.is_bridge() {
        Action::Bridge {
            text: body.to_plain(),
            about: thread.map(|thread| ReplyTarget {
                message: thread.clone(),
                thread: Some(thread),
            }),
        }
    } else {
        Action::Post {
            body: body.clone(),
            style: *style,
            reply_to: None,
            thread,
        }
    };
    outgoing.copies = first.cloned().into_iter().collect();
    outgoing
}

/// An edit of a message that only an account could change which is gone: its new text, as a reply to the old one.
pub(super) fn edited_anew(outgoing: Outgoing, first: Option<&Copy>) -> Outgoing {
    let mut anew = as_new(outgoing, first);
    if let Action::Post { body, reply_to, .. } = &mut anew.message.action {
        let mark = Inline::Text(" (edited)".to_owned());
        match body.0.last_mut() {
            Some(Block::Paragraph(line)) => line.push(mark),
            _ => body.0.push(Block::Paragraph(vec![mark])),
        }
        *reply_to = first.map(|copy| copy.remote.clone());
    }
    anew
}

/// Adds to the plan of a restored text the deletion of what contains the redacted text. What the plan changes is deleted only if
/// that was not possible (see [`Lane::is_done_otherwise`]), and a file that the restored message still has stays.
pub(super) fn with_removals(
    plan: Plan,
    carriers: &[TextCarrier],
    copies: &[Copy],
    restored: &Message,
) -> Plan {
    let Plan::Steps(mut steps) = plan else {
        return plan;
    };
    let files = digests(restored);
    let stays = |remote: &RemoteId| {
        let mut copies = copies.iter().enumerate();
        copies.any(|(at, copy)| copy.remote == *remote && only_carries(copy, at == 0, &files))
    };
    let is_settled = |remote: &RemoteId| {
        steps.iter().any(|step| match step {
            Step::Edit { fallback: None, .. } | Step::EditPart { .. } | Step::Delete { .. } => {
                changed(step) == Some(remote)
            }
            _ => false,
        })
    };
    let left = carriers.iter().map(|carrier| &carrier.remote);
    let left = left.filter(|remote| !is_settled(remote) && !stays(remote));
    let removals: Vec<Step> = left.map(removal).collect();
    steps.extend(removals);
    Plan::Steps(steps)
}

/// The deletions of what contains a redacted text.
pub(super) fn removals(carriers: &[TextCarrier]) -> Vec<Step> {
    let carriers = carriers.iter();
    carriers.map(|carrier| removal(&carrier.remote)).collect()
}

fn removal(remote: &RemoteId) -> Step {
    Step::Delete {
        target: remote.clone(),
        by_edit: true,
    }
}

/// The message whose text a step changes.
fn edited(step: &Step) -> Option<&RemoteId> {
    match step {
        Step::Edit { target, .. } | Step::EditPart { target, .. } => Some(target),
        _ => None,
    }
}

/// The message that a step changes or deletes.
fn changed(step: &Step) -> Option<&RemoteId> {
    match step {
        Step::Delete { target, .. } => Some(target),
        step => edited(step),
    }
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

#[cfg(test)]
mod tests {
    use footbridge_store::Millis;

    use super::*;
    use crate::{message::Style, outlet::Content, text::Body};

    fn copy(id: &str, file: &str) -> Copy {
        Copy {
            remote: RemoteId::from(id),
            thread: None,
            sent_at: Millis(1),
            file: Some(file.to_owned()),
        }
    }

    fn carriers(ids: &[&str]) -> Vec<TextCarrier> {
        let carrier = |id: &&str| TextCarrier {
            remote: RemoteId::from(*id),
            is_replacement: false,
            is_replaced: false,
            has_file: false,
        };
        ids.iter().map(carrier).collect()
    }

    fn file() -> File {
        File {
            source: "mxc://x/cat".to_owned(),
            ..File::default()
        }
    }

    fn restored(files: Vec<File>) -> Message {
        Message {
            action: Action::Edit {
                target: RemoteId::from("$m"),
                body: Body::plain("first"),
                style: Style::Text,
            },
            files,
            ..Message::notice("", Millis(0))
        }
    }

    fn edit(target: &str, fallback: bool) -> Step {
        let content = Content {
            text: String::new(),
            html: None,
            style: Style::Text,
            author: None,
            mentions: Vec::new(),
        };
        let (thread, reply_to) = (None, None);
        let said = Step::Post {
            content: content.clone(),
            thread,
            reply_to,
        };
        Step::Edit {
            target: RemoteId::from(target),
            content,
            is_caption: false,
            fallback: fallback.then(|| Box::new(said)),
        }
    }

    #[test]
    fn a_file_that_the_restored_text_has_stays() {
        let digest = file().digest();
        let copies = [copy("a", ""), copy("b", &digest), copy("c", "other")];
        let carried = carriers(&["b", "c"]);
        let plan = |files| {
            let plan = Plan::Steps(vec![edit("a", false)]);
            let Plan::Steps(steps) = with_removals(plan, &carried, &copies, &restored(files))
            else {
                panic!("steps");
            };
            steps[1..].to_vec()
        };
        assert_eq!(plan(vec![file()]), [removal(&RemoteId::from("c"))]);
        assert_eq!(plan(Vec::new()), ["b", "c"].map(|id| removal(&id.into())));
        // The first copy may have a caption.
        let first = with_removals(
            Plan::Steps(Vec::new()),
            &carriers(&["b"]),
            &copies[1..],
            &restored(vec![file()]),
        );
        assert_eq!(first, Plan::Steps(vec![removal(&RemoteId::from("b"))]));
    }

    #[test]
    fn what_the_plan_may_fail_to_change_is_deleted_after_it() {
        let steps = |fallback| {
            let plan = Plan::Steps(vec![edit("a", fallback)]);
            match with_removals(plan, &carriers(&["a"]), &[], &restored(Vec::new())) {
                Plan::Steps(steps) => steps.len(),
                Plan::Skip(_) => 0,
            }
        };
        assert_eq!((steps(false), steps(true)), (1, 2));
    }
}
