//! Hardening before anything else runs: no files that others may read (P22), and no dumps of the process memory (P23).

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, setrlimit, umask},
};

use crate::config::{Diagnostic, Exit};

/// Makes every new file private to this user, whatever the shell's umask was, and keeps crashes, debuggers of the same
/// user and `/proc` from showing the memory, which contains keys and texts in the clear.
pub fn harden() -> Result<(), Diagnostic> {
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)
        .and_then(|()| forbid_dumps())
        .map_err(|error| {
            Diagnostic::new("B35", format!("core dumps cannot be disabled: {error}"))
                .exit(Exit::Permission)
                .help("allow this process prctl and setrlimit")
        })
}

#[cfg(target_os = "linux")]
fn forbid_dumps() -> rustix::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

#[cfg(not(target_os = "linux"))]
fn forbid_dumps() -> rustix::io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn p23_nothing_of_the_process_is_dumped() {
        harden().unwrap();
        assert!(matches!(
            dumpable_behavior().unwrap(),
            DumpableBehavior::NotDumpable
        ));
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    }
}
