//! What a lane does while the account on its side is limited: it waits for its turn, and then makes the most of it.
//! Messages that wait behind the head may go along in one, and what was edited or taken back meanwhile is never sent
//! as it was.

use footbridge_store::{
    Bundle, Copies, Delivery, DeliveryId, EDIT_REDACTED, Error, Millis, RemoteId, Rewritten,
    Undelivered,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Attempt, Lane, failure::Trial};
use crate::{
    budget::{Permit, Rank},
    crash,
    message::{Action, Message},
    outlet::{Outgoing, Plan, SendError, Step},
};

/// How far behind the head a lane looks.
const LINE: usize = 64;
/// The rule for an edit whose message was not sent yet: it says the new text at once.
pub(super) const INCLUDED: &str = "edit-included";
/// The rule for a message that was taken back before it was sent, and for its taking back.
pub(super) const DELETED: &str = "deleted-before-delivery";

/// What a look down the line came to.
pub(super) enum Gathered {
    /// The head goes by itself.
    Alone,
    /// Others go along by this plan, which is kept.
    Together(Plan),
    /// The head is settled, or says something else by now: it is looked at anew.
    Settled,
}

/// A message that may go along.
struct Member {
    id: DeliveryId,
    outgoing: Outgoing,
    /// What becomes of the edits that wait behind it.
    changes: Changes,
}

/// What becomes of the edits that wait behind a message.
#[derive(Default)]
pub(super) struct Changes {
    /// These are in its text, oldest first, each with the message as it reads with it.
    pub in_it: Vec<(DeliveryId, Vec<u8>)>,
    /// These were redacted before they got anywhere.
    pub gone: Vec<DeliveryId>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.in_it.is_empty() && self.gone.is_empty()
    }

    /// The edits, each with the rule by which it ends.
    pub fn ended(&self) -> Vec<(DeliveryId, String)> {
        let in_it = self.in_it.iter();
        let in_it = in_it.map(|(edit, _)| (*edit, INCLUDED.to_owned()));
        let gone = self.gone.iter().map(|edit| (*edit, EDIT_REDACTED.to_owned()));
        in_it.chain(gone).collect()
    }

    /// The edit `id` is in the message, which it changes.
    pub fn include(&mut self, id: DeliveryId, message: &mut Message, edit: &Message) {
        rewrite(message, edit);
        // A message is written down again as it was read.
        self.in_it.extend(message.to_bytes().ok().map(|letter| (id, letter)));
    }

    /// What becomes of the message by them.
    pub fn of(&self, message: DeliveryId) -> Rewritten {
        Rewritten {
            message,
            edits: self.in_it.clone(),
        }
    }
}

impl Lane {
    /// Waits for this lane's turn; `None` when told to stop before it came.
    pub(super) async fn turn(&self, message: &Message, stop: &CancellationToken) -> Option<Permit> {
        let rank = match message.action {
            Action::Edit { .. }
            | Action::React { .. }
            | Action::Unreact { .. }
            | Action::Mark { .. } => Rank::Edit,
            Action::Delete { .. } => Rank::Deletion,
            Action::Post { .. }
            | Action::Unsupported { .. }
            | Action::System { .. }
            | Action::Bridge { .. } => Rank::Text,
        };
        tokio::select! {
            biased;
            permit = self.budget.acquire(self.id, rank) => Some(permit),
            () = stop.cancelled() => None,
        }
    }

