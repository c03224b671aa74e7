//! Named points at which a test may kill the process, one at every commit boundary. They do nothing without the cargo feature
//! `testbed`.

/// The environment variable that arms a point: `name` or `name:n` for its n-th passage.
#[cfg(feature = "testbed")]
pub const VARIABLE: &str = "CRASH_POINT";

/// Every point, for tests that must hit them all.
pub const POINTS: &[&str] = &[
    "keys.received",
    "sync.received",
    "accept.before",
    "accept.after",
    "plan.saved",
    "bundle.saved",
    "perform.before",
    "perform.after",
    "step.settled",
    "gap.fetched",
    "fill.before",
    "delivery.parked",
    "command.received",
    "command.done",
    "request.saved",
    "request.confirmed",
    "portal.linked",
    "portal.unlinked",
    "portal.paused",
    "consent.given",
    "person.opted-out",
    "room.followed",
    "undecryptable.notified",
    "undecryptable.failed",
    "lease.raised",
    "lease.written",
    "session.refreshed",
    "session.saved",
    "device.replaced",
];

/// Aborts the process here, without unwinding or flushing, if this point is armed.
#[cfg(feature = "testbed")]
pub fn point(name: &'static str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };
    static ARMED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    debug_assert!(POINTS.contains(&name), "a point has a place in the list");
    let armed = ARMED.get_or_init(|| {
        let value = std::env::var(VARIABLE).ok()?;
        let (name, nth) = value.split_once(':').unwrap_or((&value, "1"));
        Some((name.to_owned(), nth.parse().ok()?))
    });
    if let Some((armed, nth)) = armed
        && armed == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
    {
        std::process::abort();
    }
}

/// Does nothing without the feature `testbed`.
#[cfg(not(feature = "testbed"))]
#[inline]
pub fn point(_name: &'static str) {}

/// The type of an event that makes the bridge panic, for tests.
#[cfg(feature = "testbed")]
pub const POISON: &str = "org.footbridge.poison";

/// Panics at an event of that type.
///
/// # Panics
/// At an event of the type [`POISON`]; that is its purpose.
#[cfg(feature = "testbed")]
pub fn poison(event_type: &str) {
    assert!(event_type != POISON, "poisoned by a test");
}

/// Does nothing without the feature `testbed`.
#[cfg(not(feature = "testbed"))]
#[inline]
pub fn poison(_event_type: &str) {}
