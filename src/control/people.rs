//! What people decide about themselves, and about whom to trust.

use footbridge_store::{self as store, Millis, Scope};

use super::{Control, Reply, is_by, may::Act, order::Reach, portals::told};
use crate::{crash, message::Command};

impl Control {
    /// Somebody's messages stay here.
    pub(super) async fn opt_out(
        &self,
        question: &store::Command,
        command: &Command,
        reach: Reach,
        now: Millis,
    ) -> Result<Reply, store::Error> {
        let dropped = self
            .store
            .opt_out(
                &question.place,
                &command.sender.id,
                scope(reach),
                is_by,
                now,
            )
            .await?;
        crash::point("person.opted");
        let place = match reach {
            Reach::Here => "here",
            Reach::Everywhere => "in every room",
        };
        let waited = match dropped {
            0 => String::new(),
            1 => " 1 that was waiting is not sent any more.".to_owned(),
            count => format!(" {count} that were waiting are not sent any more."),
        };
        Ok(Reply::Say(format!(
            "What you write {place} is not carried to the other side.{waited} What crossed before stays there until you \
             delete it. `!bridge optout off` takes this back."
        )))
    }

    /// They cross again.
    pub(super) async fn opt_in(
        &self,
        question: &store::Command,
        command: &Command,
        reach: Reach,
    ) -> Result<Reply, store::Error> {
        let (place, user) = (&question.place, command.sender.id.as_str());
        self.store.opt_in(place, user, scope(reach)).await?;
        let still = self
            .store
            .opted_out(vec![(place.clone(), user.to_owned())])
            .await?;
        Ok(Reply::Say(if still.contains(&true) {
            "Your choice for every room still holds here: `!bridge optout off everywhere` takes it back.".to_owned()
        } else {
            "From now on what you write here is carried to the other side.".to_owned()
        }))
    }

    /// Somebody who may says that a user's new identity is to be trusted.
    pub(super) async fn trust(
        &self,
        asked: (&store::Command, &Command),
        user: &str,
    ) -> Result<Reply, store::Error> {
        if let Err(text) = self.matter(asked, Act::Trust, &None).await? {
            return Ok(Reply::Refuse(text));
        }
        let approved = self.outside.approve(user).await;
        Ok(Reply::Say(match told(approved)? {
            Ok(0) => format!("The present identity of {user} is trusted."),
            Ok(held) => {
                format!(
                    "The present identity of {user} is trusted; {held} of their messages follow."
                )
            }
            Err(text) => text,
        }))
    }
}

fn scope(reach: Reach) -> Scope {
    match reach {
        Reach::Here => Scope::Here,
        Reach::Everywhere => Scope::Everywhere,
    }
}
