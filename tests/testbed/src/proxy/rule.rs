//! What a proxy does to which requests, how often, and how often it did.

use std::time::Duration;

use axum::http::Method;
use rand::Rng as _;
use rand::rngs::StdRng;

pub use crate::gitter::Cut;

/// Which requests a rule is about.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    method: Option<Method>,
    parts: Vec<String>,
    not: Vec<String>,
}

impl Matcher {
    /// Every request.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Requests with this method.
    #[must_use]
    pub fn of(method: Method) -> Self {
        Self {
            method: Some(method),
            ..Self::default()
        }
    }

    /// Only those whose path and query contain this.
    #[must_use]
    pub fn with(mut self, part: &str) -> Self {
        self.parts.push(part.to_owned());
        self
    }

    /// Only those whose path and query do not contain this.
    #[must_use]
    pub fn without(mut self, part: &str) -> Self {
        self.not.push(part.to_owned());
        self
    }

    /// New events in Matrix rooms.
    #[must_use]
    pub fn sends() -> Self {
        Self::of(Method::PUT).with("/send/")
    }

    /// New messages in Gitter's channels.
    #[must_use]
    pub fn posts() -> Self {
        Self::of(Method::POST).with("/chatMessages")
    }

    /// Whether a request is meant.
    #[must_use]
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.parts.iter().all(|part| path.contains(part.as_str()))
            && !self.not.iter().any(|part| path.contains(part.as_str()))
    }
}

/// The body of an answer that nobody upstream gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// As a homeserver words its errors.
    Matrix,
    /// As a load balancer does.
    Html,
    /// Nothing.
    Empty,
}

/// One thing that can go wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The work is done, and its answer never comes.
    DropReply(Cut),
    /// Nobody upstream ever hears of it.
    DropRequest(Cut),
    /// It is done twice; the first answer is given.
    Duplicate,
    /// It waits this long before it goes on; drawn anew between the two each time.
    Delay(Duration, Duration),
    /// The work is done, and its answer waits this long.
    DelayReply(Duration, Duration),
    /// An answer with this status, and no work done.
    Status {
        /// The HTTP status.
        status: u16,
        /// Its body.
        page: Page,
        /// More headers.
        headers: Vec<(&'static str, String)>,
        /// What a Matrix error says about waiting, in milliseconds.
        retry_after_ms: Option<u64>,
        /// The work is done all the same.
        after_work: bool,
    },
    /// The answer's body ends after this many bytes, and the connection with it.
    CutAfter(usize, Cut),
    /// The answer's body trickles: so many bytes, then this pause.
    Trickle(usize, Duration),
    /// The work is done, and its answer is noise of this many bytes under status 200.
    Garbage(usize),
}

impl Fault {
    /// A status with a body of this kind, and no work done.
    #[must_use]
    pub fn status(status: u16, page: Page) -> Self {
        Self::Status {
            status,
            page,
            headers: Vec::new(),
            retry_after_ms: None,
            after_work: false,
        }
    }
}

/// A fault, whom it strikes and how often.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The name under which it is counted.
    pub name: &'static str,
    /// Whom it strikes.
    pub when: Matcher,
    /// What happens.
    pub fault: Fault,
    /// The share of matching requests that it strikes.
    pub chance: f64,
    /// How often it strikes at most; none: for ever.
    pub times: Option<u64>,
}

impl Rule {
    /// Strikes each matching request.
    #[must_use]
    pub fn always(name: &'static str, when: Matcher, fault: Fault) -> Self {
        Self {
            name,
            when,
            fault,
            chance: 1.0,
            times: None,
        }
    }

    /// Strikes this share of matching requests.
    #[must_use]
    pub fn sometimes(name: &'static str, when: Matcher, fault: Fault, chance: f64) -> Self {
        Self {
            chance: chance.clamp(0.0, 1.0),
            ..Self::always(name, when, fault)
        }
    }

    /// Strikes the next so many matching requests.
    #[must_use]
    pub fn times(name: &'static str, when: Matcher, fault: Fault, times: u64) -> Self {
        Self {
            times: Some(times),
            ..Self::always(name, when, fault)
        }
    }

    /// Whether it strikes this request; it counts as struck then.
    pub(super) fn applies(&mut self, method: &Method, path: &str, dice: &mut StdRng) -> bool {
        let live = self.times.is_none_or(|times| times > 0);
        if !live || !self.when.matches(method, path) || !dice.random_bool(self.chance) {
            return false;
        }
        self.times = self.times.map(|times| times - 1);
        true
    }
}
