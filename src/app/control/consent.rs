//! Consent (P15): messages of an encrypted room leave it only after an admin of the room has repeated the destination
//! in a command, a notice has said what that means, and a delay has passed.

use std::time::Duration;

use footbridge_core::{crash_points, message::Command};
use footbridge_store::{self as store, ApprovedRequest, Consent, Millis, PortalSpec};
use tracing::{info, warn};

use super::{
    Control, Reply,
    notices::{self, ConsentStart},
    parse::{ChannelRef, RoomRef},
    permissions::PortalAction,
    portals::{is_end, payload},
};

impl Control {
    /// Executes `consent`.
    pub(super) async fn give_consent(
        &self,
        question: &store::Command,
        command: &Command,
        end: &ChannelRef,
        named: &RoomRef,
        now: Millis,
    ) -> Result<Reply, store::Error> {
        let target = match self
            .resolve_target(question, command, PortalAction::Agree, named)
            .await?
        {
            Ok(target) => target,
            Err(text) => return Ok(Reply::Refuse(text)),
        };
        if !target.member_rights.encrypted {
            let text = "That room is not encrypted, so no consent is needed.";
            return Ok(Reply::Say(text.to_owned()));
        }
        let consent = Consent {
            by: command.sender.id.clone(),
            text_version: notices::TEXT_VERSION,
            effective_at: now.plus(self.rules.delay),
        };
        let mut requests = self.store.portal_requests().await?;
        requests.retain(|request| request.room == target.room && request.confirmed_at.is_some());
        if let Some(request) = requests.iter().find(|request| is_end(&request.spec, end)) {
            let begins = ConsentStart {
                delay: self.rules.delay,
                waiting: 0,
            };
            let text = self.disclosure(&request.spec, &begins).await;
            // In the room itself the disclosure is the answer to the command.
            let here = question.place == target.room;
            let approved = ApprovedRequest {
                request: request.id,
                consent: Some(consent),
                question: here.then_some(question.entry),
                notice: payload(&text, now),
                is_caught_up: self.backend.is_room_caught_up(&request.room).await,
            };
            self.link(approved).await?;
            return Ok(if here {
                Reply::Done
            } else {
                Reply::Say(
                    "Consent recorded. A notice in the room describes what is relayed.".to_owned(),
                )
            });
        }
        let lacking = self.store.lacking_consent().await?;
        let lacking = lacking.iter().filter(|portal| portal.room == target.room);
        let waiting = lacking
            .map(|portal| notices::destination(&portal.spec))
            .chain(
                requests
                    .iter()
                    .map(|request| notices::destination(&request.spec)),
            );
        let waiting: Vec<String> = waiting.collect();
        let portals = self.portals_of(&target.room, Some(end)).await?;
        let Some(portal) = portals.first() else {
            let named = format!("{} {}", end.silo, end.channel);
            return Ok(Reply::Say(notices::wrong_destination(&named, &waiting)));
        };
        // Where the room has agreed before, the same reply is sent again: the asker may not have received it.
        let (holds, lanes) = self.store.record_consent(portal.id, consent, now).await?;
        crash_points::point("consent.given");
        info!(portal.id = portal.id.0, "A room has agreed");
        for lane in lanes {
            self.signals.wake(lane);
        }
        let begins = ConsentStart {
            delay: holds.effective_at.since(now),
            waiting: self.store.waiting_to_leave(portal.id).await?,
        };
        let text = self.disclosure(&portal.spec, &begins).await;
        if question.place != target.room {
            let notice_id = format!("agreed-{}-{}", portal.id, holds.effective_at.0);
            self.say(&target.room, &notice_id, &text).await?;
        }
        Ok(Reply::Say(text))
    }

    /// The disclosure: what leaves the room.
    pub(super) async fn disclosure(&self, spec: &PortalSpec, begins: &ConsentStart) -> String {
        let audience = self.backend.audience(&spec.silo, &spec.channel).await;
        notices::disclosure(spec, &audience, &self.rules.operator, begins)
    }

    /// Asks the rooms that were encrypted after they were linked for consent, once.
    pub(super) async fn ask_for_consent(&self) -> Result<(), store::Error> {
        for portal in self.store.lacking_consent().await? {
            let raised = self
                .store
                .raised_at(&portal.room, store::Flag::EverEncrypted)
                .await?;
            let notice_id = format!(
                "consent-asked-{}-{}",
                portal.id,
                raised.unwrap_or_default().0
            );
            if !self.shown.is_first(&notice_id) {
                continue;
            }
            warn!(
                portal.id = portal.id.0,
                "warning[B29]: The room of a portal is encrypted and has not given consent; the portal is off until \
                 somebody sends `!bridge consent` there"
            );
            self.say(
                &portal.room,
                &notice_id,
                &notices::encrypted_now(&portal.spec),
            )
            .await?;
            let there = format!("{notice_id}-there");
            self.say(&portal.channel, &there, &notices::encrypted_over_there())
                .await?;
        }
        Ok(())
    }

    /// Tells the new members of a room where its messages are relayed to, all of them in one notice.
    pub(super) async fn notify_newcomers(&self, now: Millis) -> Result<(), store::Error> {
        /// Members who join within this time share one notice.
        const APART: Duration = Duration::from_mins(10);
        if !self.rules.disclose_joins {
            return Ok(());
        }
        let apart = i64::try_from(APART.as_millis()).unwrap_or(i64::MAX);
        let before = Millis(now.0.saturating_sub(apart));
        let due = self.store.take_unnotified_newcomers(before, now).await?;
        if due.is_empty() {
            return Ok(());
        }
        for portal in self.store.portals().await? {
            if due.contains(&portal.id) {
                let notice_id = format!("newcomers-{}-{}", portal.id, now.0);
                self.say(&portal.room, &notice_id, &notices::newcomers(&portal.spec))
                    .await?;
            }
        }
        Ok(())
    }
}