    /// Looks down the line behind a head that may be gathered.
    pub(super) async fn gather(
        &self,
        head: &Delivery,
        message: &Message,
    ) -> Result<Gathered, Error> {
        let now = self.clock.now();
        let line = self.store.line(self.id, head.id, LINE, now).await?;
        let copies = match message.target() {
            Some(target) => self.store.copies(&head.from, target, &head.to).await?,
            None => Copies::default(),
        };
        let mut members: Vec<Member> = Vec::new();
        let mut open = true;
        for owed in &line {
            let Ok(message) = Message::from_bytes(&owed.payload) else {
                break;
            };
            match &message.action {
                Action::Edit { target, .. } if is_untouched(owed) => {
                    if let Some(at) = self.find(&members, owed, target).await?
                        && let Some(member) = members.get_mut(at)
                    {
                        if self.store.is_edit_taken_back(owed.entry).await? {
                            member.changes.gone.push(owed.id);
                        } else {
                            let Member {
                                outgoing, changes, ..
                            } = member;
                            changes.include(owed.id, &mut outgoing.message, &message);
                        }
                    }
                }
                Action::Delete { target } if is_untouched(owed) => {
                    if let Some(at) = self.find(&members, owed, target).await? {
                        self.drop_both(members.remove(at), owed.id, now).await?;
                        if at == 0 {
                            return Ok(Gathered::Settled);
                        }
                    }
                }
                // They change nothing that is new, and may well come later.
                Action::Edit { .. }
                | Action::Delete { .. }
                | Action::React { .. }
                | Action::Unreact { .. }
                | Action::Mark { .. } => {}
                Action::Post { thread, .. }
                    if open
                        && may_gather(owed, &message)
                        && members.first().is_none_or(|first| {
                            thread_of(&first.outgoing.message) == Some(thread)
                        }) =>
                {
                    members.push(Member {
                        id: owed.id,
                        outgoing: Outgoing {
                            key: owed.key.clone(),
                            to: owed.to.clone(),
                            message,
                            copies: copies.copies.clone(),
                            late: false,
                        },
                        changes: Changes::default(),
                    });
                }
                // New messages never overtake one another.
                _ => open = false,
            }
        }
        if members.first().map(|first| first.id) != Some(head.id) {
            return Ok(Gathered::Alone);
        }
        self.bind(members).await
    }

    /// Keeps what was gathered.
    async fn bind(&self, mut members: Vec<Member>) -> Result<Gathered, Error> {
        let outgoing: Vec<Outgoing> = members
            .iter()
            .map(|member| member.outgoing.clone())
            .collect();
        let bundle = self.outlet.bundle(&outgoing).filter(|_| self.coalesce);
        let Some((step, count)) = bundle else {
            let Member { id, changes, .. } = members.swap_remove(0);
            if changes.is_empty() {
                return Ok(Gathered::Alone);
            }
            self.store.include(changes.of(id), changes.ended()).await?;
            return Ok(Gathered::Settled);
        };
        members.truncate(count);
        let plan = Plan::Steps(vec![step]);
        let changed = members.iter().filter(|member| !member.changes.is_empty());
        let rewritten = changed.clone().map(|member| member.changes.of(member.id));
        let bundle = Bundle {
            plan: serde_json::to_vec(&plan).unwrap_or_default(),
            members: members.iter().map(|member| member.id).collect(),
            rewritten: rewritten.collect(),
            included: changed.flat_map(|member| member.changes.ended()).collect(),
        };
        if !self.store.bind(bundle).await? {
            return Ok(Gathered::Settled);
        }
        crash::point("group.kept");
        debug!(messages = count, "Messages go together");
        Ok(Gathered::Together(plan))
    }

    /// Which member an edit or deletion is about.
    async fn find(
        &self,
        members: &[Member],
        owed: &Delivery,
        target: &RemoteId,
    ) -> Result<Option<usize>, Error> {
        let known = self.store.copies(&owed.from, target, &owed.to).await?;
        let is_at_home = known.home.as_ref() == Some(&owed.from);
        Ok(known
            .owed
            .filter(|_| is_at_home)
            .and_then(|owed| members.iter().position(|member| member.id == owed)))
    }

    /// A message that was not sent yet was taken back: neither will be seen.
    async fn drop_both(
        &self,
        member: Member,
        deletion: DeliveryId,
        now: Millis,
    ) -> Result<(), Error> {
        let gone = [(member.id, DELETED)].into_iter();
        let gone = gone.map(|(id, rule)| (id, rule.to_owned()));
        let edits = member.changes.ended().into_iter();
        for (id, rule) in gone.chain(edits).chain([(deletion, DELETED.to_owned())]) {
            let how = Undelivered::Skipped(rule);
            self.store.undelivered(id, how, now).await?;
        }
        self.bells.step_settled();
        Ok(())
    }

