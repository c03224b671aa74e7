//! Chat commands: what became of a message, portals added and removed, consent, and people's own choices. A listener
//! writes the command into the journal like any message (it is never relayed, and counted as skipped by the rule
//! `command`); this task executes it and sends the answer to the place where it was given.
//!
//! After a kill between executing and answering, both happen again: retrying what is being retried already changes
//! nothing, and a command gets one answer. Permissions: anyone in the place may ask `why` and `status`; a message is
//! retried for its sender, and for whoever may remove other people's messages there.

mod consent;
mod answer_limits;
mod permissions;
mod notices;
pub(crate) mod parse;
mod backend;
mod user_choices;
mod persons;
mod portals;
mod housekeeping;
mod room_upgrades;
mod replies;

pub use answer_limits::AnswerLimits;
pub use backend::{Audience, Backend, BackendError, CodeProof, FoundChannel, LoggedOut, Successor};
pub use housekeeping::AlreadyDone;
pub use notices::{TEXT_VERSION, greeting, messages, unlinked_notice};
pub use permissions::MemberRights;
pub use replies::senders_without_keys;

use std::{collections::HashMap, sync::Arc, time::Duration};

use footbridge_core::{
    clock::Clock,
    crash_points,
    inbox::Signals,
    lane::notice_texts,
    message::{Command, Message, ReplyTarget},
    persons::is_admin,
};
use footbridge_store::{
    self as store, Millis, ParkedDelivery, ParkedState, Portal, PortalSource, Store,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use answer_limits::{AnswerClass, Asker};
use parse::ParsedCommand;

/// The bridge looks for unanswered commands this often even without a signal.
const SLOW_POLL_INTERVAL: Duration = Duration::from_secs(30);
/// Parked deliveries that are too old to be retried are removed this often.
const FORGET_INTERVAL: Duration = Duration::from_hours(1);
/// How many messages are searched for a failed one of an asker who names none.
const MAX_SEARCHED: u32 = 200;

/// The poll interval while control waits for something that no signal announces.
const QUICK_POLL_INTERVAL: Duration = Duration::from_secs(4);

/// The operator's settings for chat commands.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Who may add portals and give consent for rooms: user ids and servers.
    pub admins: Vec<String>,
    /// The time from a consent to the first message that is relayed.
    pub delay: Duration,
    /// Who runs this bridge, for people in a room.
    pub operator: String,
    /// Whether new members of a room get a notice of where its messages are relayed to.
    pub disclose_joins: bool,
    /// What a silo does not relay as what it is, in words, by the name of the silo.
    pub limits: HashMap<String, String>,
    /// By the name of the silo, whether it proves which account has written a message.
    pub proving_silos: HashMap<String, bool>,
}

/// The reply to a command.
enum Reply {
    /// This text.
    Say(String),
    /// The command was not executed, because the asker lacks the permission; this text says why.
    Refuse(String),
    /// The command was answered in the transaction that executed it.
    Done,
}

/// Executes and answers chat commands.
#[derive(Clone)]
pub struct Control {
    /// The store, with the commands.
    pub store: Store,
    /// Wakes this task and the lanes.
    pub signals: Signals,
    /// The time.
    pub clock: Clock,
    /// Handles a `verify` command of a user; returns the text to reply.
    pub verify: VerificationHandler,
    /// The operator's settings.
    pub rules: Arc<ControlConfig>,
    /// Matrix and the silos.
    pub backend: Arc<dyn Backend>,
    /// What was done since the start and need not be repeated.
    pub shown: Arc<AlreadyDone>,
    /// The limits of answers.
    pub answers: AnswerLimits,
}

/// Takes the user and their answer to a verification; `None` begins one.
pub type VerificationHandler = Arc<dyn Fn(&str, Option<bool>) -> String + Send + Sync>;

