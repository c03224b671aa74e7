//! Which account sends a delivery. A new message is sent by the personal account of its author, if there is one, and otherwise by
//! the relay; a message is changed by the account that sent it. The choice is saved before the first attempt and stays while the
//! outcome of an attempt is unknown: two accounts must not send the same. Where the chosen account is gone, the relay looks for
//! what it has sent, and then speaks itself.

use std::sync::Arc;

use footbridge_store::{AccountId, ChosenSender, Copies, Delivery, Error, Place};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    Attempt, Lane,
    coalesce::was_never_tried,
    failed_sends::{a_post, an_edit},
    personal_accounts::{Author, PersonalAccount, PersonalAccounts, StandIn},
    reactions::reactor_of,
    reconcile::{may_have_begun, step_key},
};
use crate::{
    message::{Action, Message},
    outlet::{Done, Outcome, Outlet, Plan, SendError, Step},
};

/// With which account a lane sends.
#[derive(Clone, Default)]
pub struct LaneSender {
    /// The personal accounts of the side.
    accounts: PersonalAccounts,
    /// The personal account with which this lane sends; `None`: the relay.
    pub(super) account: Option<AccountId>,
    /// The lane as it sends with the relay account, where it sends with another.
    relay: Option<Arc<Lane>>,
}

impl LaneSender {
    /// The relay account, and where they speak these personal accounts.
    #[must_use]
    pub fn relay_and(accounts: PersonalAccounts) -> Self {
        Self {
            accounts,
            account: None,
            relay: None,
        }
    }
}

/// Which account sends a delivery.
enum Sender {
    Relay,
    Personal(PersonalAccount),
    /// This one was chosen, and cannot send now.
    Gone(AccountId),
}

/// Which account performs a step.
pub(super) enum Performer {
    /// The one that sends the delivery.
    Same,
    /// The one to which the changed message belongs.
    Owner(Box<Lane>),
    /// The changed message belongs to an account that cannot send now.
    Gone,
}

impl Lane {
    /// One attempt at one delivery, by the account that is to send it.
    pub(super) async fn deliver_by_sender(
        &self,
        mut delivery: Delivery,
        stop: &CancellationToken,
    ) -> Result<Attempt, Error> {
        match self.sender_of(&delivery).await? {
            Sender::Relay => self.deliver(delivery, stop).await,
            Sender::Personal(speaker) => {
                let account = speaker.account;
                if delivery.sender.account() != Some(account) {
                    self.store.set_sender(delivery.id, Some(account)).await?;
                    delivery.sender = ChosenSender::Personal(account);
                }
                let attempt = self.speaking_as(speaker).deliver(delivery, stop).await?;
                // The account is gone; the lane is not.
                Ok(match attempt {
                    Attempt::SignedOut => Attempt::Settled,
                    attempt => attempt,
                })
            }
            Sender::Gone(account) => self.take_over(&delivery, account, stop).await,
        }
    }

    async fn sender_of(&self, delivery: &Delivery) -> Result<Sender, Error> {
        let accounts = &self.sender.accounts;
        let personal = |account| accounts.get(account, &delivery.to);
        if let Some(account) = delivery.sender.account() {
            return Ok(match personal(account) {
                Some(speaker) => Sender::Personal(speaker),
                None => Sender::Gone(account),
            });
        }
        if delivery.sender == ChosenSender::Relay || !may_be_untried(delivery) {
            return Ok(Sender::Relay);
        }
        let Ok(message) = Message::from_bytes(&delivery.payload) else {
            return Ok(Sender::Relay);
        };
        // Whose message or copy it is, and the account if it can send now.
        let (concerned, speaker) = match &message.action {
            Action::Post { .. } | Action::Unsupported { .. } | Action::React { .. } => {
                let speaker = accounts.of_author(&author_of(delivery, &message));
                // Earlier ones that may have been tried were tried by the relay, which left no record.
                let speaker = speaker.filter(|speaker| {
                    was_never_tried(delivery) || delivery.accepted_at > speaker.since
                });
                let speaker = speaker.map(|speaker| speaker.account);
                let running = speaker.and_then(|account| accounts.speaker(account, &delivery.to));
                (speaker.is_some(), running)
            }
            Action::Edit { target, .. }
            | Action::Delete { target }
            | Action::Unreact { target, .. } => {
                let known = self.store.copies(&delivery.from, target, &delivery.to);
                let owner = self.owner(delivery, &message, &known.await?).await?;
                (owner.is_some(), owner.and_then(personal))
            }
            Action::System { .. } | Action::Bridge { .. } | Action::Marker { .. } => (false, None),
        };
        if concerned && speaker.is_none() {
            self.store.choose_relay(delivery.id).await?;
        }
        Ok(speaker.map_or(Sender::Relay, Sender::Personal))
    }

