//! Reads secrets from files: only files that nobody else may read, only text, only short. A byte order mark in front
//! and line ends behind, which editors add, are not part of the secret.

use std::{io::Read, os::unix::fs::MetadataExt, path::Path};

use footbridge_core::secret::Secret;

use super::diagnostic::{Diagnostic, Exit};

/// The largest secret file, in bytes.
const LIMIT: u64 = 4096;

/// Reads a secret, without the newline at its end. `name` is the configuration key that names the file.
pub fn read(name: &str, path: &Path) -> Result<Secret, Diagnostic> {
    let shown = path.display();
    // Opening a pipe would wait for somebody to write into it.
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(name, path, &error))?;
    if !metadata.is_file() {
        return Err(Diagnostic::new(
            "B10",
            format!("`{name}` names {shown}, which is not a file"),
        )
        .help(format!("set `{name}` to a file that holds only the secret")));
    }
    let file = std::fs::File::open(path).map_err(|error| unreadable(name, path, &error))?;
    let metadata = file
        .metadata()
        .map_err(|error| unreadable(name, path, &error))?;
    if let Some(diagnostic) = open_to_others(path, &metadata, "the secret") {
        return Err(diagnostic);
    }
    if metadata.len() > LIMIT {
        return Err(Diagnostic::new(
            "B10",
            format!(
                "{shown} has {} bytes, which is too long for a secret",
                metadata.len()
            ),
        )
        .help(format!(
            "put only the secret into the file; at most {LIMIT} bytes are read"
        )));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(name, path, &error))?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(
            Diagnostic::new("B10", format!("{shown} is UTF-16, not UTF-8"))
                .help("save the file as UTF-8, with only the secret in it"),
        );
    }
    let text =
        zeroize::Zeroizing::new(String::from_utf8(bytes).unwrap_or_else(|_| "\0".to_owned()));
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(Diagnostic::new("B10", format!("{shown} is empty"))
            .help(format!("put the secret for `{name}` into the file")));
    }
    if text.contains(char::is_control) {
        return Err(Diagnostic::new(
            "B10",
            format!("{shown} holds more than one line, or is not text"),
        )
        .help("put the secret on one line, as text"));
    }
    Ok(Secret::new(text.to_owned()))
}

/// A diagnostic where somebody else may read the file. Credentials that systemd passes are in a directory that only the
/// service can enter, so their own mode does not matter.
#[must_use]
pub fn open_to_others(path: &Path, metadata: &std::fs::Metadata, what: &str) -> Option<Diagnostic> {
    if std::env::var_os("CREDENTIALS_DIRECTORY")
        .is_some_and(|directory| path.parent() == Some(Path::new(&directory)))
    {
        return None;
    }
    let shown = path.display();
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Some(
            Diagnostic::new(
                "B08",
                format!("{shown} has mode {mode:04o}: others may read {what}"),
            )
            .exit(Exit::Permission)
            .help(format!("chmod 600 {shown}")),
        );
    }
    let owner = metadata.uid();
    let foreign = own_user().is_some_and(|own| owner != own && owner != 0);
    foreign.then(|| {
        Diagnostic::new(
            "B08",
            format!("{shown} belongs to user {owner}, who may read and change {what}"),
        )
        .exit(Exit::Permission)
        .help(format!("chown this user's name {shown}"))
    })
}

/// The user id of this process, if the system reports it.
#[must_use]
pub fn own_user() -> Option<u32> {
    std::fs::metadata("/proc/self")
        .ok()
        .map(|metadata| metadata.uid())
}

/// How the operator makes a file readable for the user that runs the bridge.
#[must_use]
pub fn to_be_given(path: &Path) -> String {
    let shown = path.display();
    let owner = std::fs::metadata(path).ok().map(|metadata| metadata.uid());
    let how = if owner.is_some_and(|owner| own_user().is_some_and(|own| own != owner)) {
        format!("chown USER {shown}, then chmod 600 {shown}")
    } else {
        format!("chmod 600 {shown}")
    };
    format!("give the file to the user that runs footbridge, with mode 0600: {how}")
}

fn unreadable(name: &str, path: &Path, error: &std::io::Error) -> Diagnostic {
    let shown = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Diagnostic::new("B18", format!("{shown}, named by `{name}`, does not exist"))
                .exit(Exit::NoInput)
                .help(format!(
                    "create the file with the secret in it, then chmod 600 {shown}"
                ))
        }
        std::io::ErrorKind::PermissionDenied => Diagnostic::new(
            "B07",
            format!("{shown}, named by `{name}`, cannot be read: permission denied"),
        )
        .exit(Exit::Permission)
        .help(to_be_given(path)),
        _ => Diagnostic::new(
            "B10",
            format!("{shown}, named by `{name}`, cannot be read: {error}"),
        )
        .exit(Exit::Io)
        .help(format!("set `{name}` to a readable file")),
    }
}
