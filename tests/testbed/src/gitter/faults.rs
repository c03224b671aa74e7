//! What is made to go wrong, and when: per route for the API, per port for open connections, and by switches for the two realtime feeds.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::connections::{Cut, OpenConnections};

/// One thing that can go wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// Refused with this status and the API's own body; nothing is done.
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// As a load balancer answers: HTML; nothing is done.
    Html {
        /// The HTTP status.
        status: u16,
    },
    /// The work is done, then a load balancer's answer is sent.
    HtmlAfter {
        /// The HTTP status.
        status: u16,
    },
    /// The connection is closed before anything is done.
    DropBefore,
    /// The work is done, then the connection is closed without an answer.
    DropAfter,
    /// The work is done, then the connection is reset.
    ResetAfter,
    /// The connection is closed without an answer, and the work is done this much later all the same.
    Late {
        /// Milliseconds.
        ms: u64,
    },
    /// Nothing happens for this long, then all is well.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The work is done, and its answer comes this much later.
    SlowAnswer {
        /// Milliseconds.
        ms: u64,
    },
}

/// When the sender hears its own message, in relation to the answer of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Echo {
    /// The event comes this much before the answer, as it often did.
    Before {
        /// Milliseconds.
        ms: u64,
    },
    /// Both at once.
    With,
    /// The event comes this much after the answer.
    After {
        /// Milliseconds.
        ms: u64,
    },
}

/// How the HTTP stream frames what it sends.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, set by name over the control port"
)]
pub struct Framing {
    /// Lines end in `\r\n`.
    pub crlf: bool,
    /// A keep-alive shares its chunk with the message after it.
    pub glue_keepalive: bool,
    /// Every message is cut into chunks at odd places, inside a UTF-8 character where there is one.
    pub split: bool,
    /// Messages wait until this many can go out in one chunk. 0 and 1 mean at once.
    pub coalesce: usize,
    /// Every line comes twice.
    pub duplicate: bool,
    /// Neighbours change places, two by two.
    pub swap: bool,
    /// Keep-alives come, messages do not.
    pub mute: bool,
}

struct ArmedFault {
    route: String,
    fault: Fault,
    /// None: for ever.
    times: Option<u32>,
    probability: f64,
}

struct ArmedFaults {
    rng: StdRng,
    plans: Vec<ArmedFault>,
    framing: Framing,
    keepalive_burst: u64,
    echo: Echo,
    /// Deliveries that are numbered and not sent.
    skip: u64,
    muted: bool,
    /// Sessions of an older age are unknown.
    age: u64,
    chunked: bool,
}

/// The faults of one simulator.
pub struct Faults {
    armed: Mutex<ArmedFaults>,
    pub(super) api: OpenConnections,
    pub(super) stream: OpenConnections,
    pub(super) realtime: OpenConnections,
}

impl Faults {
    pub(super) fn new(seed: u64, echo: Echo) -> Self {
        Self {
            armed: Mutex::new(ArmedFaults {
                rng: StdRng::seed_from_u64(seed.wrapping_add(1)),
                plans: Vec::new(),
                framing: Framing::default(),
                keepalive_burst: 0,
                echo,
                skip: 0,
                muted: false,
                age: 0,
                chunked: false,
            }),
            api: OpenConnections::default(),
            stream: OpenConnections::default(),
            realtime: OpenConnections::default(),
        }
    }

    fn armed(&self) -> MutexGuard<'_, ArmedFaults> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a fault for the next `times` calls of a route, such as `POST /rooms/:id/chatMessages`, `STREAM /rooms/:id/chatMessages`,
    /// `BAYEUX upgrade`, `BAYEUX post`, `BAYEUX /meta/subscribe`, or `*` for all. Single Bayeux messages know statuses and drops only.
    pub fn next(&self, route: &str, fault: Fault, times: u32) {
        self.armed().plans.push(ArmedFault {
            route: route.to_owned(),
            fault,
            times: Some(times),
            probability: 1.0,
        });
    }

