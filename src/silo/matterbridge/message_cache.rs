//! What the bridge learns about Matterbridge only by listening: its own account's name, the gateways that exist, and
//! the newest messages, in which it finds codes.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::api::Event;
use crate::Poster;

/// How many messages of all gateways are kept, in memory.
const CAPACITY: usize = 200;
/// The longest text that is kept, in bytes: codes are short.
const MAX_TEXT: usize = 200;
/// How many names of gateways are kept.
const MAX_GATEWAYS: usize = 1_000;

/// What the bridge has learnt.
#[derive(Default)]
pub struct Observed(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    account: Option<String>,
    active: HashSet<String>,
    doubted: HashSet<String>,
    newest: VecDeque<(String, String, String)>,
}

/// How the account in a response compares with the known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountCheck {
    /// It is the known one, or the response does not name it.
    AsKnown,
    /// It differs from the configured one, and this is new.
    Differs,
}

impl Observed {
    /// With the account's name, if it was configured.
    pub fn of(account: Option<String>) -> Self {
        Self(Mutex::new(Inner {
            account,
            ..Inner::default()
        }))
    }

    /// The account's name, if it is known.
    pub fn account(&self) -> Option<String> {
        self.inner().account.clone()
    }

    /// A response named the account.
    pub fn learn(&self, account: &str) -> AccountCheck {
        let mut inner = self.inner();
        if account.is_empty() || inner.account.as_deref() == Some(account) {
            return AccountCheck::AsKnown;
        }
        let differs = inner.account.is_some();
        inner.account = Some(account.to_owned());
        if differs {
            AccountCheck::Differs
        } else {
            AccountCheck::AsKnown
        }
    }

    /// Whether the bridge sent this itself.
    pub fn is_echo(&self, event: &Event) -> bool {
        event.protocol == "api" && self.inner().account.as_deref() == Some(&event.account)
    }

    /// A message of this gateway arrived. Returns whether it is the first one.
    pub fn has_gateway(&self, gateway: &str) -> bool {
        let mut inner = self.inner();
        inner.active.len() < MAX_GATEWAYS && inner.active.insert(gateway.to_owned())
    }

    /// Matterbridge accepted a message for this gateway. Returns, once, whether none ever arrived from it: Matterbridge
    /// also accepts messages for gateways that do not exist.
    pub fn is_unconfirmed(&self, gateway: &str) -> bool {
        let mut inner = self.inner();
        !inner.active.contains(gateway) && inner.doubted.insert(gateway.to_owned())
    }

    /// Keeps a message for [`Observed::find`].
    pub fn keep(&self, event: &Event) {
        let text = event.text.trim();
        if text.is_empty() || text.len() > MAX_TEXT {
            return;
        }
        let mut inner = self.inner();
        if inner.newest.len() >= CAPACITY {
            inner.newest.pop_front();
        }
        let kept = (
            event.gateway.clone(),
            text.to_owned(),
            event.username.clone(),
        );
        inner.newest.push_back(kept);
    }

    /// Who recently wrote exactly this text in the gateway.
    pub fn find(&self, gateway: &str, text: &str) -> Option<Poster> {
        let inner = self.inner();
        let mut newest = inner.newest.iter().rev();
        let (.., name) = newest.find(|(place, kept, _)| place == gateway && kept == text)?;
        Some(Poster {
            name: name.trim().to_owned(),
            // Matterbridge does not tell.
            is_admin: None,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(gateway: &str, text: &str) -> Event {
        Event {
            gateway: gateway.to_owned(),
            text: text.to_owned(),
            username: "Bob".to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn an_echo_is_known_by_account_and_protocol() {
        let known = Observed::default();
        let mut own = event("gw", "x");
        (own.account, own.protocol) = ("api.us".to_owned(), "api".to_owned());
        assert!(!known.is_echo(&own));
        assert_eq!(known.learn("api.us"), AccountCheck::AsKnown);
        assert!(known.is_echo(&own));
        own.protocol = "irc".to_owned();
        assert!(!known.is_echo(&own));
    }

    #[test]
    fn a_wrong_account_in_the_configuration_is_noticed_once() {
        let known = Observed::of(Some("api.them".to_owned()));
        assert_eq!(known.learn(""), AccountCheck::AsKnown);
        assert_eq!(known.learn("api.us"), AccountCheck::Differs);
        assert_eq!(known.learn("api.us"), AccountCheck::AsKnown);
    }

    #[test]
    fn a_gateway_without_any_message_is_warned_about_once() {
        let known = Observed::default();
        assert!(known.has_gateway("gw") && !known.has_gateway("gw") && !known.is_unconfirmed("gw"));
        assert!(known.is_unconfirmed("gv") && !known.is_unconfirmed("gv"));
    }

    #[test]
    fn a_code_is_found_where_it_was_posted_among_the_newest() {
        let known = Observed::default();
        known.keep(&event("gw", " code \n"));
        assert_eq!(known.find("gw", "code").unwrap().name, "Bob");
        assert!(known.find("gv", "code").is_none());
        for number in 0..CAPACITY {
            known.keep(&event("gw", &number.to_string()));
        }
        assert!(known.find("gw", "code").is_none());
    }
}
