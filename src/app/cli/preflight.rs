//! What can be seen before anything is opened or made: the state of directories, who we run as, the admin
//! address. Looks only; touches nothing.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tokio::net::TcpSocket;

use super::diagnostics;
use crate::config::{
    AdminConfig, Config, Diagnostic, Exit, Report, StoreConfig, secret_file::own_user,
};

/// Refuses what must not be opened, and warns of what should not be. For commands that open the store.
pub fn before_opening(config: &Config) -> Result<(), Report> {
    let mut faults = store(&config.store);
    faults.extend(key(&config.store));
    if faults.is_empty() {
        if let Some(warning) = root() {
            super::console::tell(&Report::of(warning));
        }
        return Ok(());
    }
    Err(config.report(faults))
}

/// Running as root gives every fault of the program the whole machine.
pub fn root() -> Option<Diagnostic> {
    (own_user() == Some(0)).then(|| {
        Diagnostic::new("B32", "footbridge runs as root")
            .warning()
            .help("run it as a user of its own")
    })
}

/// What is wrong with the places of the store.
pub fn store(config: &StoreConfig) -> Vec<Diagnostic> {
    let mut faults: Vec<Diagnostic> = directory(&config.path).into_iter().collect();
    let parents = [&config.path, &config.key_file].map(|path| parent_of(path));
    let [data, key] = &parents;
    faults.extend(open_parent(data));
    if key != data {
        faults.extend(open_parent(key));
    }
    faults
}

/// Refuses a store whose key is gone. A new key could not open it, and would hide what is really missing.
pub fn key(config: &StoreConfig) -> Option<Diagnostic> {
    let inhabited = std::fs::read_dir(&config.path).is_ok_and(|mut found| found.next().is_some());
    let gone = config
        .key_file
        .symlink_metadata()
        .is_err_and(|error| error.kind() == ErrorKind::NotFound);
    (inhabited && gone).then(|| {
        Diagnostic::new(
            "B18",
            format!(
                "the key file `{}` does not exist, but the store `{}` does",
                config.key_file.display(),
                config.path.display()
            ),
        )
        .exit(Exit::NoInput)
        .help("put back the key file that the store was made with (`[store] key_file`)")
    })
}

fn directory(path: &Path) -> Option<Diagnostic> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(facts) if !facts.is_dir() => Some(
            Diagnostic::new("B15", format!("the data directory `{shown}` is a file"))
                .exit(Exit::CannotCreate)
                .help("let `[store] path` name a directory, or nothing yet"),
        ),
        Ok(facts) => unusable(path, &facts),
        Err(error) if error.kind() == ErrorKind::NotFound => cannot_be_made(path),
        Err(error) => Some(diagnostics::from_store_error(
            &footbridge_store::Error::Io {
                path: path.to_owned(),
                source: error,
            },
        )),
    }
}

fn unusable(path: &Path, facts: &std::fs::Metadata) -> Option<Diagnostic> {
    let shown = path.display();
    let own = own_user()?;
    if own == 0 {
        return None;
    }
    if facts.uid() != own {
        return Some(
            Diagnostic::new("B15", format!("the data directory `{shown}` belongs to user {}, not to user {own} who runs footbridge", facts.uid()))
                .exit(Exit::Permission)
                .help("run footbridge as that user, or change the owner with chown -R"),
        );
    }
    (facts.mode() & 0o300 != 0o300).then(|| {
        Diagnostic::new(
            "B15",
            format!(
                "the data directory `{shown}` is not writable (mode {:04o})",
                facts.mode() & 0o777
            ),
        )
        .exit(Exit::Permission)
        .help(format!("chmod 700 {shown}"))
    })
}

// The nearest directory above that exists must let us make the rest.
fn cannot_be_made(path: &Path) -> Option<Diagnostic> {
    let mut above = parent_of(path);
    while let Err(error) = std::fs::metadata(&above) {
        if error.kind() != ErrorKind::NotFound
            || above.as_os_str() == "/"
            || above == Path::new(".")
        {
            break;
        }
        above = parent_of(&above);
    }
    let facts = std::fs::metadata(&above).ok()?;
    let shown = above.display();
    if !facts.is_dir() {
        return Some(
            Diagnostic::new(
                "B15",
                format!("the data directory cannot be made: `{shown}` is a file"),
            )
            .exit(Exit::CannotCreate)
            .help("let `[store] path` name a directory that can be made"),
        );
    }
    let own = own_user()?;
    let may = own == 0
        || if facts.uid() == own {
            facts.mode() & 0o200 != 0
        } else {
            facts.mode() & 0o022 != 0
        };
    (!may).then(|| {
        Diagnostic::new(
            "B15",
            format!(
                "the data directory cannot be made: `{shown}` is not writable (mode {:04o})",
                facts.mode() & 0o777
            ),
        )
        .exit(Exit::CannotCreate)
        .help(format!(
            "make {} yourself and give it to user {own}",
            path.display()
        ))
    })
}

// Whoever may write to the directory above may put another in our place. Where the sticky bit is set, nobody may
// rename what is not theirs.
fn open_parent(parent: &Path) -> Option<Diagnostic> {
    let facts = std::fs::metadata(parent).ok()?;
    let mode = facts.mode();
    (facts.is_dir() && mode & 0o002 != 0 && mode & 0o1000 == 0).then(|| {
        let shown = parent.display();
        Diagnostic::new(
            "B15",
            format!(
                "everybody may write to `{shown}` (mode {:04o}), and so replace what is in it",
                mode & 0o1777
            ),
        )
        .exit(Exit::Permission)
        .help(format!("chmod o-w {shown}"))
    })
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether the admin address can be listened on now.
pub fn admin(config: &AdminConfig) -> Result<(), Diagnostic> {
    bound(config.listen)
        .map(drop)
        .map_err(|error| cannot_listen(config.listen, &error))
}

/// The address, taken but not listened on: who listens on it refuses this, and this refuses nobody, neither a bridge that
/// starts at the moment nor another look.
fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Diagnostic {
    match error.kind() {
        ErrorKind::AddrInUse => {
            diagnostics::address_in_use(&format!("the admin address {address} is in use"))
        }
        ErrorKind::PermissionDenied => Diagnostic::new(
            "B31",
            format!("the admin address {address} may not be listened on"),
        )
        .exit(Exit::Permission)
        .help("choose a port above 1023 in `[admin] listen`"),
        _ => Diagnostic::new(
            "B31",
            format!("the admin address {address} cannot be listened on: {error}"),
        )
        .exit(Exit::Unavailable)
        .help("let `[admin] listen` be an address of this machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn b31_only_who_listens_on_the_admin_address_has_it() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let other_look = bound(listen).unwrap();
        let listen = other_look.local_addr().unwrap();
        let config = AdminConfig {
            listen,
            users: Vec::new(),
        };
        admin(&config).unwrap();
        let starting = tokio::net::TcpListener::bind(listen).await.unwrap();
        assert_eq!(admin(&config).unwrap_err().exit, Exit::Unavailable);
        drop((other_look, starting));
        admin(&config).unwrap();
    }
}
