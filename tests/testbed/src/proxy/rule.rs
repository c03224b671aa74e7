//! Rules of a proxy: which fault to inject into which requests, and how often.

use std::time::Duration;

use axum::http::Method;
use rand::Rng as _;
use rand::rngs::StdRng;

pub use footbridge_simulators::connections::Cut;

/// Which requests a rule applies to.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    method: Option<Method>,
    parts: Vec<String>,
    not: Vec<String>,
}

impl Matcher {
    /// Matches every request.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Matches requests with this method.
    #[must_use]
    pub fn of(method: Method) -> Self {
        Self {
            method: Some(method),
            ..Self::default()
        }
    }

    /// Matches only if path and query contain this.
    #[must_use]
    pub fn with(mut self, part: &str) -> Self {
        self.parts.push(part.to_owned());
        self
    }

    /// Matches only if path and query do not contain this.
    #[must_use]
    pub fn without(mut self, part: &str) -> Self {
        self.not.push(part.to_owned());
        self
    }

    /// Matches requests that send events to Matrix rooms.
    #[must_use]
    pub fn sends() -> Self {
        Self::of(Method::PUT).with("/send/")
    }

    /// Matches requests that create messages in Gitter's channels.
    #[must_use]
    pub fn posts() -> Self {
        Self::of(Method::POST).with("/chatMessages")
    }

    /// Whether a request matches.
    #[must_use]
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.parts.iter().all(|part| path.contains(part.as_str()))
            && !self.not.iter().any(|part| path.contains(part.as_str()))
    }
}

/// The body of an error response that the proxy makes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// A Matrix error.
    Matrix,
    /// An HTML page, as load balancers send.
    Html,
    /// An empty body.
    Empty,
}

/// A fault of one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The server handles the request, but the response never arrives.
    DropReply(Cut),
    /// The request never reaches the server.
    DropRequest(Cut),
    /// The request is sent twice; the client gets the first response.
    Duplicate,
    /// The request is delayed; the time is drawn between the two.
    Delay(Duration, Duration),
    /// The server handles the request, and the response is delayed; the time is drawn between the two.
    DelayReply(Duration, Duration),
    /// The client gets this status, and the request never reaches the server.
    Status {
        /// The HTTP status.
        status: u16,
        /// Its body.
        page: Page,
        /// More response headers.
        headers: Vec<(&'static str, String)>,
        /// `retry_after_ms` of a Matrix error.
        retry_after_ms: Option<u64>,
        /// The server handles the request nevertheless.
        after_work: bool,
    },
    /// The response's body ends after this many bytes, and so does the connection.
    CutAfter(usize, Cut),
    /// The response's body arrives slowly: so many bytes, then this pause.
    Trickle(usize, Duration),
    /// The server handles the request; the response is this many random bytes with status 200.
    Garbage(usize),
}

impl Fault {
    /// Responds with a status and a body of this kind, and forwards nothing.
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

/// A fault, the requests that it applies to, and how often.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The name under which its faults are counted.
    pub name: &'static str,
    /// The requests that it applies to.
    pub when: Matcher,
    /// The fault.
    pub fault: Fault,
    /// The share of matching requests that get the fault.
    pub chance: f64,
    /// How often it applies at most; `None`: without a limit.
    pub times: Option<u64>,
}

impl Rule {
    /// Applies to every matching request.
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

    /// Applies to this share of the matching requests.
    #[must_use]
    pub fn sometimes(name: &'static str, when: Matcher, fault: Fault, chance: f64) -> Self {
        Self {
            chance: chance.clamp(0.0, 1.0),
            ..Self::always(name, when, fault)
        }
    }

    /// Applies to the next `times` matching requests.
    #[must_use]
    pub fn times(name: &'static str, when: Matcher, fault: Fault, times: u64) -> Self {
        Self {
            times: Some(times),
            ..Self::always(name, when, fault)
        }
    }

    /// Whether the rule applies to this request; if so, that is counted.
    pub(super) fn applies(&mut self, method: &Method, path: &str, dice: &mut StdRng) -> bool {
        let live = self.times.is_none_or(|times| times > 0);
        if !live || !self.when.matches(method, path) || !dice.random_bool(self.chance) {
            return false;
        }
        self.times = self.times.map(|times| times - 1);
        true
    }
}
