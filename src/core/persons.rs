//! Persons who have an account on both sides, as the configuration says. Only they can be mentioned across the bridge: by the id
//! that the other side mentioned, never by a word that looks like a name (C04).

use std::sync::Arc;

use footbridge_store::Side;

use crate::{
    message::{Action, Message},
    text::{Body, Inline},
};

/// The known cross-signing identities of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserIdentities {
    /// The pinned public master key: the identity by which the bridge trusts the user.
    pub pinned: Option<String>,
    /// Other identities that were seen, each with the number of messages on hold for it.
    pub changed: Vec<(String, u64)>,
}

/// `[[person]]`: a Matrix user who has this account on a silo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The Matrix user id.
    pub user: String,
    /// The silo, by its name in the configuration.
    pub silo: String,
    /// The account name there, without the `@`.
    pub account: String,
}

/// All persons of the configuration.
#[derive(Clone, Debug, Default)]
pub struct People(Arc<Vec<Person>>);

impl People {
    /// The table of these persons.
    #[must_use]
    pub fn new(people: Vec<Person>) -> Self {
        Self(Arc::new(people))
    }

    /// The message with its mentions resolved to persons that the target side knows. `silo` is the one at the other end of the
    /// room.
    #[must_use]
    pub fn resolve_mentions(&self, message: &Message, silo: &str, toward: Side) -> Message {
        let mut message = message.clone();
        if let Action::Post { body, .. } | Action::Edit { body, .. } = &mut message.action
            && !self.0.is_empty()
        {
            self.resolve_in(body, silo, toward);
        }
        message
    }

    fn resolve_in(&self, body: &mut Body, silo: &str, toward: Side) {
        let on_silo = || self.0.iter().filter(|person| person.silo == silo);
        body.visit_runs(&mut |line| {
            for inline in line {
                let Inline::Mention { id, name } = inline else {
                    continue;
                };
                let resolved = match toward {
                    Side::Silo => on_silo()
                        .find(|person| person.user == *id)
                        .map(|person| &person.account),
                    Side::Matrix => on_silo()
                        .find(|person| person.account.eq_ignore_ascii_case(id))
                        .map(|person| &person.user),
                };
                if let Some(resolved) = resolved {
                    *inline = Inline::Ping {
                        id: resolved.clone(),
                        name: std::mem::take(name),
                    };
                }
            }
        });
    }
}

/// Whether the operator has named this user (`[admin] users`): by user id, or by a server all of whose users are admins.
#[must_use]
pub fn is_admin(users: &[String], user: &str) -> bool {
    let server = user.split_once(':').map(|(_, server)| server);
    users.iter().any(|named| {
        if named.starts_with('@') {
            named == user
        } else {
            user.starts_with('@') && server.is_some_and(|server| server.eq_ignore_ascii_case(named))
        }
    })
}

#[cfg(test)]
mod tests {
    use footbridge_store::Millis;

    use super::*;
    use crate::{
        message::{Sender, Style},
        text::Block,
    };

    fn post(line: Vec<Inline>) -> Message {
        Message {
            sender: Sender::bridge(),
            sent_at: Millis(0),
            files: Vec::new(),
            action: Action::Post {
                body: Body(vec![Block::Quote(vec![Block::Paragraph(line)])]),
                style: Style::Text,
                reply_to: None,
                thread: None,
            },
        }
    }

    fn mention(id: &str) -> Inline {
        Inline::Mention {
            id: id.to_owned(),
            name: "Ann".to_owned(),
        }
    }

    #[test]
    fn c04_only_ids_of_the_table_mention_and_only_on_their_silo() {
        let people = People::new(vec![Person {
            user: "@ann:x".to_owned(),
            silo: "mm".to_owned(),
            account: "ann.b".to_owned(),
        }]);
        let called = |inline: Inline, silo: &str, toward| {
            let line = vec![Inline::Bold(vec![inline])];
            let message = people.resolve_mentions(&post(line), silo, toward);
            let Action::Post { mut body, .. } = message.action else {
                panic!("a post");
            };
            let mut found = None;
            body.visit_runs(&mut |line| {
                for inline in line {
                    if let Inline::Ping { id, .. } = inline {
                        found = Some(id.clone());
                    }
                }
            });
            found
        };
        assert_eq!(
            called(mention("@ann:x"), "mm", Side::Silo).as_deref(),
            Some("ann.b")
        );
        assert_eq!(
            called(mention("Ann.B"), "mm", Side::Matrix).as_deref(),
            Some("@ann:x")
        );
        for (inline, silo, toward) in [
            (mention("@ann:x"), "gitter", Side::Silo),
            (mention("@ann:y"), "mm", Side::Silo),
            (mention("ann.b"), "mm", Side::Silo),
            (mention("@ann:x"), "mm", Side::Matrix),
            (Inline::Text("@ann.b Ann".to_owned()), "mm", Side::Matrix),
            (Inline::Code("@ann.b".to_owned()), "mm", Side::Matrix),
        ] {
            assert_eq!(called(inline, silo, toward), None);
        }
    }

    #[test]
    fn p14_nobody_is_listed_by_default_and_a_server_means_all_its_users() {
        let users = ["@me:example.org".to_owned(), "Friends.example".to_owned()];
        for (user, listed) in [
            ("@me:example.org", true),
            ("@Me:example.org", false),
            ("@you:example.org", false),
            ("@you:friends.example", true),
            ("@you:evil.friends.example", false),
            ("@you:friends.example:8448", false),
            ("@a:b:friends.example", false),
            ("friends.example", false),
            ("x:friends.example", false),
            ("", false),
        ] {
            assert_eq!(is_admin(&users, user), listed, "{user}");
            assert!(!is_admin(&[], user));
        }
    }
}
