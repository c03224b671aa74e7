//! Commands about one's own messages (`optout`), and about whom to trust.

use footbridge_core::{
    crash_points,
    inbox::is_retraction,
    message::{Command, Message},
    persons::UserIdentities,
};
use footbridge_store::{self as store, Millis, ParkedDelivery, Scope};

use super::{
    Control, Reply, is_by, parse::OptOutScope, permissions::PortalAction, portals::failure_reply,
};

impl Control {
    /// Executes `optout`.
    pub(super) async fn opt_out(
        &self,
        question: &store::Command,
        command: &Command,
        reach: OptOutScope,
        now: Millis,
    ) -> Result<Reply, store::Error> {
        let dropped = self
            .store
            .opt_out(
                &question.place,
                &command.sender.id,
                scope(reach),
                speaks,
                now,
            )
            .await?;
        crash_points::point("person.opted-out");
        let place = match reach {
            OptOutScope::Here => "here",
            OptOutScope::Everywhere => "in every room",
        };
        let waited = match dropped {
            0 => String::new(),
            1 => " 1 waiting message is not sent.".to_owned(),
            count => format!(" {count} waiting messages are not sent."),
        };
        Ok(Reply::Say(format!(
            "Your messages {place} are not relayed.{waited} Messages relayed before stay on the other side until you \
             delete them. `!bridge optout off` undoes this."
        )))
    }

    /// Executes `optout off`.
    pub(super) async fn opt_in(
        &self,
        question: &store::Command,
        command: &Command,
        reach: OptOutScope,
    ) -> Result<Reply, store::Error> {
        let (place, user) = (&question.place, command.sender.id.as_str());
        self.store.opt_in(place, user, scope(reach)).await?;
        let still = self
            .store
            .opted_out(vec![(place.clone(), user.to_owned())])
            .await?;
        Ok(Reply::Say(if still.contains(&true) {
            "Your opt-out for every room still applies here: `!bridge optout off everywhere` undoes it.".to_owned()
        } else {
            "From now on your messages here are relayed.".to_owned()
        }))
    }

    /// The failed messages that may be retried: not those of authors who have opted out since.
    pub(super) async fn may_cross<'p>(
        &self,
        kept: &[&'p ParkedDelivery],
    ) -> Result<Vec<&'p ParkedDelivery>, store::Error> {
        let mut allowed = Vec::new();
        for parked in kept {
            let payload = parked.payload.as_deref().unwrap_or_default();
            let is_kept_back = match Message::from_bytes(payload) {
                Ok(message) if !is_retraction(&message) => {
                    let user = &message.sender.id;
                    self.store
                        .is_failed_author_opted_out(parked.id, user)
                        .await?
                }
                _ => false,
            };
            if !is_kept_back {
                allowed.push(*parked);
            }
        }
        Ok(allowed)
    }

    /// Executes `trust`: an admin says which identity of a user to trust. Without a key nothing is decided: the
    /// identity that is shown now need not be the one that the admin got a notice about.
    pub(super) async fn trust(
        &self,
        question: &store::Command,
        command: &Command,
        user: &str,
        key: Option<&str>,
    ) -> Result<Reply, store::Error> {
        if let Err(text) = self
            .resolve_target(question, command, PortalAction::Trust, &None)
            .await?
        {
            return Ok(Reply::Refuse(text));
        }
        if let Some(key) = key {
            match failure_reply(self.backend.approve(user, key).await)? {
                Ok(Some(held)) => return Ok(Reply::Say(accepted(user, key, held))),
                Ok(None) => {}
                Err(text) => return Ok(Reply::Say(text)),
            }
        }
        let known = failure_reply(self.backend.identities(user).await)?;
        Ok(Reply::Say(match known {
            Ok(known) => choices(user, key, &known),
            Err(text) => text,
        }))
    }
}

