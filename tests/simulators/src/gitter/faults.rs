//! Faults that a test can inject: per route for the API, per port for open connections, and by switches for the two
//! realtime feeds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::{
    call_faults::Fault,
    connections::{Cut, OpenConnections},
};

/// When the sender gets the event of their own message, relative to the response of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Echo {
    /// The event arrives this much before the response, as it often did.
    Before {
        /// Milliseconds.
        ms: u64,
    },
    /// Both at the same time.
    With,
    /// The event arrives this much after the response.
    After {
        /// Milliseconds.
        ms: u64,
    },
}

/// How the HTTP stream frames its lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, set by name over the control port"
)]
pub struct Framing {
    /// Lines end in `\r\n`.
    pub crlf: bool,
    /// A keep-alive is sent in the same chunk as the message after it.
    pub glue_keepalive: bool,
    /// Every message is split into chunks at odd places, inside a multi-byte UTF-8 character if there is one.
    pub split: bool,
    /// Messages wait until this many can be sent in one chunk. 0 and 1 mean at once.
    pub coalesce: usize,
    /// Every line is sent twice.
    pub duplicate: bool,
    /// Neighbouring messages are swapped, two by two.
    pub swap: bool,
    /// Keep-alives are sent, messages are not.
    pub mute: bool,
}

struct ArmedFault {
    route: String,
    fault: Fault,
    /// How often it still applies; `None`: without a limit.
    times: Option<u32>,
    probability: f64,
}

struct ArmedFaults {
    rng: StdRng,
    plans: Vec<ArmedFault>,
    framing: Framing,
    keepalive_burst: u64,
    echo: Echo,
    /// The number of deliveries that are numbered and not sent.
    skip: u64,
    muted: bool,
    /// Sessions created before this generation are unknown.
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

    /// Arms a fault for the next `times` calls of a route, such as `POST /rooms/:id/chatMessages`, `STREAM
    /// /rooms/:id/chatMessages`, `BAYEUX upgrade`, `BAYEUX post`, `BAYEUX /meta/subscribe`, or `*` for all. Single
    /// Bayeux messages support statuses and drops only.
    pub fn next(&self, route: &str, fault: Fault, times: u32) {
        self.armed().plans.push(ArmedFault {
            route: route.to_owned(),
            fault,
            times: Some(times),
            probability: 1.0,
        });
    }

    /// Arms a fault that occurs with this probability until cleared. The seed decides when.
    pub fn sometimes(&self, route: &str, fault: Fault, probability: f64) {
        self.armed().plans.push(ArmedFault {
            route: route.to_owned(),
            fault,
            times: None,
            probability: probability.clamp(0.0, 1.0),
        });
    }

    /// Disarms everything except the echo order and chunked requests; cut connections stay cut.
    pub fn clear(&self) {
        let mut armed = self.armed();
        armed.plans.clear();
        armed.framing = Framing::default();
        armed.keepalive_burst = 0;
        armed.skip = 0;
        armed.muted = false;
    }

    /// The fault for this call, if one is armed.
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

    /// Sets how the HTTP stream frames its lines, also for streams that are open already.
    pub fn set_framing(&self, framing: Framing) {
        self.armed().framing = framing;
    }

    pub(super) fn framing(&self) -> Framing {
        self.armed().framing
    }

    /// The next open stream that sends a keep-alive sends this many at once.
    pub fn burst_keepalives(&self, count: u64) {
        self.armed().keepalive_burst = count;
    }

    /// How many keep-alives to send now: one, unless a burst is armed.
    pub(super) fn take_keepalives(&self) -> u64 {
        std::mem::take(&mut self.armed().keepalive_burst).max(1)
    }

    /// Cuts the open API connections; returns how many there were.
    pub fn cut_api(&self, how: Cut) -> usize {
        self.api.cut_all(how)
    }

    /// Cuts the open HTTP streams; returns how many there were.
    pub fn cut_streams(&self, how: Cut) -> usize {
        self.stream.cut_all(how)
    }

    /// Cuts the open Bayeux connections; returns how many there were.
    pub fn cut_realtime(&self, how: Cut) -> usize {
        self.realtime.cut_all(how)
    }

    /// The next `count` Bayeux deliveries are numbered in `ext.c` and not sent.
    pub fn skip_deliveries(&self, count: u64) {
        self.armed().skip = count;
    }

    /// Bayeux replies to messages and delivers no event, without a gap in the numbers.
    pub fn mute_realtime(&self, muted: bool) {
        self.armed().muted = muted;
    }

    pub(super) fn muted(&self) -> bool {
        self.armed().muted
    }

    /// Whether this delivery is numbered and not sent.
    pub(super) fn loses_delivery(&self) -> bool {
        let mut armed = self.armed();
        let lost = armed.skip > 0;
        armed.skip = armed.skip.saturating_sub(1);
        lost
    }

    /// Drops every Bayeux session of the service.
    pub fn expire_sessions(&self) {
        self.armed().age += 1;
    }

    pub(super) fn age(&self) -> u64 {
        self.armed().age
    }

    /// Accepts requests with `Transfer-Encoding: chunked`, as the service did until January 2020.
    pub fn allow_chunked(&self, allowed: bool) {
        self.armed().chunked = allowed;
    }

    pub(super) fn chunked_allowed(&self) -> bool {
        self.armed().chunked
    }

    /// Sets the order of echo and response.
    pub fn set_echo(&self, echo: Echo) {
        self.armed().echo = echo;
    }

    pub(super) fn echo(&self) -> Echo {
        self.armed().echo
    }
}
