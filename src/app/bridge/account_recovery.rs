//! Recovery of a silo account whose token was refused: the bridge asks the silo now and then whether it accepts the
//! token again, because the account may have been disabled for a while only.

use std::time::Duration;

use footbridge_silo::Silo;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The first check comes after this time; each further pause is twice as long, up to [`MAX_CHECK_PAUSE`].
const FIRST_CHECK: Duration = Duration::from_secs(10);
const MAX_CHECK_PAUSE: Duration = Duration::from_mins(15);
/// How often each task checks whether the account is marked as refused.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A refused account that is accepted again has to stay accepted for this time. One part of a silo, or a proxy in front
/// of it, may refuse what another part accepts; after each such refusal the pause is longer, and none of them is logged
/// again.
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// The pauses before each check.
fn retry_delays() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_CHECK), |wait| {
        Some((*wait * 2).min(MAX_CHECK_PAUSE))
    })
}

/// The account as the recovery sees it.
trait AccountProbe {
    /// Whether the silo has refused it.
    fn is_refused(&self) -> bool;
    /// Asks the silo whether it accepts the account.
    fn is_accepted(&self) -> impl Future<Output = bool> + Send;
    /// Marks the account as accepted, so that it is used again.
    fn again(&self);
    /// Notes that the account was used since and was not refused.
    fn note_stable(&self);
}

/// The account of a silo.
struct SiloAccount<'a>(&'a dyn Silo);

impl AccountProbe for SiloAccount<'_> {
    fn is_refused(&self) -> bool {
        self.0.account().is_signed_out()
    }

    async fn is_accepted(&self) -> bool {
        self.0.whoami().await.is_ok()
    }

    fn again(&self) {
        self.0.account().note_signed_in();
    }

    fn note_stable(&self) {
        self.0.account().note_stable();
        info!("The silo accepts the account's token again");
    }
}

/// Watches an account until it is stopped: while its token is refused, asks now and then whether it is accepted
/// again.
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

/// Waits until the account is accepted again. Returns whether it is; `false` when it was stopped.
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

/// Waits until the account is no longer marked as refused. Returns whether that is so; `false` when it was
/// stopped.
pub(super) async fn wait_not_refused(silo: &dyn Silo, stop: &CancellationToken) -> bool {
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(CHECK_INTERVAL) => {}
        }
        if !silo.account().is_signed_out() {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// An account that claims to be accepted, and, while `turns` is set, is refused as soon as it is used.
    #[derive(Default)]
    struct FlappingAccount {
        turns: AtomicBool,
        refused: AtomicBool,
        asked: AtomicUsize,
        proven: AtomicUsize,
    }

    impl AccountProbe for FlappingAccount {
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
        let account = FlappingAccount::default();
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
