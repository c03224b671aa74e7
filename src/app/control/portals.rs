//! Commands that add, pause, resume and remove portals.

use std::time::Duration;

use footbridge_core::{
    crash_points,
    message::{Command, Message},
    persons::is_admin,
};
use footbridge_store::{
    self as store, ApprovedRequest, Millis, Place, Portal, PortalRequest, PortalSource, PortalSpec,
};
use tracing::info;

use super::{
    Control, Reply,
    backend::{BackendError, CodeProof},
    notices::{self, ConsentStart},
    parse::{ChannelRef, RoomRef},
    permissions::{MemberRights, PortalAction, check_permission},
};

/// How long a confirmation code is valid.
const CODE_TTL: Duration = Duration::from_mins(10);
/// How long an encrypted room has to agree.
const CONSENT_TTL: Duration = Duration::from_hours(24);

/// The room that a command is about, and the rights of the asker in it.
pub(super) struct TargetRoom {
    /// The room.
    pub room: Place,
    /// The rights of the asker in the room.
    pub member_rights: MemberRights,
}

impl Control {
    /// Resolves the room that is meant and checks that the asker may do this there. The inner error is the text to
    /// reply.
    pub(super) async fn resolve_target(
        &self,
        question: &store::Command,
        command: &Command,
        action: PortalAction,
        named: &RoomRef,
    ) -> Result<Result<TargetRoom, String>, store::Error> {
        if question.place.network() != Place::MATRIX {
            let text = "Send this command in the Matrix room: permissions cannot be checked here.";
            return Ok(Err(text.to_owned()));
        }
        let request = async {
            let room = match named {
                Some(name) => self.backend.room(name).await?,
                None => question.place.clone(),
            };
            let member_rights = self
                .backend
                .member_rights(&room, &command.sender.id)
                .await?;
            Ok(TargetRoom {
                room,
                member_rights,
            })
        };
        let target = match failure_reply(request.await)? {
            Ok(target) => target,
            Err(text) => return Ok(Err(text)),
        };
        let user = &command.sender.id;
        let listed = is_admin(&self.rules.admins, user);
        Ok(
            match check_permission(action, listed, command.encrypted, &target.member_rights) {
                Ok(()) => Ok(target),
                Err(refusal) => Err(notices::refusal(refusal)),
            },
        )
    }

    /// The active portals of a room; with `end` only those to this channel.
    pub(super) async fn portals_of(
        &self,
        room: &Place,
        end: Option<&ChannelRef>,
    ) -> Result<Vec<Portal>, store::Error> {
        let mut portals = self.store.portals().await?;
        portals.retain(|portal| {
            portal.active
                && portal.source != PortalSource::Management
                && portal.room == *room
                && end.is_none_or(|end| is_end(&portal.spec, end))
        });
        Ok(portals)
    }

    /// Executes `portal add`: the reply contains the code to post in the channel.
    pub(super) async fn add(
        &self,
        question: &store::Command,
        command: &Command,
        end: &ChannelRef,
        named: &RoomRef,
        now: Millis,
    ) -> Result<Reply, store::Error> {
        let target = match self
            .resolve_target(question, command, PortalAction::Link, named)
            .await?
        {
            Ok(target) => target,
            Err(text) => return Ok(Reply::Refuse(text)),
        };
        let found = match failure_reply(self.backend.channel(&end.silo, &end.channel).await)? {
            Ok(found) => found,
            Err(text) => return Ok(Reply::Say(text)),
        };
        let spec = PortalSpec {
            room: target.room.address().to_owned(),
            silo: end.silo.clone(),
            channel: found.name,
        };
        let linked = self.portals_of(&target.room, None).await?;
        if linked.iter().any(|portal| portal.channel == found.place) {
            let to = notices::destination(&spec);
            return Ok(Reply::Say(format!("Already linked: {to}.")));
        }
        let code = self
            .store
            .confirmation_code(&question.place, &question.event_id)
            .await?;
        let request = PortalRequest {
            id: 0,
            spec: spec.clone(),
            room: target.room,
            channel: found.place,
            asked_by: command.sender.id.clone(),
            asked_in: question.place.clone(),
            code: format!("footbridge-{code}"),
            expires_at: now.plus(CODE_TTL),
            confirmed_at: None,
        };
        let text = notices::post_this(&spec, &request.code, CODE_TTL);
        self.store.add_portal_request(request).await?;
        crash_points::point("request.saved");
        Ok(Reply::Say(text))
    }

