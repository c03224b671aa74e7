//! An account whose token was refused: asked for now and then, because it may only have been switched off for a while.

use std::time::Duration;

use footbridge_silo::Silo;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// After this time it is asked for the first time; each time after that takes twice as long, up to the second part.
const FIRST_CHECK: Duration = Duration::from_secs(10);
const MAX_CHECK_PAUSE: Duration = Duration::from_mins(15);
/// How often everybody looks whether the account is refused.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// An account that was refused and is accepted again has to stay so for this time. One part of a silo, or a proxy before it, may
/// refuse what another accepts; each such refusal is followed by a longer wait, and none of them is said again.
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// How long it is waited before each time that it is asked.
fn retry_delays() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_CHECK), |wait| {
        Some((*wait * 2).min(MAX_CHECK_PAUSE))
    })
}

/// What is looked after.
trait AccountProbe {
    /// Whether it was refused.
    fn is_refused(&self) -> bool;
    /// Asks whether it is accepted.
    fn is_accepted(&self) -> impl Future<Output = bool> + Send;
    /// It is accepted, so that it may be used.
    fn again(&self);
    /// It has been used since, and was not refused.
    fn note_stable(&self);
}

/// The account of a silo.
struct SiloAccount<'a>(&'a dyn Silo);

impl AccountProbe for SiloAccount<'_> {
    fn is_refused(&self) -> bool {
        self.0.is_signed_out()
    }

    async fn is_accepted(&self) -> bool {
        self.0.whoami().await.is_ok()
    }

    fn again(&self) {
        self.0.note_signed_in();
    }

    fn note_stable(&self) {
        self.0.note_stable();
        info!("The silo accepts the account's token again");
    }
}

/// Looks after an account until told to stop: while its token is refused, asks now and then whether it is accepted again.
pub(super) async fn watch_account(silo: &dyn Silo, stop: &CancellationToken) {
    recover_account(&SiloAccount(silo), stop).await;
}

async fn recover_account(account: &impl AccountProbe, stop: &CancellationToken) {
    let mut next = retry_delays();
    let mut accepted: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(CHECK_INTERVAL) => {}
        }
        if account.is_refused() {
            if !wait_accepted(account, &mut next, stop).await {
                return;
            }
            accepted = Some(Instant::now());
        } else if accepted.is_some_and(|since| since.elapsed() >= STABLE_AFTER) {
            accepted = None;
            next = retry_delays();
            account.note_stable();
        }
    }
}

/// Waits until the account is accepted again; answers whether it is: not when told to stop.
async fn wait_accepted(
    account: &impl AccountProbe,
    waits: &mut (impl Iterator<Item = Duration> + Send),
    stop: &CancellationToken,
) -> bool {
    for wait in waits {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(wait) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            accepted = account.is_accepted() => if accepted {
                break;
            },
        }
    }
    account.again();
    true
}

/// Waits until the account is no longer known to be refused; answers whether it is so: not when told to stop.
pub(super) async fn wait_not_refused(silo: &dyn Silo, stop: &CancellationToken) -> bool {
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(CHECK_INTERVAL) => {}
        }
        if !silo.is_signed_out() {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// An account that says that it is accepted, and, while `turns`, is refused as soon as it is used.
    #[derive(Default)]
    struct Turning {
        turns: AtomicBool,
        refused: AtomicBool,
        asked: AtomicUsize,
        proven: AtomicUsize,
    }

    impl AccountProbe for Turning {
        fn is_refused(&self) -> bool {
            self.refused.load(Ordering::Relaxed)
        }

        async fn is_accepted(&self) -> bool {
            self.asked.fetch_add(1, Ordering::Relaxed);
            true
        }

        fn again(&self) {
            let turns = self.turns.load(Ordering::Relaxed);
            self.refused.store(turns, Ordering::Relaxed);
        }

        fn note_stable(&self) {
            self.proven.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_that_is_accepted_and_refused_in_turns_is_asked_ever_more_slowly() {
        let account = Turning::default();
        account.turns.store(true, Ordering::Relaxed);
        account.refused.store(true, Ordering::Relaxed);
        let stop = CancellationToken::new();
        let within = async |time| {
            tokio::select! {
                () = recover_account(&account, &stop) => {}
                () = sleep(time) => {}
            }
            (
                account.asked.swap(0, Ordering::Relaxed),
                account.proven.swap(0, Ordering::Relaxed),
            )
        };
        let (asked, proven) = within(Duration::from_hours(24)).await;
        assert!((90..=104).contains(&asked) && proven == 0, "{asked}");
        account.turns.store(false, Ordering::Relaxed);
        assert_eq!(within(Duration::from_mins(1)).await, (1, 0));
        account.refused.store(true, Ordering::Relaxed);
        assert_eq!(within(Duration::from_mins(5)).await, (1, 1));
    }

    #[test]
    fn a_refused_token_is_tried_again_ever_more_slowly() {
        let within = |time: Duration| {
            let at = retry_delays().scan(Duration::ZERO, |at, wait| {
                *at += wait;
                Some(*at)
            });
            at.take_while(|at| *at <= time).count()
        };
        assert_eq!(within(Duration::from_secs(11)), 1);
        assert_eq!(within(Duration::from_mins(5)), 4);
        let a_day = within(Duration::from_hours(24));
        assert!((96..=104).contains(&a_day), "{a_day}");
    }
}