fn accepted(user: &str, key: &str, held: u64) -> String {
    let follow = match held {
        0 => String::new(),
        1 => " 1 held message is relayed now.".to_owned(),
        held => format!(" {held} held messages are relayed now."),
    };
    format!("The identity of {user} with the key `{key}` is trusted, and no other.{follow}")
}

/// The identities of a user that could be trusted, and how.
fn choices(user: &str, asked: Option<&str>, known: &UserIdentities) -> String {
    let unknown =
        asked.map(|key| format!("I have seen no identity of {user} with the key `{key}`."));
    let pinned = known.pinned.as_ref();
    let trusted =
        pinned.map(|key| format!("The identity of {user} with the key `{key}` is trusted."));
    let others = match (&known.changed[..], pinned) {
        ([], Some(_)) => "I have seen no other.".to_owned(),
        ([], None) => format!("I have seen no identity of {user}."),
        _ => format!(
            "Ask {user} outside this chat for the key of their identity, and repeat the command with it:"
        ),
    };
    let sentences: Vec<_> = unknown.into_iter().chain(trusted).chain([others]).collect();
    let each = known.changed.iter().map(|(key, held)| {
        let messages = if *held == 1 {
            "message is"
        } else {
            "messages are"
        };
        format!("`!bridge trust {user} {key}` ({held} {messages} held)")
    });
    let lines: Vec<_> = [sentences.join(" ")].into_iter().chain(each).collect();
    lines.join("\n")
}

/// Whether a payload has content of this person. A deletion or a removed reaction has none, and is relayed all
/// the same.
fn speaks(payload: &[u8], user: &str) -> bool {
    is_by(payload, user)
        && Message::from_bytes(payload).is_ok_and(|message| !is_retraction(&message))
}

fn scope(reach: OptOutScope) -> Scope {
    match reach {
        OptOutScope::Here => Scope::Here,
        OptOutScope::Everywhere => Scope::Everywhere,
    }
}

#[cfg(test)]
mod tests {
    use footbridge_core::message::Action;
    use footbridge_store::RemoteId;

    use super::*;

    #[test]
    fn deletions_of_a_person_who_opted_out_are_relayed() {
        let payload = |action: Action| {
            let mut message = Message::notice("", Millis(1));
            message.sender.id = "@ann:x".to_owned();
            message.action = action;
            message.to_bytes().unwrap()
        };
        let (target, key) = (RemoteId::from("$1"), "👍".to_owned());
        let reacted = Action::React {
            target: target.clone(),
            key: key.clone(),
        };
        let (reaction, unreacted) = (target.clone(), Action::Unreact { target, key });
        assert!(speaks(&payload(reacted.clone()), "@ann:x"));
        assert!(!speaks(&payload(reacted), "@bob:x"));
        let deleted = Action::Delete { target: reaction };
        for takes_back in [unreacted, deleted] {
            assert!(!speaks(&payload(takes_back), "@ann:x"));
        }
    }

    #[test]
    fn p02_trust_without_a_key_changes_nothing_and_lists_the_identities() {
        let user = "@ann:x";
        let mut known = UserIdentities::default();
        assert_eq!(
            choices(user, None, &known),
            "I have seen no identity of @ann:x."
        );
        known.pinned = Some("a".into());
        let trusted = "The identity of @ann:x with the key `a` is trusted.";
        assert_eq!(
            choices(user, None, &known),
            format!("{trusted} I have seen no other.")
        );
        known.changed = vec![("b".into(), 1), ("c".into(), 0)];
        let said = choices(user, Some("d"), &known);
        let seen = "I have seen no identity of @ann:x with the key `d`.";
        assert!(
            said.starts_with(&format!("{seen} {trusted} Ask @ann:x")),
            "{said}"
        );
        let lines: Vec<_> = said.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "`!bridge trust @ann:x b` (1 message is held)",
                "`!bridge trust @ann:x c` (0 messages are held)"
            ]
        );
        let said = accepted(user, "b", 2);
        assert!(
            said.contains("`b` is trusted, and no other. 2 held messages are relayed now."),
            "{said}"
        );
    }
}