    /// Checks the portal requests: looks for codes that were posted, and ends requests that have expired. Returns
    /// whether to check again soon.
    pub(super) async fn check_portal_requests(&self) -> Result<bool, store::Error> {
        let mut soon = false;
        for request in self.store.portal_requests().await? {
            let now = self.clock.now();
            if request.expires_at <= now {
                let to = notices::destination(&request.spec);
                let text = if request.confirmed_at.is_some() {
                    format!("Nobody gave consent in time, so this room was not linked to {to}.")
                } else {
                    format!(
                        "Nobody posted the code in {to} in time. Send the command again when you are ready."
                    )
                };
                self.say(
                    &request.asked_in,
                    &format!("wish-over-{}", request.code),
                    &text,
                )
                .await?;
                self.store.delete_portal_request(request.id).await?;
            } else if request.confirmed_at.is_none() {
                soon = true;
                let accepted =
                    self.backend
                        .find_code(&request.spec.silo, &request.channel, &request.code);
                match accepted.await {
                    Ok(Some(proof)) => self.shown(&request, &proof).await?,
                    Err(BackendError::Store(error)) => return Err(error),
                    // Checked again until the request expires.
                    Ok(None) | Err(_) => {}
                }
            }
        }
        Ok(soon)
    }

    /// Handles a code that was posted in the channel.
    async fn shown(&self, request: &PortalRequest, proof: &CodeProof) -> Result<(), store::Error> {
        let now = self.clock.now();
        let to = notices::destination(&request.spec);
        if proof.in_control == Some(false) {
            let text = format!(
                "{} has posted the code in {to}, but is not an admin there. An admin of the channel must post it.",
                proof.by
            );
            let notice_id = format!("wish-no-admin-{}", request.code);
            return self.say(&request.asked_in, &notice_id, &text).await;
        }
        // Some minutes have passed, and the asker may have lost the permission since.
        let rights = self
            .backend
            .member_rights(&request.room, &request.asked_by)
            .await;
        let Ok(rights) = failure_reply(rights)? else {
            return Ok(());
        };
        let listed = is_admin(&self.rules.admins, &request.asked_by);
        // Whether the command was encrypted was checked when it was given.
        if let Err(refusal) = check_permission(PortalAction::Link, listed, true, &rights) {
            let notice_id = format!("wish-refused-{}", request.code);
            self.say(&request.asked_in, &notice_id, &notices::refusal(refusal))
                .await?;
            return self.store.delete_portal_request(request.id).await;
        }
        if rights.encrypted {
            let until = now.plus(CONSENT_TTL);
            self.store
                .confirm_portal_request(request.id, until, now)
                .await?;
            crash_points::point("request.confirmed");
            let text = notices::agree_now(&request.spec, &proof.by);
            return self
                .say(
                    &request.room,
                    &format!("wish-shown-{}", request.code),
                    &text,
                )
                .await;
        }
        let notice = self
            .disclosure(&request.spec, &ConsentStart::default())
            .await;
        let approved = ApprovedRequest {
            request: request.id,
            consent: None,
            question: None,
            notice: payload(&notice, now),
            is_caught_up: self.backend.is_room_caught_up(&request.room).await,
        };
        self.link(approved).await
    }

    /// Opens a requested portal.
    pub(super) async fn link(&self, approved: ApprovedRequest) -> Result<(), store::Error> {
        let linked = self
            .store
            .open_requested_portal(approved, self.clock.now())
            .await?;
        crash_points::point("portal.linked");
        if let Some((portal, lanes)) = linked {
            info!(portal.id = portal.id.0, "Portal added by a chat command");
            self.signals.notify_portals_changed();
            for lane in lanes {
                self.signals.wake(lane);
            }
        }
        Ok(())
    }

    /// Executes `portal remove`.
    pub(super) async fn remove(
        &self,
        question: &store::Command,
        command: &Command,
        end: Option<&ChannelRef>,
        named: &RoomRef,
        now: Millis,
    ) -> Result<Reply, store::Error> {
        let target = match self
            .resolve_target(question, command, PortalAction::Unlink, named)
            .await?
        {
            Ok(target) => target,
            Err(text) => return Ok(Reply::Refuse(text)),
        };
        let portals = self.portals_of(&target.room, end).await?;
        if let [_, _, ..] = portals.as_slice() {
            let names: Vec<String> = portals.iter().map(name_of).collect();
            return Ok(Reply::Say(format!(
                "This room is linked to {}. Name one: `!bridge portal remove <silo> <channel>`.",
                names.join(" and ")
            )));
        }
        let Some(portal) = portals.into_iter().next() else {
            return self
                .cancel_requests(&target.room, end)
                .await
                .map(Reply::Say);
        };
        if portal.source == PortalSource::Config {
            return Ok(Reply::Say(
                "This portal is in the operator's configuration, and only the operator can remove it. \
                 `!bridge pause` stops it at once."
                    .to_owned(),
            ));
        }
        let names = name_of(&portal);
        let notice_names = names.clone();
        let notice = move |dropped| notices::unlinked_notice(&notice_names, dropped, now);
        // In the room itself the notice is the answer to the command.
        let answered = (question.place == target.room).then_some(question.entry);
        if portal.source == PortalSource::Operator {
            self.store.remove_operator_portal(&portal.spec).await?;
        }
        let removed = self
            .store
            .remove_portals(&[portal.id], answered, notice, now)
            .await?;
        crash_points::point("portal.unlinked");
        self.unlinked(&portal, removed.lanes);
        Ok(match answered {
            Some(_) => Reply::Done,
            None => Reply::Say(notices::unlinked(&names, removed.dropped)),
        })
    }

