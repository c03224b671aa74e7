//! Commands by which people speak as themselves: an account on a silo that is theirs (`silo login`, `silo logout`), and what the
//! bridge holds for them (`devices`).
//!
//! Only in an encrypted direct message: who can read a code could post it, and would then speak as the person who asked for it.

use std::time::Duration;

use footbridge_core::{inbox::PERSON_CODE, message::Command};
use footbridge_store::{self as store, AccountRole, Millis, PersonCode, Place};
use tracing::info;

use super::{
    Control, LoggedOut, Reply, notices, permissions::PermissionError, portals::failure_reply,
};

/// How long a code is valid.
const CODE_TTL: Duration = Duration::from_mins(10);
/// The reply where others could read what is said.
const NOT_PRIVATE: &str =
    "Send this in a direct message to me, in which nobody else is: what I answer is for you alone.";

impl Control {
    /// Executes `silo login`.
    pub(super) async fn silo_login(
        &self,
        question: &store::Command,
        command: &Command,
        silo: &str,
        now: Millis,
    ) -> Result<Reply, store::Error> {
        if let Err(reply) = self.require_private(question, command).await? {
            return Ok(Reply::Refuse(reply));
        }
        let Some(proves) = self.rules.proving_silos.get(silo) else {
            let known = self.rules.proving_silos.keys();
            let mut names: Vec<&str> = known.map(String::as_str).collect();
            names.sort_unstable();
            return Ok(Reply::Say(format!(
                "No silo `{silo}` is configured. Configured: {}.",
                names.join(", ")
            )));
        };
        if !proves {
            return Ok(Reply::Say(format!(
                "{silo} does not tell me which account has written a message, so nobody can link an account there."
            )));
        }
        let code = self
            .store
            .confirmation_code(&question.place, &question.event_id)
            .await?;
        let code = format!("{PERSON_CODE}{code}");
        self.store
            .save_person_code(PersonCode {
                user_id: command.sender.id.clone(),
                silo: silo.to_owned(),
                code: code.clone(),
                asked_in: question.place.clone(),
                expires_at: now.plus(CODE_TTL),
                proved: None,
            })
            .await?;
        Ok(Reply::Say(format!(
            "Post this on {silo} within 10 minutes, from your own account there, as a message in a channel that I relay. I do not \
             relay the code. Keep it to yourself until then: whoever posts it first speaks as you.\n{code}\n{}",
            notices::LINKED_ACCOUNT
        )))
    }

    /// Executes `silo logout`.
    pub(super) async fn silo_logout(
        &self,
        question: &store::Command,
        command: &Command,
        silo: &str,
    ) -> Result<Reply, store::Error> {
        if question.place.network() != Place::MATRIX {
            return Ok(Reply::Refuse(NOT_PRIVATE.to_owned()));
        }
        let names = self.store.forget_person(&command.sender.id, silo).await?;
        self.signals.notify_accounts_changed();
        Ok(Reply::Say(if names.is_empty() {
            format!("No account on {silo} is linked to you.")
        } else {
            format!(
                "{} on {silo} is no longer linked to you: what it writes is relayed under its name, by me.",
                names.join(", ")
            )
        }))
    }

    /// Executes `logout`: whoever asks gets their own device back, wherever they ask.
    pub(super) async fn log_out(
        &self,
        question: &store::Command,
        command: &Command,
    ) -> Result<Reply, store::Error> {
        if question.place.network() != Place::MATRIX {
            return Ok(Reply::Refuse(NOT_PRIVATE.to_owned()));
        }
        let user = &command.sender.id;
        let accounts = self.store.own_accounts().await?;
        let account = accounts.iter().find(|account| {
            account.role == AccountRole::Personal && account.is_active && account.user_id == *user
        });
        let Some(account) = account else {
            return Ok(Reply::Say("I have no device on your account.".to_owned()));
        };
        let ended = self.backend.log_out(account.id).await;
        self.signals.notify_accounts_changed();
        let device = &account.device_id;
        Ok(Reply::Say(match failure_reply(ended)? {
            Ok(LoggedOut::Revoked) => format!(
                "Device {device} is logged out: your homeserver no longer accepts its token. Its keys are deleted here, and I speak for \
                 you myself again."
            ),
            Ok(LoggedOut::WasGone) => {
                format!("Device {device} had been removed already. Its keys are deleted here.")
            }
            Ok(LoggedOut::Expired) => format!(
                "The session of device {device} has expired, so it cannot log itself out: remove it in your client. Its keys are deleted \
                 here."
            ),
            Err(text) => text,
        }))
    }

