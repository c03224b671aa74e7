//! Installs Synapse: a virtual environment below `target/`, filled from `PyPI` once and then reused.
//! `FOOTBRIDGE_SYNAPSE_PYTHON` names the Python of another environment that has Synapse already.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, bail};

/// The release of Synapse that every run uses.
pub const VERSION: &str = "1.163.2";

/// The oldest Python that this release of Synapse supports.
const OLDEST_PYTHON: (u32, u32) = (3, 10);

const CONSTRAINTS: &str = include_str!("../../synapse-constraints.txt");

/// The Python interpreter of an environment with Synapse, installed now if it is missing.
///
/// Blocks, for about a minute if it has to install. Several processes may call it at once: one installs, the others
/// wait.
pub fn python() -> anyhow::Result<PathBuf> {
    if let Some(python) = std::env::var_os("FOOTBRIDGE_SYNAPSE_PYTHON") {
        return Ok(PathBuf::from(python));
    }
    install_into(&target_directory().join("testbed"))
}

/// Whether [`python`] returns without installing anything.
#[must_use]
pub fn is_installed() -> bool {
    std::env::var_os("FOOTBRIDGE_SYNAPSE_PYTHON").is_some()
        || python_in(&home_in(&target_directory().join("testbed"))).exists()
}

fn target_directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace.join(directory),
        None => workspace.join("target"),
    }
}

fn home_in(directory: &Path) -> PathBuf {
    directory.join(format!("synapse-{VERSION}"))
}

fn python_in(home: &Path) -> PathBuf {
    home.join("bin/python")
}

fn install_into(directory: &Path) -> anyhow::Result<PathBuf> {
    let home = home_in(directory);
    let python = python_in(&home);
    if python.exists() {
        return Ok(python);
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let lock = File::create(directory.join("synapse.lock"))
        .context("cannot create the lock for installing Synapse")?;
    lock.lock()
        .context("cannot lock the installation of Synapse")?;
    if python.exists() {
        return Ok(python);
    }
    let base = find_python()?;
    // Built next to its final path and then renamed, so that the directory is complete whenever it exists.
    let scratch = tempfile::Builder::new()
        .prefix("synapse-partial-")
        .tempdir_in(directory)?;
    let fresh = scratch.path().join("venv");
    create_environment(&base, &fresh)?;
    install_synapse(&fresh, scratch.path())?;
    fs::rename(&fresh, &home)
        .with_context(|| format!("cannot move Synapse to {}", home.display()))?;
    Ok(python)
}

fn find_python() -> anyhow::Result<PathBuf> {
    let candidates = [
        "python3",
        "python3.14",
        "python3.13",
        "python3.12",
        "python3.11",
        "python3.10",
        "python",
    ]
    .map(PathBuf::from);
    choose_python(&candidates, version_of)
}

fn choose_python(
    candidates: &[PathBuf],
    version_of: impl Fn(&Path) -> Option<(u32, u32)>,
) -> anyhow::Result<PathBuf> {
    let mut too_old = None;
    for candidate in candidates {
        match version_of(candidate) {
            Some(version) if version >= OLDEST_PYTHON => return Ok(candidate.clone()),
            Some(version) => too_old = too_old.or(Some((candidate, version))),
            None => {}
        }
    }
    let (major, minor) = OLDEST_PYTHON;
    match too_old {
        Some((python, (is_major, is_minor))) => bail!(
            "Python {major}.{minor} or newer is needed for the throwaway Synapse, but {} is {is_major}.{is_minor}",
            python.display()
        ),
        None => bail!(
            "Python {major}.{minor} or newer is needed for the throwaway Synapse, and no python3 was found"
        ),
    }
}

fn version_of(python: &Path) -> Option<(u32, u32)> {
    let output = Command::new(python)
        .args(["-c", "import sys; print(*sys.version_info[:2])"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn create_environment(base: &Path, fresh: &Path) -> anyhow::Result<()> {
    let output = run(
        base,
        [OsStr::new("-m"), OsStr::new("venv"), fresh.as_os_str()],
    )?;
    if output.status.success() {
        return Ok(());
    }
    let words = output_end(&output);
    if words.contains("ensurepip") || words.contains("No module named venv") {
        bail!(
            "{} cannot create a virtual environment: its venv module is not complete (on Debian and Ubuntu: apt \
             install python3-venv)\n\
             {words}",
            base.display()
        );
    }
    bail!("{} -m venv failed\n{words}", base.display())
}

fn install_synapse(environment: &Path, scratch: &Path) -> anyhow::Result<()> {
    let constraints = scratch.join("constraints.txt");
    fs::write(&constraints, CONSTRAINTS)?;
    let wanted = format!("matrix-synapse=={VERSION}");
    let install: [&OsStr; 6] = [
        OsStr::new("-m"),
        OsStr::new("pip"),
        OsStr::new("install"),
        OsStr::new("--quiet"),
        OsStr::new("--disable-pip-version-check"),
        OsStr::new(&wanted),
    ];
    let python = python_in(environment);
    let pinned = install
        .into_iter()
        .chain([OsStr::new("--constraint"), constraints.as_os_str()]);
    if run(&python, pinned)?.status.success() {
        return Ok(());
    }
    // Some Python versions have no build of a tested version; Synapse's own requirements then decide.
    let output = run(&python, install)?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "pip could not install {wanted}; is PyPI reachable?\n{}",
        output_end(&output)
    )
}

fn run<'a>(
    program: &Path,
    arguments: impl IntoIterator<Item = &'a OsStr>,
) -> anyhow::Result<Output> {
    Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))
}

/// The last lines of a command's output, stdout and stderr.
fn output_end(output: &Output) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = lines.len().saturating_sub(15);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(versions: &[(&str, Option<(u32, u32)>)]) -> anyhow::Result<PathBuf> {
        let candidates: Vec<PathBuf> = versions
            .iter()
            .map(|(name, _)| PathBuf::from(name))
            .collect();
        choose_python(&candidates, |python| {
            versions
                .iter()
                .find(|(name, _)| Path::new(name) == python)
                .and_then(|(_, version)| *version)
        })
    }

    #[test]
    fn the_first_python_that_is_new_enough_is_taken() {
        let python = chosen(&[
            ("a", None),
            ("b", Some((3, 9))),
            ("c", Some((3, 10))),
            ("d", Some((3, 12))),
        ])
        .unwrap();
        assert_eq!(python, Path::new("c"));
    }

    #[test]
    fn a_missing_and_an_old_python_give_different_errors() {
        let old = chosen(&[("python3", Some((3, 9))), ("python", Some((2, 7)))])
            .unwrap_err()
            .to_string();
        assert!(old.contains("python3 is 3.9"), "{old}");
        let missing = chosen(&[("python3", None)]).unwrap_err().to_string();
        assert!(missing.contains("no python3 was found"), "{missing}");
    }

    #[test]
    fn a_broken_environment_names_the_command_that_failed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = create_environment(&find_python().unwrap(), &file.join("venv"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("-m venv failed"), "{error}");
    }
}