impl Control {
    /// Executes and answers commands until it is stopped.
    pub async fn run(self, stop: CancellationToken) -> Result<(), store::Error> {
        let arrived = self.signals.commands();
        let mut forget_at = Instant::now();
        while !stop.is_cancelled() {
            if forget_at <= Instant::now() {
                self.store.expire_parked(self.clock.now()).await?;
                forget_at = Instant::now() + FORGET_INTERVAL;
            }
            for question in self.store.commands().await? {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    answered = self.answer(question) => answered?,
                }
            }
            let wait = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                soon = self.run_once() => if soon? { QUICK_POLL_INTERVAL } else { SLOW_POLL_INTERVAL },
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = arrived.notified() => {}
                () = sleep(wait) => {}
            }
        }
        Ok(())
    }

    async fn answer(&self, question: store::Command) -> Result<(), store::Error> {
        crash_points::point("command.received");
        let command = match Command::from_bytes(&question.payload) {
            Ok(command) => command,
            Err(error) => {
                warn!(entry.id = %question.entry, error = %error, "Failed to read a command from the store");
                self.store
                    .answer_command(question.entry, None, self.clock.now())
                    .await?;
                return Ok(());
            }
        };
        let parsed = parse::parse(&command.arguments);
        let asker = Asker {
            place: &question.place,
            id: &command.sender.id,
        };
        let reply = if self.may_begin(&parsed, asker) {
            Some(self.execute(&question, &command, &parsed).await?)
        } else {
            None
        };
        let text = match reply {
            Some(Reply::Done) => return Ok(()),
            Some(Reply::Say(text)) if self.admits(self.class(&parsed, asker), asker) => {
                (!command.by_reaction).then_some(text)
            }
            Some(Reply::Refuse(text)) if self.admits(AnswerClass::Refusal, asker) => {
                (!command.by_reaction).then_some(text)
            }
            Some(Reply::Say(_) | Reply::Refuse(_)) | None => self.withhold(asker),
        };
        crash_points::point("command.done");
        let now = self.clock.now();
        let payload = text.and_then(|text| {
            // A reply to a reaction is not possible; the reply goes to the message under it.
            let reacted = command.target.as_ref().filter(|_| command.by_reaction);
            let about = ReplyTarget {
                message: reacted.unwrap_or(&question.event_id).clone(),
                thread: command.thread.clone(),
            };
            Message::notice_about(&text, Some(about), now)
                .to_bytes()
                .ok()
        });
        if let Some(lane) = self
            .store
            .answer_command(question.entry, payload, now)
            .await?
        {
            self.signals.wake(lane);
        }
        debug!(entry.id = %question.entry, "Answered a command");
        Ok(())
    }

    /// Executes a command. Returns the reply.
    async fn execute(
        &self,
        question: &store::Command,
        command: &Command,
        parsed: &ParsedCommand,
    ) -> Result<Reply, store::Error> {
        let now = self.clock.now();
        Ok(Reply::Say(match parsed {
            ParsedCommand::Why => self.why(question, command, now).await?,
            ParsedCommand::Retry => self.retry(question, command, now).await?,
            ParsedCommand::Status => self.status(question, command, now).await?,
            // A `no` ends the verification, whoever says it; an unencrypted `yes` is refused, because the homeserver
            // could have written it.
            ParsedCommand::Verify(yes) if *yes != Some(false) && !command.encrypted => {
                notices::refusal(permissions::PermissionError::NotEncrypted)
            }
            ParsedCommand::Verify(yes) => (self.verify)(&command.sender.id, *yes),
            ParsedCommand::Help => replies::help(),
            ParsedCommand::Incomplete(usage) => replies::incomplete(usage),
            ParsedCommand::Unknown(meant) => replies::unknown(*meant),
            ParsedCommand::Add(end, room) => {
                return self.add(question, command, end, room, now).await;
            }
            ParsedCommand::Remove(end, room) => {
                return self
                    .remove(question, command, end.as_ref(), room, now)
                    .await;
            }
            ParsedCommand::Consent(end, room) => {
                return self.give_consent(question, command, end, room, now).await;
            }
            ParsedCommand::Pause(room) => return self.pause(question, command, room, now).await,
            ParsedCommand::Resume(room) => return self.resume(question, command, room, now).await,
            ParsedCommand::Trust(user, key) => {
                return self.trust(question, command, user, key.as_deref()).await;
            }
            ParsedCommand::SiloLogin(silo) => {
                return self.silo_login(question, command, silo, now).await;
            }
            ParsedCommand::SiloLogout(silo) => {
                return self.silo_logout(question, command, silo).await;
            }
            ParsedCommand::Devices => return self.devices(question, command).await,
            ParsedCommand::Login => {
                notices::how_to_log_in(&command.sender.id, &self.rules.operator)
            }
            ParsedCommand::Logout => return self.log_out(question, command).await,
            ParsedCommand::OptOut(reach) => {
                return self.opt_out(question, command, *reach, now).await;
            }
            ParsedCommand::OptIn(reach) => return self.opt_in(question, command, *reach).await,
        }))
    }

    /// The failed message to retry: the one that the command replies to, or the asker's last one.
    async fn failed(
        &self,
        question: &store::Command,
        command: &Command,
    ) -> Result<Vec<ParkedDelivery>, store::Error> {
        let place = &question.place;
        if let Some(target) = &command.target {
            return self.store.parked_deliveries_of(place, target).await;
        }
        for (event_id, payload) in self.store.recent_retryable(place, MAX_SEARCHED).await? {
            if is_by(&payload, &command.sender.id) {
                let about = self.store.parked_deliveries_of(place, &event_id).await?;
                if about.iter().any(|parked| parked.retryable) {
                    return Ok(about);
                }
            }
        }
        Ok(Vec::new())
    }

    async fn why(
        &self,
        question: &store::Command,
        command: &Command,
        now: Millis,
    ) -> Result<String, store::Error> {
        let place = &question.place;
        let last = self
            .store
            .last_message_of(place, &command.sender.id)
            .await?;
        let Some(target) = command.target.clone().or(last) else {
            return Ok(
                "I have no message from you here. Reply to a message with `!bridge why` to see its status."
                    .to_owned(),
            );
        };
        let Some(message_status) = self.store.message_status(place, &target).await? else {
            return Ok(replies::not_known());
        };
        if !message_status.is_bridge_notice() {
            return Ok(replies::message_status(&message_status, place, now));
        }
        // The target is a notice: the command asks about the messages that the notice is about.
        let mut lines = Vec::new();
        for parked in self.store.parked_deliveries_of(place, &target).await? {
            if let Some(message_status) = self.store.status_of_parked(parked.id).await? {
                lines.push(replies::message_status(&message_status, place, now));
            }
        }
        lines.dedup();
        Ok(if lines.is_empty() {
            "That message is from the bridge itself.".to_owned()
        } else {
            lines.truncate(5);
            lines.join("\n")
        })
    }

    async fn retry(
        &self,
        question: &store::Command,
        command: &Command,
        now: Millis,
    ) -> Result<String, store::Error> {
        let about = self.failed(question, command).await?;
        let mine = |parked: &&ParkedDelivery| {
            let payload = parked.payload.as_deref().unwrap_or_default();
            command.moderator || is_by(payload, &command.sender.id)
        };
        let kept: Vec<&ParkedDelivery> = about.iter().filter(|parked| parked.retryable).collect();
        let all = kept.len();
        let kept = self.may_cross(&kept).await?;
        let ids: Vec<_> = kept
            .iter()
            .copied()
            .filter(mine)
            .map(|parked| parked.id)
            .collect();
        if !ids.is_empty() {
            for lane in self.store.retry_parked(&ids).await? {
                self.signals.wake(lane);
            }
            for lane in self
                .store
                .refresh_notices(notice_texts::render, now)
                .await?
            {
                self.signals.wake(lane);
            }
            return Ok(match ids.len() {
                1 => "Retrying.".to_owned(),
                count => format!("Retrying {count} messages."),
            });
        }
        let again = about
            .iter()
            .any(|parked| parked.state == ParkedState::Retrying);
        Ok(if kept.len() < all {
            "Its author has opted out (`!bridge optout`).".to_owned()
        } else if !kept.is_empty() {
            "Only its sender, or somebody who may delete messages here, can retry it.".to_owned()
        } else if again {
            "It is already being retried.".to_owned()
        } else if about
            .iter()
            .any(|parked| parked.state == ParkedState::Failed)
        {
            "It failed, and its text is no longer stored. Send the message again.".to_owned()
        } else if command.target.is_none() {
            "None of your messages has failed.".to_owned()
        } else {
            "It did not fail. `!bridge why` shows its status.".to_owned()
        })
    }

    /// The status of the portals of this place; in a direct message of an admin, of all portals.
    async fn status(
        &self,
        question: &store::Command,
        command: &Command,
        now: Millis,
    ) -> Result<String, store::Error> {
        let all_counters = self.store.lane_counters_at(now).await?;
        let holds = self.store.portal_holds(now).await?;
        let senders_without_keys = self.store.senders_without_keys().await?;
        let here = &question.place;
        let mut portals = self.store.portals().await?;
        portals.retain(|portal| portal.active && portal.source != PortalSource::Management);
        let is_here = |portal: &Portal| portal.room == *here || portal.channel == *here;
        if portals.iter().any(is_here) || !is_admin(&self.rules.admins, &command.sender.id) {
            portals.retain(is_here);
        }
        if portals.is_empty() {
            return Ok("Nothing is linked here. `!bridge help` explains how.".to_owned());
        }
        let lines = portals.iter().map(|portal| {
            let own: Vec<_> = all_counters
                .iter()
                .filter(|counters| counters.lane.portal == portal.id)
                .cloned()
                .collect();
            let holds = holds.iter().filter(|(id, _)| *id == portal.id);
            let held =
                holds.map(|(_, hold)| format!("\n{}", notices::hold(hold, portal, here, now)));
            let held: String = held.collect();
            let limits = self.rules.limits.get(&portal.spec.silo);
            let limits = limits.map_or_else(String::new, |limits| format!("\n{limits}"));
            // The channel must not learn who is in the room.
            let senders_without_keys = senders_without_keys
                .iter()
                .filter(|one| one.place == *here && portal.room == *here);
            let senders_without_keys = senders_without_keys
                .map(|one| format!("\n{}", replies::senders_without_keys(&one.sender)));
            let senders_without_keys: String = senders_without_keys.collect();
            format!(
                "{}{limits}{held}{senders_without_keys}",
                replies::status(portal, &own, here, now)
            )
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}

fn is_by(payload: &[u8], sender: &str) -> bool {
    !sender.is_empty()
        && Message::from_bytes(payload).is_ok_and(|message| message.sender.id == sender)
}
