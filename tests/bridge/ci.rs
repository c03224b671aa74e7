//! How `.ci/test` treats failed tests: it runs them once more, alone. A script replaces cargo, and prints what cargo
//! and the test runner print.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

/// The first run: two programs, of which the second fails in three tests.
const FIRST: &str = r"
     Running unittests src/lib.rs (target/debug/deps/footbridge-1)

running 1 test
test one ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out

     Running tests/bridge/main.rs (target/debug/deps/bridge-2)

running 4 tests
test walk::good ... ok
test walk::slow ... FAILED
test walk::bad ... FAILED

failures:

---- walk::slow stdout ----
failures:
a line of the test itself

failures:
    walk::slow
    walk::bad

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out

error: test failed, to rerun pass `-p footbridge --test bridge`
error: 1 target failed:
    `-p footbridge --test bridge`
";

/// Runs `.ci/test` with a fake cargo that first prints this and fails, and then does what `again` says: shell code in
/// which `$*` are the arguments.
fn run(first: &str, again: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    fs::write(place.join("first"), first).unwrap();
    let cargo = place.join("cargo");
    let script = format!(
        "#!/usr/bin/env bash\ncd '{}'\necho \"$*\" >> calls\n\
         if [ \"$*\" = 'test --no-fail-fast' ]; then cat first; exit 101; fi\n{again}\n",
        place.display()
    );
    fs::write(&cargo, script).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o700)).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("bash")
        .arg(root.join(".ci/test"))
        .arg(&cargo)
        .arg("test")
        .output();
    let mut output = output.unwrap();
    output.stdout.extend(fs::read(place.join("calls")).unwrap());
    output
}

const PASSES: &str = "echo 'test result: ok. 1 passed; 0 failed; 0 ignored'; exit 0";

#[test]
fn what_passes_alone_is_flaky_and_does_not_fail_the_run() {
    let output = run(FIRST, PASSES);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    for wanted in [
        "\nFLAKY walk::slow\n",
        "\nFLAKY walk::bad\n",
        "\ntest --test bridge -- --exact walk::slow --test-threads=1\n",
        "\ntest --test bridge -- --exact walk::bad --test-threads=1\n",
    ] {
        assert!(said.contains(wanted), "{wanted} is missing in {said}");
    }
    assert_eq!(said.matches("--exact").count(), 2, "{said}");
}

#[test]
fn what_fails_twice_fails_the_run() {
    let again = format!("case \"$*\" in *walk::bad*) echo 'it is bad'; exit 101;; esac\n{PASSES}");
    let output = run(FIRST, &again);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("\nFLAKY walk::slow\n"), "{said}");
    assert!(!said.contains("FLAKY walk::bad"), "{said}");
    assert!(said.contains("it is bad"), "{said}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("FAILED TWICE walk::bad"), "{errors}");
}

#[test]
fn a_second_run_that_ran_no_test_is_no_pass() {
    let output = run(FIRST, "echo 'test result: ok. 0 passed; 0 failed'; exit 0");
    assert!(!output.status.success());
}

#[test]
fn a_build_failure_or_a_crash_without_a_named_test_fails_the_run() {
    let killed = "     Running tests/bridge/main.rs (target/debug/deps/bridge-2)\n\
                  error: test failed, to rerun pass `-p footbridge --test bridge`\n";
    for first in ["error: could not compile `footbridge`\n", killed] {
        let output = run(first, PASSES);
        assert!(!output.status.success(), "{first}");
    }
}
