//! An account whose token was refused: asked for now and then, because it may only have been switched off for a while.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::silo::Silo;

/// After this time it is asked for the first time; each time after that takes twice as long, up to the second part.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(15);
/// How often everybody looks whether the account is refused.
const LOOK: Duration = Duration::from_secs(2);

/// How long it is waited before each time that it is asked.
fn waits() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST), |wait| Some((*wait * 2).min(LONGEST)))
}

/// Looks after an account until told to stop: while its token is refused, asks now and then whether it is accepted again.
pub(super) async fn look_after(silo: &dyn Silo, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        if silo.is_signed_out() && !accepted_again(silo, stop).await {
            return;
        }
    }
}

/// Waits until the silo accepts the account again; answers whether it does: not when told to stop.
async fn accepted_again(silo: &dyn Silo, stop: &CancellationToken) -> bool {
    for wait in waits() {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(wait) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            asked = silo.whoami() => if asked.is_ok() {
                break;
            },
        }
    }
    silo.signed_in();
    info!("The silo accepts the account again");
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
    use super::*;

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
