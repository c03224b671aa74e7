//! Reactions in a lane: the store records who reacted with what, and the plan follows from all of it.

use footbridge_store::{Copies, Delivery, EntryId, Error, Place, ReactionChange, SkipRule};

use super::{EncryptedPolicy, Lane};
use crate::{
    message::{Action, Message},
    outlet::{Outgoing, Plan, Step},
    plan::ChangedReaction,
    reactions::{ReactionState, StoredReaction},
};

impl Lane {
    /// The plan for a reaction or its removal; `None` for any other action. Records it first.
    pub(super) async fn plan_reaction(
        &self,
        delivery: &Delivery,
        message: &Message,
        known: &Copies,
    ) -> Result<Option<Plan>, Error> {
        let skip = |rule| Ok(Some(Plan::Skip(rule)));
        let (entry, key) = match &message.action {
            Action::React { key, .. } => {
                if let Some(rule) = self.reaction_skip_rule(delivery).await? {
                    return skip(rule);
                }
                let Some(entry) = known.entry.filter(|_| !known.copies.is_empty()) else {
                    return skip(SkipRule::UnknownTarget);
                };
                let change = ReactionChange {
                    owner: self.sender.account,
                    ..reaction_change(entry, &delivery.to, message, key)
                };
                if !self.store.add_reaction(delivery.entry, change).await? {
                    return skip(SkipRule::ReactionDuplicate);
                }
                (entry, key.clone())
            }
            Action::Unreact { key, .. } => {
                let Some(entry) = known.entry else {
                    return skip(SkipRule::UnknownTarget);
                };
                let change = reaction_change(entry, &delivery.to, message, key);
                if !self.store.remove_reaction(delivery.entry, change).await? {
                    return skip(SkipRule::UnknownTarget);
                }
                (entry, key.clone())
            }
            // A reaction that is a message of its own was deleted.
            Action::Delete { .. } => {
                let Some(reaction) = known.entry else {
                    return Ok(None);
                };
                let ended =
                    self.store
                        .remove_reaction_entry(delivery.entry, reaction, &delivery.to);
                let Some((entry, payload)) = ended.await? else {
                    return Ok(None);
                };
                match serde_json::from_slice::<StoredReaction>(&payload) {
                    Ok(payload) => (entry, payload.key),
                    Err(_) => return skip(SkipRule::UnknownTarget),
                }
            }
            _ => return Ok(None),
        };
        let copies = self.store.copies_of(entry, &delivery.to).await?;
        if copies.is_empty() {
            return skip(SkipRule::UnknownTarget);
        }
        let stored = self.store.reactions(entry, &delivery.to).await?;
        // Each account shows the reactions that are its own to show.
        let stored = stored
            .into_iter()
            .filter(|reaction| reaction.owner == self.sender.account);
        let mut reacted: Vec<ReactionState> = stored.filter_map(ReactionState::of).collect();
        self.mark_opted_out(&delivery.from, &mut reacted).await?;
        let outgoing = Outgoing {
            key: delivery.key.clone(),
            to: delivery.to.clone(),
            message: message.clone(),
            permalink: None,
            copies,
            late: delivery.late,
        };
        let unencrypted =
            self.effective_policy(delivery, |filters| filters.reactions) == EncryptedPolicy::Always;
        let (key, now) = (key.as_str(), self.clock.now());
        let change = ChangedReaction { key, unencrypted };
        let plan = self.outlet.plan_reactions(&outgoing, &reacted, change, now);
        Ok(Some(plan))
    }

    /// Leaves out the reactions of persons who have since opted out.
    async fn mark_opted_out(
        &self,
        from: &Place,
        reacted: &mut [ReactionState],
    ) -> Result<(), Error> {
        let people = reacted
            .iter()
            .map(|one| (from.clone(), one.stored.user.clone()));
        let opted_out = self.store.opted_out(people.collect()).await?;
        for (one, is_out) in reacted.iter_mut().zip(opted_out) {
            one.gone |= is_out;
        }
        Ok(())
    }

    /// The rule by which the portals that this delivery passes relay no reactions.
    async fn reaction_skip_rule(&self, delivery: &Delivery) -> Result<Option<SkipRule>, Error> {
        Ok(
            match self.effective_policy(delivery, |filters| filters.reactions) {
                EncryptedPolicy::Never => Some(SkipRule::ReactionUnwanted),
                choice => (!self.is_allowed_by(choice, delivery).await?)
                    .then_some(SkipRule::ReactionInEncryptedRoom),
            },
        )
    }

    /// Adds to a deletion the removal of the summary line that lists the reactions to the deleted message.
    pub(super) async fn with_summary_removal(
        &self,
        delivery: &Delivery,
        known: &Copies,
        plan: Plan,
    ) -> Result<Plan, Error> {
        let (Plan::Steps(steps), Some(entry)) = (plan.clone(), known.entry) else {
            return Ok(plan);
        };
        let stored = self.store.reactions(entry, &delivery.to).await?;
        let lines = stored.into_iter().filter(|reaction| reaction.in_summary);
        let lines = lines
            .filter_map(|reaction| reaction.shown)
            .map(|shown| Step::Delete {
                target: shown.remote,
                by_edit: false,
            });
        // The summary line goes first: it is in the thread of the message, where it would count as a reply.
        Ok(Plan::Steps(lines.chain(steps).collect()))
    }
}

/// Who reacts with what, as the store knows it.
pub(super) fn reactor_of(message: &Message, key: &str) -> String {
    format!("{}\n{key}", message.sender.id)
}

fn reaction_change(target: EntryId, to: &Place, message: &Message, key: &str) -> ReactionChange {
    let payload = StoredReaction {
        key: key.to_owned(),
        name: message.sender.name.clone(),
        user: message.sender.id.clone(),
    };
    ReactionChange {
        target,
        to: to.clone(),
        reactor: reactor_of(message, key),
        payload: serde_json::to_vec(&payload).unwrap_or_default(),
        owner: None,
    }
}