    /// Tells people for whom the bridge has begun to speak itself, once each time.
    pub(super) async fn tell_stand_ins(&self) -> Result<(), store::Error> {
        let begun = self.backend.new_stand_ins();
        if begun.is_empty() {
            return Ok(());
        }
        let accounts = self.store.own_accounts().await?;
        let linked = self.store.person_accounts().await?;
        for (id, why) in begun {
            let Some(account) = accounts.iter().find(|account| account.id == id) else {
                continue;
            };
            let mut linked = linked.iter();
            let Some(person) = linked.find(|person| person.user_id == account.user_id) else {
                continue;
            };
            let now = self.clock.now();
            let notice_id = format!("stand-in-{id}-{why:?}-{}", now.0);
            let text = notices::stand_in(why, &account.device_id);
            self.say(&person.told_in, &notice_id, &text).await?;
        }
        Ok(())
    }

    /// Executes `devices`.
    pub(super) async fn devices(
        &self,
        question: &store::Command,
        command: &Command,
    ) -> Result<Reply, store::Error> {
        if let Err(reply) = self.require_private(question, command).await? {
            return Ok(Reply::Refuse(reply));
        }
        let user = &command.sender.id;
        let accounts = self.store.own_accounts().await?;
        let mut lines = Vec::new();
        for account in accounts.iter().filter(|account| {
            account.role == AccountRole::Personal && account.is_active && account.user_id == *user
        }) {
            let state = if self.backend.speaks(account.id) {
                "signed by you; I speak through it"
            } else {
                "not signed by you yet, or not connected; I speak for you myself"
            };
            lines.push(format!(
                "Device {} on your account: {state}.",
                account.device_id
            ));
        }
        if lines.is_empty() {
            lines.push("I have no device on your account.".to_owned());
        }
        let linked = self.store.person_accounts().await?.into_iter();
        for person in linked.filter(|person| person.user_id == *user) {
            lines.push(format!(
                "Linked to you: {} on {}.",
                person.silo_name, person.silo
            ));
        }
        Ok(Reply::Say(lines.join("\n")))
    }

    /// Answers the people whose codes were posted, and those whose codes have expired. Returns whether to check again soon.
    pub(super) async fn check_person_codes(&self) -> Result<bool, store::Error> {
        let mut soon = false;
        for code in self.store.person_codes().await? {
            let text = match &code.proved {
                Some(name) => format!(
                    "{name} on {} has posted the code, and is linked to you. If that is not you: `!bridge silo logout {}`.",
                    code.silo, code.silo
                ),
                None if code.expires_at <= self.clock.now() => format!(
                    "Nobody posted the code on {} in time. Send the command again when you are ready.",
                    code.silo
                ),
                None => {
                    soon = true;
                    continue;
                }
            };
            let notice_id = format!("person-{}", code.code);
            self.say(&code.asked_in, &notice_id, &text).await?;
            self.store.delete_person_code(&code.code).await?;
            info!("Answered a person about an account on a silo");
        }
        Ok(soon)
    }

    /// Checks that a command came encrypted, in a room in which nobody else is. The inner error is the text to reply.
    async fn require_private(
        &self,
        question: &store::Command,
        command: &Command,
    ) -> Result<Result<(), String>, store::Error> {
        if question.place.network() != Place::MATRIX {
            return Ok(Err(NOT_PRIVATE.to_owned()));
        }
        if !command.encrypted {
            return Ok(Err(notices::refusal(PermissionError::NotEncrypted)));
        }
        let private = self
            .backend
            .is_private(&question.place, &command.sender.id)
            .await;
        Ok(match failure_reply(private)? {
            Ok(true) => Ok(()),
            Ok(false) => Err(NOT_PRIVATE.to_owned()),
            Err(text) => Err(text),
        })
    }
}