    /// The account to which the copies, or the shown reaction, belong that a message changes.
    async fn owner(
        &self,
        delivery: &Delivery,
        message: &Message,
        known: &Copies,
    ) -> Result<Option<AccountId>, Error> {
        let to = &delivery.to;
        match (known.copies.first(), known.entry, &message.action) {
            (_, Some(target), Action::Unreact { key, .. }) => {
                let reactor = reactor_of(message, key);
                self.store
                    .owner_of_reaction(target, to, Some(&reactor))
                    .await
            }
            (None, Some(reaction), Action::Delete { .. }) => {
                self.store.owner_of_reaction(reaction, to, None).await
            }
            (Some(copy), ..) => self.store.owner_of(to, &copy.remote).await,
            _ => Ok(None),
        }
    }

    /// Whether copies belong to an account that cannot change them now.
    pub(super) async fn has_absent_owner(&self, to: &Place, known: &Copies) -> Result<bool, Error> {
        for copy in &known.copies {
            let owner = self.store.owner_of(to, &copy.remote).await?;
            if owner.is_some_and(|owner| self.sender.accounts.get(owner, to).is_none()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The account that performs a step: the one to which the message belongs that the step changes.
    pub(super) async fn performer(&self, to: &Place, step: &Step) -> Result<Performer, Error> {
        let (Step::Edit { target, .. }
        | Step::EditPart { target, .. }
        | Step::Delete { target, .. }) = step
        else {
            return Ok(Performer::Same);
        };
        let owner = self.store.owner_of(to, target).await?;
        if owner == self.sender.account {
            return Ok(Performer::Same);
        }
        Ok(match owner {
            None => Performer::Owner(Box::new(self.as_relay())),
            Some(owner) => match self.sender.accounts.get(owner, to) {
                Some(speaker) => Performer::Owner(Box::new(self.as_relay().speaking_as(speaker))),
                None => Performer::Gone,
            },
        })
    }

    /// The lane as it sends with the relay account.
    fn as_relay(&self) -> Self {
        match &self.sender.relay {
            Some(relay) => Self::clone(relay),
            None => self.clone(),
        }
    }

    /// The relay's way out.
    pub(super) fn relay_outlet(&self) -> &dyn Outlet {
        match &self.sender.relay {
            Some(relay) => &*relay.outlet,
            None => &*self.outlet,
        }
    }

    /// The same lane, as it sends with a personal account.
    fn speaking_as(&self, speaker: PersonalAccount) -> Self {
        let relay = self.as_relay();
        Self {
            outlet: speaker.outlet,
            budget: speaker.budget,
            health: speaker.health,
            sender: LaneSender {
                accounts: self.sender.accounts.clone(),
                account: Some(speaker.account),
                relay: Some(Arc::new(relay.clone())),
            },
            ..relay
        }
    }

    /// Whether a message behind the head is to be sent by another account than the relay.
    pub(super) fn has_own_sender(&self, delivery: &Delivery, message: &Message) -> bool {
        let author = author_of(delivery, message);
        delivery.sender.account().is_some() || self.sender.accounts.has_speaker(&author)
    }

    /// A personal account could not send: the relay does, at once where the account certainly has not sent, and otherwise as soon
    /// as that is known. `None` where the account goes on itself.
    pub(super) async fn yield_to_relay(
        &self,
        delivery: &Delivery,
        error: &SendError,
    ) -> Result<Option<Attempt>, Error> {
        let Some(account) = self.sender.account else {
            return Ok(None);
        };
        let accounts = &self.sender.accounts;
        match error {
            SendError::SignedOut { .. } => {
                accounts.remove(account);
            }
            SendError::Closed { .. } => accounts.note_closed(account, &delivery.to),
            SendError::RateLimited { .. } if is_untouched_post(delivery) => {
                accounts.stand_in(account, StandIn::Limited);
            }
            // It fails again and again, and others wait behind it.
            SendError::Retry {
                outcome: Outcome::NotDone,
                ..
            } if delivery.attempts > 0 && is_untouched_post(delivery) => {
                accounts.note_closed(account, &delivery.to);
            }
            _ => return Ok(None),
        }
        if !may_have_begun(delivery) {
            self.store.release_sender(delivery.id).await?;
        }
        self.signals.notify_step_settled();
        Ok(Some(Attempt::Settled))
    }

    /// The account that was to send a delivery is gone. What it may have sent is looked for in the place; then the relay sends.
    async fn take_over(
        &self,
        delivery: &Delivery,
        account: AccountId,
        stop: &CancellationToken,
    ) -> Result<Attempt, Error> {
        let Ok(message) = Message::from_bytes(&delivery.payload) else {
            return self.deliver(delivery.clone(), stop).await;
        };
        if may_have_begun(delivery) {
            let unknown = delivery.outcome_unknown_since.or(delivery.unanswered_since);
            let since = unknown.unwrap_or(delivery.accepted_at);
            let steps = match delivery.plan.as_deref().map(serde_json::from_slice) {
                Some(Ok(Plan::Steps(steps))) => steps,
                _ => Vec::new(),
            };
            let index = usize::try_from(delivery.steps_done).unwrap_or(usize::MAX);
            let step = match steps.get(index) {
                Some(step) => step.clone(),
                None => self.sought_step(delivery, &message).await?,
            };
            let key = step_key(delivery, index, &step);
            let found = self
                .outlet
                .find_sent_by(account, &delivery.to, &key, &step, since);
            match found.await {
                Ok(Some(done)) => {
                    info!(
                        delivery.id = delivery.id.0,
                        account.id = account.0,
                        "A personal account had sent this before it was gone; not sent again"
                    );
                    let last = index + 1 >= steps.len();
                    self.settle(delivery, &message, &step, &done, last).await?;
                    return Ok(Attempt::Settled);
                }
                Ok(None) => {}
                Err(SendError::Refused { reason }) => {
                    return self.fail_unknowable(delivery, &reason, &message).await;
                }
                Err(error) => return self.postpone_reconcile(delivery, error).await,
            }
        }
        self.store.release_sender(delivery.id).await?;
        Ok(Attempt::Settled)
    }

    /// A step like the one that a delivery without a saved plan consists of.
    async fn sought_step(&self, delivery: &Delivery, message: &Message) -> Result<Step, Error> {
        let Some(target) = message.target() else {
            return Ok(a_post());
        };
        let known = self.store.copies(&delivery.from, target, &delivery.to);
        let known = known.await?;
        let Some(copy) = known.copies.first() else {
            return Ok(a_post());
        };
        let target = copy.remote.clone();
        Ok(match &message.action {
            Action::Edit { .. } => an_edit(&target),
            Action::Delete { .. } | Action::Unreact { .. } => Step::Delete {
                target,
                by_edit: false,
            },
            Action::React { key, .. } => Step::React {
                target,
                key: key.clone(),
                unencrypted: false,
                is_marker: false,
            },
            _ => a_post(),
        })
    }

    /// Looks for a step that this account, or the relay, may have performed.
    pub(super) async fn find_sent(
        &self,
        sender: Option<AccountId>,
        to: &Place,
        key: &str,
        step: &Step,
        since: footbridge_store::Millis,
    ) -> Result<Option<Done>, SendError> {
        let running = sender.and_then(|account| self.sender.accounts.get(account, to));
        match (sender, running) {
            (_, Some(speaker)) => {
                let found = speaker.outlet.find_by_key_always(to, key, step, since);
                found.await
            }
            (Some(account), None) => {
                let found = self
                    .relay_outlet()
                    .find_sent_by(account, to, key, step, since);
                found.await
            }
            (None, None) => {
                let found = self.relay_outlet().find_by_key_always(to, key, step, since);
                found.await
            }
        }
    }
}

/// Whether this is a new message of which certainly nothing was sent.
fn is_untouched_post(delivery: &Delivery) -> bool {
    let message = Message::from_bytes(&delivery.payload);
    message.is_ok_and(|message| matches!(message.action, Action::Post { .. }))
        && delivery.steps_done == 0
        && !may_have_begun(delivery)
}

/// Whether it may be that nobody has tried a delivery: a lane that starts counts its head as tried.
fn may_be_untried(delivery: &Delivery) -> bool {
    delivery.plan.is_none()
        && delivery.steps_done == 0
        && delivery.attempts == 0
        && delivery.outcome_unknown_since.is_none()
        && delivery
            .unanswered_since
            .is_none_or(|since| since == delivery.accepted_at)
}

fn author_of(delivery: &Delivery, message: &Message) -> Author {
    Author {
        network: delivery.from.network().to_owned(),
        user: message.sender.id.clone(),
    }
}
