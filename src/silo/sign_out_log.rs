//! That an account is signed out is said once, and only by a bridge that runs: a command that looks says it by its answer.

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
};

/// Who says it.
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

    /// The account is let in again, and stays so: the next time is news.
    pub fn over(&self) {
        self.said.store(false, Ordering::Relaxed);
    }

    /// Says it of this silo, with what its fault says of the cure. Answers whether it did.
    pub fn say(&self, silo: &str, fault: &impl Display) -> bool {
        let says = self.runs.load(Ordering::Relaxed) && !self.said.swap(true, Ordering::Relaxed);
        if says {
            tracing::error!(silo.name = %silo,
                "{fault}, then start the bridge again. Where the account was only switched off, switch it on: the bridge \
                 looks now and then, and goes on by itself. Until then this silo's messages wait");
        }
        says
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_and_by_a_bridge_that_runs() {
        let sign_out = SignOutLog::default();
        assert!(!sign_out.say("gitter", &"renew the token"));
        sign_out.runs();
        assert!(sign_out.say("gitter", &"renew the token"));
        assert!(!sign_out.say("gitter", &"renew the token"));
        sign_out.over();
        assert!(sign_out.say("gitter", &"renew the token"));
    }
}
