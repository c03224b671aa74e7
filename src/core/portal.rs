//! A portal joins one room and one channel; a [`Lane`] is a portal in one direction. It takes the head of its
//! line, sends it, settles it, and only then looks at the next: order needs nothing else.
//!
//! It does not know Matrix or any silo, only [`Outlet`]. The table is the queue; the bell only wakes.

mod batch;
mod changes;
mod choice;
mod closed;
mod edits;
mod doubt;
mod links;
mod failure;
pub mod notice;
mod peers;
mod pictures;
mod reactions;
mod steps;
mod instead;
mod taken_back;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use footbridge_store::{
    Copies, Delivery, Error, Head, LaneId, PortalId, Side, Store, Turn, Undelivered,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use batch::Gathered;
pub use choice::Choice;
use edits::{TAKEN_BACK, with_edits, with_kept};
pub use failure::Limits;
pub use peers::Peers;
use taken_back::{Present, without};

use crate::{
    backoff,
    budget::{Budget, Permit},
    clock::Clock,
    inbox::Bells,
    links::Links,
    message::{Action, Message, Style},
    origin::Origins,
    outlet::{Outgoing, Outlet, Plan, SendError},
    people::People,
    spool::Spool,
};

/// An idle lane asks the table this often even if no bell rang.
const SLOW_POLL: Duration = Duration::from_secs(30);

/// The rule for what a network tells by itself, where the portal does not want it.
const SYSTEM: &str = "system-message";
/// The rule for what machines say, where the portal does not want it.
const NOTICE: &str = "notice";

/// What a lane needs from the house.
#[derive(Clone)]
pub struct Lane {
    /// Which lane this is.
    pub id: LaneId,
    /// Where its deliveries go.
    pub outlet: Arc<dyn Outlet>,
    /// Where its messages were written: files are fetched from there.
    pub source: Arc<dyn Outlet>,
    /// Where files are kept on their way.
    pub spool: Spool,
    /// Where its debts stand.
    pub store: Store,
    /// What wakes it.
    pub bells: Bells,
    /// The time.
    pub clock: Clock,
    /// How much one message may cost.
    pub limits: Limits,
    /// What the lanes toward the same outlet know of each other.
    pub peers: Peers,
    /// How fast the account on its side may act.
    pub budget: Budget,
    /// Whether messages that wait for that may share one.
    pub coalesce: bool,
    /// What crosses only where somebody wants it: of this portal, and of those that others pass before it.
    pub tastes: AllTastes,
    /// Who can be called.
    pub people: People,
    /// What makes links to files, if the operator runs a gateway.
    pub links: Option<Links>,
    /// Which channels rooms are joined to.
    pub origins: Origins,
}

/// What crosses only where somebody wants it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tastes {
    /// What a network tells by itself (see [`Action::System`]).
    pub system_messages: bool,
    /// What machines say in the room (see [`Style::Notice`]).
    pub notices: bool,
    /// What people think of messages.
    pub reactions: Choice,
    /// Links to files that the other side does not take.
    pub file_links: Choice,
}

/// What each portal wants; one of which nothing is said wants what all do by default. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AllTastes(Arc<Mutex<HashMap<PortalId, Tastes>>>);

impl AllTastes {
    /// Only this portal, which wants this.
    #[must_use]
    pub fn only(portal: PortalId, tastes: Tastes) -> Self {
        let all = Self::default();
        all.set(portal, tastes);
        all
    }

    /// A portal wants this.
    pub fn set(&self, portal: PortalId, tastes: Tastes) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(portal, tastes);
    }

    fn of(&self, portal: PortalId) -> Tastes {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&portal).copied().unwrap_or_default()
    }
}

impl Tastes {
    /// The rule by which this does not cross.
    fn against(self, message: &Message, toward: Side) -> Option<&'static str> {
        match &message.action {
            Action::System { .. } if !self.system_messages => Some(SYSTEM),
            Action::Post { style, .. } | Action::Edit { style, .. }
                if *style == Style::Notice
                    && toward == Side::Silo
                    && !self.notices
                    && !message.sender.is_bridge() =>
            {
                Some(NOTICE)
            }
            _ => None,
        }
    }
}

/// Why a lane no longer runs.
#[derive(Debug, PartialEq, Eq)]
pub enum LaneEnd {
    /// It was told to stop.
    Stopped,
    /// Our account on its side is signed out. Its debts stay.
    SignedOut,
}

/// How one attempt left the head of the line.
enum Attempt {
    /// The line moved, or will at the due time the store knows.
    Settled,
    SignedOut,
    /// Told to stop while waiting.
    Stopped,
}