    fn unlinked(&self, portal: &Portal, lanes: Vec<store::LaneId>) {
        info!(portal.id = portal.id.0, "Portal removed by a chat command");
        self.shown.forget(portal.id);
        self.signals.notify_portals_changed();
        for lane in lanes {
            self.signals.wake(lane);
        }
    }

    /// Cancels the portal requests of a room that has no portal yet.
    async fn cancel_requests(
        &self,
        room: &Place,
        end: Option<&ChannelRef>,
    ) -> Result<String, store::Error> {
        let mut requests = self.store.portal_requests().await?;
        requests.retain(|request| {
            request.room == *room && end.is_none_or(|end| is_end(&request.spec, end))
        });
        for request in &requests {
            self.store.delete_portal_request(request.id).await?;
        }
        let text = if requests.is_empty() {
            "That room has no such link."
        } else {
            "The request to link the room was cancelled."
        };
        Ok(text.to_owned())
    }

    /// Executes `pause`.
    pub(super) async fn pause(
        &self,
        question: &store::Command,
        command: &Command,
        named: &RoomRef,
        now: Millis,
    ) -> Result<Reply, store::Error> {
        let target = match self
            .resolve_target(question, command, PortalAction::Pause, named)
            .await?
        {
            Ok(target) => target,
            Err(text) => return Ok(Reply::Refuse(text)),
        };
        let portals = self.portals_of(&target.room, None).await?;
        for portal in &portals {
            self.store.pause(portal.id, &command.sender.id, now).await?;
        }
        crash_points::point("portal.paused");
        let text = if portals.is_empty() {
            "That room is not linked."
        } else {
            "Paused. Messages wait, in both directions, until `!bridge resume`."
        };
        Ok(Reply::Say(text.to_owned()))
    }

    /// Executes `resume`.
    pub(super) async fn resume(
        &self,
        question: &store::Command,
        command: &Command,
        named: &RoomRef,
        now: Millis,
    ) -> Result<Reply, store::Error> {
        let target = match self
            .resolve_target(question, command, PortalAction::Pause, named)
            .await?
        {
            Ok(target) => target,
            Err(text) => return Ok(Reply::Refuse(text)),
        };
        let portals = self.portals_of(&target.room, None).await?;
        let here = &question.place;
        let mut left = Vec::new();
        for portal in &portals {
            for lane in self.store.resume(portal.id).await? {
                self.signals.wake(lane);
            }
            let holds = self.store.portal_holds(now).await?;
            let holds = holds.iter().filter(|(id, _)| *id == portal.id);
            left.extend(holds.map(|(_, hold)| notices::hold(hold, portal, here, now)));
        }
        Ok(Reply::Say(match (portals.is_empty(), left.as_slice()) {
            (true, _) => "That room is not linked.".to_owned(),
            (false, []) => "Resumed.".to_owned(),
            (false, left) => left.join("\n"),
        }))
    }
}

/// Turns a failed request into the text to reply; an error of the bridge's own store stays an error.
pub(super) fn failure_reply<T>(
    result: Result<T, BackendError>,
) -> Result<Result<T, String>, store::Error> {
    match result {
        Ok(found) => Ok(Ok(found)),
        Err(BackendError::Store(error)) => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// The payload of a notice.
pub(super) fn payload(text: &str, now: Millis) -> Vec<u8> {
    // A notice is plain data, so that serializing it cannot fail.
    Message::notice(text, now).to_bytes().unwrap_or_default()
}

/// Whether the portal has this channel.
pub(super) fn is_end(spec: &PortalSpec, end: &ChannelRef) -> bool {
    spec.silo == end.silo && spec.channel.eq_ignore_ascii_case(&end.channel)
}

fn name_of(portal: &Portal) -> String {
    notices::destination(&portal.spec)
}

#[cfg(test)]
#[path = "portals_tests.rs"]
mod tests;