    /// Arms a fault that strikes with this probability until cleared. The seed decides when.
    pub fn sometimes(&self, route: &str, fault: Fault, probability: f64) {
        self.armed().plans.push(ArmedFault {
            route: route.to_owned(),
            fault,
            times: None,
            probability: probability.clamp(0.0, 1.0),
        });
    }

    /// Disarms everything but the echo order and chunked requests; cut connections stay cut.
    pub fn clear(&self) {
        let mut armed = self.armed();
        armed.plans.clear();
        armed.framing = Framing::default();
        armed.keepalive_burst = 0;
        armed.skip = 0;
        armed.muted = false;
    }

    /// The fault that strikes this call, if any.
    pub(super) fn take(&self, route: &str) -> Option<Fault> {
        let mut guard = self.armed();
        let armed = &mut *guard;
        let rng = &mut armed.rng;
        let plan = armed.plans.iter_mut().find(|plan| {
            let live = plan.times.is_none_or(|times| times > 0);
            let here = plan.route == "*" || plan.route == route;
            live && here && (plan.probability >= 1.0 || rng.random_bool(plan.probability))
        })?;
        if let Some(times) = &mut plan.times {
            *times -= 1;
        }
        let fault = plan.fault;
        armed.plans.retain(|plan| plan.times != Some(0));
        Some(fault)
    }

    /// Sets how the HTTP stream frames its lines, for streams already open too.
    pub fn set_framing(&self, framing: Framing) {
        self.armed().framing = framing;
    }

    pub(super) fn framing(&self) -> Framing {
        self.armed().framing
    }

    /// The next open stream to send a keep-alive sends this many at once.
    pub fn burst_keepalives(&self, count: u64) {
        self.armed().keepalive_burst = count;
    }

    /// How many keep-alives go out now: one, unless a burst is armed.
    pub(super) fn take_keepalives(&self) -> u64 {
        std::mem::take(&mut self.armed().keepalive_burst).max(1)
    }

    /// Disturbs the open API connections; returns how many there were.
    pub fn cut_api(&self, how: Cut) -> usize {
        self.api.cut_all(how)
    }

    /// Disturbs the open HTTP streams.
    pub fn cut_streams(&self, how: Cut) -> usize {
        self.stream.cut_all(how)
    }

    /// Disturbs the open Bayeux connections.
    pub fn cut_realtime(&self, how: Cut) -> usize {
        self.realtime.cut_all(how)
    }

    /// The next `count` Bayeux deliveries are numbered in `ext.c` and lost.
    pub fn skip_deliveries(&self, count: u64) {
        self.armed().skip = count;
    }

    /// Bayeux answers what is asked and delivers no event, without a gap in the numbers.
    pub fn mute_realtime(&self, muted: bool) {
        self.armed().muted = muted;
    }

    pub(super) fn muted(&self) -> bool {
        self.armed().muted
    }

    /// Whether this delivery is lost on its way.
    pub(super) fn loses_delivery(&self) -> bool {
        let mut armed = self.armed();
        let lost = armed.skip > 0;
        armed.skip = armed.skip.saturating_sub(1);
        lost
    }

    /// The service forgets every Bayeux session.
    pub fn expire_sessions(&self) {
        self.armed().age += 1;
    }

    pub(super) fn age(&self) -> u64 {
        self.armed().age
    }

    /// Takes requests with `Transfer-Encoding: chunked`, as the service did until January 2020.
    pub fn allow_chunked(&self, allowed: bool) {
        self.armed().chunked = allowed;
    }

    pub(super) fn chunked_allowed(&self) -> bool {
        self.armed().chunked
    }

    /// Sets the order of echo and answer.
    pub fn set_echo(&self, echo: Echo) {
        self.armed().echo = echo;
    }

    pub(super) fn echo(&self) -> Echo {
        self.armed().echo
    }
}

impl Fault {
    /// How long the work is held up.
    pub(super) fn delay(self) -> Option<Duration> {
        match self {
            Self::Delay { ms } => Some(Duration::from_millis(ms)),
            _ => None,
        }
    }
}