impl Lane {
    /// Pays the lane's debts until told to stop. Stops only between attempts. An error of the store ends it.
    pub async fn run(self, stop: CancellationToken) -> Result<LaneEnd, Error> {
        let bell = self.bells.of(self.id);
        let now = self.clock.now();
        let latest = now.plus(backoff::CEILING);
        self.store
            .start_lane(self.id, (now, latest), self.outlet.dedupes())
            .await?;
        self.take_over().await?;
        let mut turn = Turn::Any;
        loop {
            if stop.is_cancelled() {
                return Ok(LaneEnd::Stopped);
            }
            self.note_opened().await?;
            let wait = match self.store.next(self.id, turn, self.clock.now()).await? {
                Head::Ready(delivery) => {
                    // What the bridge itself says is at most every second event while messages wait.
                    turn = if delivery.urgent {
                        Turn::Ordinary
                    } else {
                        Turn::Any
                    };
                    match self.deliver(*delivery, &stop).await? {
                        Attempt::Settled => continue,
                        Attempt::SignedOut => return Ok(LaneEnd::SignedOut),
                        Attempt::Stopped => return Ok(LaneEnd::Stopped),
                    }
                }
                Head::NotBefore(due) => due.since(self.clock.now()),
                Head::Empty => SLOW_POLL,
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = bell.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// One attempt at one delivery: all its remaining steps, or as far as they go.
    async fn deliver(
        &self,
        delivery: Delivery,
        stop: &CancellationToken,
    ) -> Result<Attempt, Error> {
        let Ok(message) = Message::from_bytes(&delivery.payload) else {
            let reason = "it was written by another version and cannot be read".to_owned();
            return self.fail(&delivery, "unreadable", reason, None).await;
        };
        if self.id.toward == Side::Matrix {
            let origin = self.source.origin(&delivery.from);
            self.origins.renew(&delivery.to, &delivery.from, origin);
        }
        let is_edit = matches!(message.action, Action::Edit { .. });
        let present = self.present(&delivery, message.clone(), stop);
        let (message, restored) = match present.await? {
            Present::Says(message) => (message, None),
            Present::Restores(message, made) => (message, Some(made)),
            Present::Nothing(rule) => return self.skip(&delivery, rule).await,
            Present::Unknown(error) => {
                return self.not_planned(&delivery, error, &message, stop).await;
            }
            Present::Stopped => return Ok(Attempt::Stopped),
        };
        let (mut turn, mut bound) = (None, None);
        if batch::may_gather(&delivery, &message) {
            let Some(permit) = self.turn(&message, stop).await else {
                return Ok(Attempt::Stopped);
            };
            turn = Some(permit);
        }
        if matches!(message.action, Action::Post { .. }) && batch::is_untouched(&delivery) {
            // As it reads by now it is read again.
            if self.was_changed(&delivery, &message).await? {
                return Ok(Attempt::Settled);
            }
        }
        if turn.as_ref().is_some_and(Permit::is_limited) {
            match self.gather(&delivery, &message).await? {
                Gathered::Alone => {}
                Gathered::Together(plan) => bound = Some(Ok(plan)),
                Gathered::Settled => return Ok(Attempt::Settled),
            }
        }
        if bound.is_none() && self.waits_behind(&delivery, &message).await? {
            return Ok(Attempt::Settled);
        }
        let plan = match bound {
            Some(plan) => plan,
            None => self.plan(&delivery, &message).await?,
        };
        let plan = match &restored {
            Some(made) if self.outlet.removes() => plan.map(|plan| without(plan, made)),
            _ if is_edit => plan.map(taken_back::by_an_edit),
            _ => plan,
        };
        let steps = match plan {
            Ok(Plan::Steps(steps)) if !steps.is_empty() => steps,
            Ok(Plan::Steps(_)) => return self.skip(&delivery, "nothing-to-do").await,
            Ok(Plan::Skip(rule)) => return self.skip(&delivery, &rule).await,
            Err(refusal) => return self.not_planned(&delivery, refusal, &message, stop).await,
        };
        if restored.is_some() {
            // Should another edit be redacted before this is answered, it must not be tried under the same key with another text.
            self.keep(&delivery, &steps).await?;
        }
        self.walk(&delivery, &message, &steps, turn, stop).await
    }

    /// The plan: the one written down, or a new one.
    async fn plan(
        &self,
        delivery: &Delivery,
        message: &Message,
    ) -> Result<Result<Plan, SendError>, Error> {
        if let Some(plan) = self.kept_plan(delivery, message).await? {
            return Ok(Ok(plan));
        }
        let mut passed = self.passed(delivery);
        if let Some(rule) = passed.find_map(|(toward, tastes)| tastes.against(message, toward)) {
            return Ok(Ok(Plan::Skip(rule.to_owned())));
        }
        let known = self.known(delivery, message).await?;
        if let Some(plan) = self.elsewhere(delivery, message, &known).await? {
            return Ok(Ok(plan));
        }
        if let Some(plan) = self.reacting(delivery, message, &known).await? {
            return Ok(Ok(plan));
        }
        if let Action::Edit { target, .. } = &message.action {
            if let Some(rule) = self.edit_rule(delivery, message, target, &known).await? {
                return Ok(Ok(Plan::Skip(rule.to_owned())));
            }
            self.withdraw_files(message, &known).await?;
            if known.owed.is_some() && known.copies.is_empty() {
                // The message it changes still waits for its key: this is all of its text, and readable.
                return self.fill_by_edit(delivery, message, &known).await;
            }
        }
        if let Action::Delete { target } = &message.action {
            self.withdraw_files(message, &known).await?;
            if known.entry.is_none() {
                let now = self.clock.now();
                self.store
                    .never_mind(&delivery.from, target, delivery.entry, now)
                    .await?;
            }
            if self.take_back_failed(delivery, target, TAKEN_BACK).await?
                && known.copies.is_empty()
                && known.edits.is_empty()
                && known.kept.is_empty()
            {
                return Ok(Ok(Plan::Skip(batch::DELETED.to_owned())));
            }
        }
        let outgoing = Outgoing {
            key: delivery.key.clone(),
            to: delivery.to.clone(),
            message: self.calling(delivery, message),
            copies: known.copies.clone(),
            late: delivery.late,
        };
        if let (Some(slot), Action::Edit { .. } | Action::Delete { .. }) =
            (known.slot, &message.action)
        {
            let plan = self.outlet.revise(&outgoing, slot);
            return Ok(Ok(with_edits(plan, message, &known)));
        }
        let plan = self.linked_plan(delivery, &known, outgoing).await?;
        let plan = plan.map(|plan| with_edits(plan, message, &known));
        match (plan, &message.action) {
            (Ok(plan), Action::Delete { .. }) => {
                let plan = with_kept(plan, &known.kept);
                self.and_its_line(delivery, &known, plan).await.map(Ok)
            }
            (plan, _) => Ok(plan),
        }
    }

    /// What is known of the message that this one is about.
    async fn known(&self, delivery: &Delivery, message: &Message) -> Result<Copies, Error> {
        let Some(target) = message.target() else {
            return Ok(Copies::default());
        };
        let (from, to) = (&delivery.from, &delivery.to);
        let mut known = self.store.copies(from, target, to).await?;
        if let (Action::Post { .. }, true, Some(entry)) =
            (&message.action, known.copies.is_empty(), known.entry)
        {
            known.copies = self.store.emptied_copies(entry, to).await?;
        }
        Ok(known)
    }

    /// The portals that a delivery passes: in which direction, and what each wants.
    fn passed(&self, delivery: &Delivery) -> impl Iterator<Item = (Side, Tastes)> {
        let hops = delivery.path.iter();
        hops.map(|hop| (hop.toward, self.tastes.of(hop.portal)))
    }

    /// The message with those called whom the other side knows.
    fn calling(&self, delivery: &Delivery, message: &Message) -> Message {
        let silo = match self.id.toward {
            Side::Matrix => &delivery.from,
            Side::Silo => &delivery.to,
        };
        self.people.calling(message, silo.network(), self.id.toward)
    }

    async fn skip(&self, delivery: &Delivery, rule: &str) -> Result<Attempt, Error> {
        let how = Undelivered::Skipped(rule.to_owned());
        self.store
            .undelivered(delivery.id, how, self.clock.now())
            .await?;
        self.bells.step_settled();
        debug!(delivery.id = delivery.id.0, rule, "Skipped");
        if delivery.again {
            self.tell().await?;
        }
        Ok(Attempt::Settled)
    }
}

#[cfg(test)]
mod tests {
    use footbridge_store::Millis;

    use super::*;
    use crate::{message::Sender, text::Body};

    #[test]
    fn c18_what_machines_say_leaves_the_room_only_where_somebody_wants_it() {
        let mut said = Message::notice("", Millis(0));
        said.action = Action::Post {
            body: Body::plain("build 7 is green"),
            style: Style::Notice,
            reply_to: None,
            thread: None,
        };
        let machine = Sender {
            id: "@ci:x".to_owned(),
            name: "CI".to_owned(),
            avatar: None,
        };
        let wanted = Tastes {
            notices: true,
            ..Tastes::default()
        };
        assert_eq!(Tastes::default().against(&said, Side::Silo), None);
        said.sender = machine;
        assert_eq!(Tastes::default().against(&said, Side::Silo), Some(NOTICE));
        assert_eq!(Tastes::default().against(&said, Side::Matrix), None);
        assert_eq!(wanted.against(&said, Side::Silo), None);
    }
}
