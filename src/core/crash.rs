//! Named points at which a test may kill the process, one at every commit boundary. Without the cargo feature
//! `testbed` they are nothing.

/// The environment variable that arms a point: `name` or `name:n` for its n-th passage.
#[cfg(feature = "testbed")]
pub const VARIABLE: &str = "CRASH_POINT";

/// Every point there is, for tests that want to hit them all.
pub const POINTS: &[&str] = &[
    "keys.held",
    "sync.received",
    "accept.before",
    "accept.after",
    "plan.kept",
    "group.kept",
    "perform.before",
    "perform.after",
    "step.settled",
    "gap.fetched",
    "fill.before",
    "failed.parked",
    "command.heard",
    "command.done",
    "wish.kept",
    "wish.proven",
    "portal.linked",
    "portal.unlinked",
    "portal.paused",
    "consent.given",
    "person.opted",
    "room.followed",
    "unread.told",
    "unread.failed",
    "lease.raised",
    "lease.written",
    "session.refreshed",
    "session.kept",
    "device.replaced",
];

/// Dies here, without unwinding or flushing, if this point is armed.
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

/// Nothing.
#[cfg(not(feature = "testbed"))]
#[inline]
pub fn point(_name: &'static str) {}

/// The type of an event that breaks the bridge, for tests.
#[cfg(feature = "testbed")]
pub const POISON: &str = "org.footbridge.poison";

/// Panics at the event that is made for it.
///
/// # Panics
/// That is what it is for.
#[cfg(feature = "testbed")]
pub fn poison(event_type: &str) {
    assert!(event_type != POISON, "poisoned by a test");
}

/// Nothing.
#[cfg(not(feature = "testbed"))]
#[inline]
pub fn poison(_event_type: &str) {}