    /// An edit of a message whose key is still missing: the message is told as it reads now, without the key.
    pub(super) async fn fill_by_edit(
        &self,
        delivery: &Delivery,
        edit: &Message,
        target: &Copies,
    ) -> Result<Result<Plan, SendError>, Error> {
        if let (
            Action::Edit {
                target,
                body,
                style,
            },
            Some(entry),
        ) = (&edit.action, target.entry)
        {
            let original = self.store.linked(&delivery.from, target).await?;
            let message = Message {
                action: Action::Post {
                    body: body.clone(),
                    style: *style,
                    reply_to: None,
                    thread: original.and_then(|original| original.copy.thread),
                },
                ..edit.clone()
            };
            let Ok(letter) = message.to_bytes() else {
                return Ok(Ok(Plan::Skip("target-waiting".to_owned())));
            };
            let now = self.clock.now();
            let filled = self.store.fill_by_edit(entry, letter, delivery.entry, now);
            for lane in filled.await? {
                self.bells.ring(lane);
            }
        }
        Ok(Ok(Plan::Skip(INCLUDED.to_owned())))
    }

    /// A step did not happen, or nobody knows. Messages that were refused together are tried one by one, but not
    /// where an earlier try was not answered: it may have put all of them there.
    pub(super) async fn not_done(
        &self,
        delivery: &Delivery,
        error: SendError,
        permit: Permit,
        trial: &Trial<'_>,
    ) -> Result<Attempt, Error> {
        match (trial.step.map(|(_, step)| step), error) {
            (_, SendError::Limited { after }) => {
                permit.refused(after);
                if !self.outlet.dedupes() {
                    self.store.held_back(delivery.id).await?;
                    self.bells.step_settled();
                }
                Ok(Attempt::Settled)
            }
            (
                Some(Step::Bundle { .. }),
                SendError::Refused { reason } | SendError::Rejected { reason },
            ) if delivery.unanswered_since.is_none() => {
                permit.spent();
                warn!(
                    delivery.id = delivery.id.0,
                    reason, "Refused together; each is tried by itself"
                );
                self.store.unbind(delivery.id).await?;
                Ok(Attempt::Settled)
            }
            (_, error) => {
                permit.spent();
                self.put_off(delivery, error, trial).await
            }
        }
    }
}

/// How many messages a step carries.
pub(super) fn carried(step: &Step) -> usize {
    match step {
        Step::Bundle { parts, .. } => parts.len(),
        _ => 1,
    }
}

/// Whether a delivery is a new message that certainly was never tried, so that it may still be sent otherwise.
pub(super) fn may_gather(delivery: &Delivery, message: &Message) -> bool {
    matches!(message.action, Action::Post { .. }) && is_untouched(delivery) && !delivery.late
}

/// What a process that ended may have had in hand counts as unanswered when the lane starts.
pub(super) fn is_untouched(delivery: &Delivery) -> bool {
    delivery.plan.is_none()
        && delivery.steps_done == 0
        && delivery.attempts == 0
        && delivery.unsure_since.is_none()
        && delivery.unanswered_since.is_none()
}

fn thread_of(message: &Message) -> Option<&Option<RemoteId>> {
    match &message.action {
        Action::Post { thread, .. } => Some(thread),
        _ => None,
    }
}

/// Makes a new message say what its edit says, and carry what that carries.
pub(super) fn rewrite(message: &mut Message, edit: &Message) {
    if let (
        Action::Post { body, style, .. },
        Action::Edit {
            body: new,
            style: spoken,
            ..
        },
    ) = (&mut message.action, &edit.action)
    {
        body.clone_from(new);
        *style = *spoken;
        message.files.clone_from(&edit.files);
    }
}
