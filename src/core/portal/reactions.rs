//! Reactions in a lane: who is of which mind is noted in the store, and what is shown follows from all of it.

use footbridge_store::{Copies, Delivery, EntryId, Error, Place, Reacting};

use super::{Choice, Lane};
use crate::{
    message::{Action, Message},
    outlet::{Outgoing, Plan, Step},
    reactions::{Letter, Reacted},
};

/// The rule for a reaction across the border of a room that is or was encrypted. Matrix never encrypts them: what comes from
/// there is nobody's for certain, and what goes there can be read by its homeservers.
const IN_CLEAR: &str = "reaction-in-encrypted-room";
/// The rule where the portal wants none.
const UNWANTED: &str = "reaction-unwanted";
/// The rule for the same reaction again.
const DOUBLED: &str = "reaction-doubled";
/// The rule for what is about nothing that is there.
const UNKNOWN: &str = "unknown-target";

impl Lane {
    /// The plan of a reaction or of its end; `None` where this is none. Notes it first.
    pub(super) async fn reacting(
        &self,
        delivery: &Delivery,
        message: &Message,
        known: &Copies,
    ) -> Result<Option<Plan>, Error> {
        let skip = |rule: &str| Ok(Some(Plan::Skip(rule.to_owned())));
        let (entry, key) = match &message.action {
            Action::React { key, .. } => {
                if let Some(rule) = self.against(delivery).await? {
                    return skip(rule);
                }
                let Some(entry) = known.entry.filter(|_| !known.copies.is_empty()) else {
                    return skip(UNKNOWN);
                };
                let reacting = reacting(entry, &delivery.to, message, key);
                if !self.store.react(delivery.entry, reacting).await? {
                    return skip(DOUBLED);
                }
                (entry, key.clone())
            }
            Action::Unreact { key, .. } => {
                let Some(entry) = known.entry else {
                    return skip(UNKNOWN);
                };
                let reacting = reacting(entry, &delivery.to, message, key);
                if !self.store.unreact(delivery.entry, reacting).await? {
                    return skip(UNKNOWN);
                }
                (entry, key.clone())
            }
            // A reaction that is a message of its own was taken back.
            Action::Delete { .. } => {
                let Some(reaction) = known.entry else {
                    return Ok(None);
                };
                let ended = self
                    .store
                    .unreact_entry(delivery.entry, reaction, &delivery.to);
                let Some((entry, letter)) = ended.await? else {
                    return Ok(None);
                };
                match serde_json::from_slice::<Letter>(&letter) {
                    Ok(letter) => (entry, letter.key),
                    Err(_) => return skip(UNKNOWN),
                }
            }
            _ => return Ok(None),
        };
        let copies = self.store.copies_of(entry, &delivery.to).await?;
        if copies.is_empty() {
            return skip(UNKNOWN);
        }
        let kept = self.store.reactions(entry, &delivery.to).await?;
        let mut reacted: Vec<Reacted> = kept.into_iter().filter_map(Reacted::of).collect();
        self.leave_out(&delivery.from, &mut reacted).await?;
        let outgoing = Outgoing {
            key: delivery.key.clone(),
            to: delivery.to.clone(),
            message: message.clone(),
            copies,
            late: delivery.late,
        };
        let openly = self.chosen(delivery, |tastes| tastes.reactions) == Choice::Always;
        let now = self.clock.now();
        let plan = self
            .outlet
            .show_reactions(&outgoing, &reacted, &key, openly, now);
        Ok(Some(plan))
    }

    /// Leaves out the reactions of people who have since opted out.
    async fn leave_out(&self, from: &Place, reacted: &mut [Reacted]) -> Result<(), Error> {
        let people = reacted
            .iter()
            .map(|one| (from.clone(), one.letter.user.clone()));
        let opted_out = self.store.opted_out(people.collect()).await?;
        for (one, is_out) in reacted.iter_mut().zip(opted_out) {
            one.gone |= is_out;
        }
        Ok(())
    }

    /// The rule by which the portals that this passes have no reactions.
    async fn against(&self, delivery: &Delivery) -> Result<Option<&'static str>, Error> {
        Ok(match self.chosen(delivery, |tastes| tastes.reactions) {
            Choice::Never => Some(UNWANTED),
            choice => (!self.allows(choice, delivery).await?).then_some(IN_CLEAR),
        })
    }

    /// What a deletion takes besides: a line that tells of reactions to what is deleted.
    pub(super) async fn and_its_line(
        &self,
        delivery: &Delivery,
        known: &Copies,
        plan: Plan,
    ) -> Result<Plan, Error> {
        let (Plan::Steps(steps), Some(entry)) = (plan.clone(), known.entry) else {
            return Ok(plan);
        };
        let kept = self.store.reactions(entry, &delivery.to).await?;
        let lines = kept.into_iter().filter(|reaction| reaction.line);
        let lines = lines
            .filter_map(|reaction| reaction.shown)
            .map(|shown| Step::Remove {
                target: shown.remote,
                replaced: false,
            });
        // The line first: it stands in the thread of the message, where it would count as an answer.
        Ok(Plan::Steps(lines.chain(steps).collect()))
    }
}

fn reacting(target: EntryId, to: &Place, message: &Message, key: &str) -> Reacting {
    let letter = Letter {
        key: key.to_owned(),
        name: message.sender.name.clone(),
        user: message.sender.id.clone(),
    };
    Reacting {
        target,
        to: to.clone(),
        who: format!("{}\n{key}", message.sender.id),
        letter: serde_json::to_vec(&letter).unwrap_or_default(),
    }
}
