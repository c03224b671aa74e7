//! Logs that an account is signed out once, and only in a running bridge: other commands report it themselves.

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether it was logged, and whether the bridge runs.
#[derive(Debug, Default)]
pub struct SignOutLog {
    runs: AtomicBool,
    said: AtomicBool,
}

impl SignOutLog {
    /// The bridge runs from now on.
    pub fn runs(&self) {
        self.runs.store(true, Ordering::Relaxed);
    }

    /// The silo accepts the account again, and keeps doing so: the next refusal is logged.
    pub fn over(&self) {
        self.said.store(false, Ordering::Relaxed);
    }

    /// Logs it for this silo, with the remedy from its error. Returns whether it did.
    pub fn say(&self, silo: &str, error: &impl Display) -> bool {
        let logs = self.runs.load(Ordering::Relaxed) && !self.said.swap(true, Ordering::Relaxed);
        if logs {
            tracing::error!(silo.name = %silo,
                "{error}, then restart the bridge. If the account was only deactivated, activate it: the bridge \
                 checks periodically and continues by itself. Until then this silo's messages wait");
        }
        logs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_out_is_logged_once_and_only_by_a_running_bridge() {
        let sign_out = SignOutLog::default();
        assert!(!sign_out.say("gitter", &"renew the token"));
        sign_out.runs();
        assert!(sign_out.say("gitter", &"renew the token"));
        assert!(!sign_out.say("gitter", &"renew the token"));
        sign_out.over();
        assert!(sign_out.say("gitter", &"renew the token"));
    }
}
