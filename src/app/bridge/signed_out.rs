//! An account whose token was refused: asked for now and then, because it may only have been switched off for a while.

use std::time::Duration;

use footbridge_silo::Silo;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// After this time it is asked for the first time; each time after that takes twice as long, up to the second part.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(15);
/// How often everybody looks whether the account is refused.
const LOOK: Duration = Duration::from_secs(2);

/// An account that was refused and is accepted again has to stay so for this time. One part of a silo, or a proxy before it, may
/// refuse what another accepts; each such refusal is followed by a longer wait, and none of them is said again.
const PROVEN: Duration = Duration::from_mins(1);

/// How long it is waited before each time that it is asked.
fn waits() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST), |wait| Some((*wait * 2).min(LONGEST)))
}

/// What is looked after.
trait Account {
    /// Whether it was refused.
    fn is_refused(&self) -> bool;
    /// Asks whether it is accepted.
    fn is_accepted(&self) -> impl Future<Output = bool> + Send;
    /// It is accepted, so that it may be used.
    fn again(&self);
    /// It has been used since, and was not refused.
    fn proven(&self);
}

/// The account of a silo.
struct Of<'a>(&'a dyn Silo);

impl Account for Of<'_> {
    fn is_refused(&self) -> bool {
        self.0.is_signed_out()
    }

    async fn is_accepted(&self) -> bool {
        self.0.whoami().await.is_ok()
    }

    fn again(&self) {
        self.0.signed_in();
    }

    fn proven(&self) {
        self.0.proven();
        info!("The silo accepts the account again");
    }
}

/// Looks after an account until told to stop: while its token is refused, asks now and then whether it is accepted again.
pub(super) async fn look_after(silo: &dyn Silo, stop: &CancellationToken) {
    attend(&Of(silo), stop).await;
}

async fn attend(account: &impl Account, stop: &CancellationToken) {
    let mut next = waits();
    let mut accepted: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        if account.is_refused() {
            if !accepted_again(account, &mut next, stop).await {
                return;
            }
            accepted = Some(Instant::now());
        } else if accepted.is_some_and(|since| since.elapsed() >= PROVEN) {
            accepted = None;
            next = waits();
            account.proven();
        }
    }
}

/// Waits until the account is accepted again; answers whether it is: not when told to stop.
async fn accepted_again(
    account: &impl Account,
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
pub(super) async fn no_longer(silo: &dyn Silo, stop: &CancellationToken) -> bool {
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(LOOK) => {}
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

    impl Account for Turning {
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

        fn proven(&self) {
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
                () = attend(&account, &stop) => {}
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
            let at = waits().scan(Duration::ZERO, |at, wait| {
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
