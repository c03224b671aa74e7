//! Checks before anything is opened or created: the directories, the user that runs the program, the admin address.
//! They change nothing.

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

/// Refuses a store that must not be opened, and warns of what should be changed. For commands that open the store.
pub fn before_opening(config: &Config) -> Result<(), Report> {
    let mut diagnostics = store(&config.store);
    diagnostics.extend(key(&config.store));
    if diagnostics.is_empty() {
        if let Some(warning) = root() {
            super::console::print_report(&Report::of(warning));
        }
        return Ok(());
    }
    Err(config.report(diagnostics))
}

/// As root, every bug of the program affects the whole machine.
pub fn root() -> Option<Diagnostic> {
    (own_user() == Some(0)).then(|| {
        Diagnostic::new("B32", "footbridge runs as root")
            .warning()
            .help("run it as a user of its own")
    })
}

/// What is wrong with the directories of the store and of its key.
pub fn store(config: &StoreConfig) -> Vec<Diagnostic> {
    let mut diagnostics: Vec<Diagnostic> = directory(&config.path).into_iter().collect();
    let parents = [&config.path, &config.key_file].map(|path| parent_of(path));
    let [data, key] = &parents;
    diagnostics.extend(open_parent(data));
    if key != data {
        diagnostics.extend(open_parent(key));
    }
    diagnostics
}

/// Refuses a store whose key file is missing. A new key could not open it, and would hide what is really missing.
pub fn key(config: &StoreConfig) -> Option<Diagnostic> {
    let has_files =
        std::fs::read_dir(&config.path).is_ok_and(|mut entries| entries.next().is_some());
    let is_missing = config
        .key_file
        .symlink_metadata()
        .is_err_and(|error| error.kind() == ErrorKind::NotFound);
    (has_files && is_missing).then(|| {
        Diagnostic::new(
            "B18",
            format!(
                "the key file `{}` does not exist, but the store `{}` does",
                config.key_file.display(),
                config.path.display()
            ),
        )
        .exit(Exit::NoInput)
        .help("restore the key file that the store was created with (`[store] key_file`)")
    })
}

fn directory(path: &Path) -> Option<Diagnostic> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Some(
            Diagnostic::new("B15", format!("the data directory `{shown}` is a file"))
                .exit(Exit::CannotCreate)
                .help("set `[store] path` to a directory, or to a path that does not exist yet"),
        ),
        Ok(metadata) => unusable(path, &metadata),
        Err(error) if error.kind() == ErrorKind::NotFound => cannot_be_made(path),
        Err(error) => Some(diagnostics::from_store_error(
            &footbridge_store::Error::Io {
                path: path.to_owned(),
                source: error,
            },
        )),
    }
}

fn unusable(path: &Path, metadata: &std::fs::Metadata) -> Option<Diagnostic> {
    let shown = path.display();
    let own = own_user()?;
    if own == 0 {
        return None;
    }
    if metadata.uid() != own {
        return Some(
            Diagnostic::new("B15", format!("the data directory `{shown}` belongs to user {}, not to user {own} who runs footbridge", metadata.uid()))
                .exit(Exit::Permission)
                .help("run footbridge as that user, or change the owner with chown -R"),
        );
    }
    (metadata.mode() & 0o300 != 0o300).then(|| {
        Diagnostic::new(
            "B15",
            format!(
                "the data directory `{shown}` is not writable (mode {:04o})",
                metadata.mode() & 0o777
            ),
        )
        .exit(Exit::Permission)
        .help(format!("chmod 700 {shown}"))
    })
}

// The nearest existing directory above must let this user create the others.
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
    let metadata = std::fs::metadata(&above).ok()?;
    let shown = above.display();
    if !metadata.is_dir() {
        return Some(
            Diagnostic::new(
                "B15",
                format!("the data directory cannot be created: `{shown}` is a file"),
            )
            .exit(Exit::CannotCreate)
            .help("set `[store] path` to a directory that can be created"),
        );
    }
    let own = own_user()?;
    let may = own == 0
        || if metadata.uid() == own {
            metadata.mode() & 0o200 != 0
        } else {
            metadata.mode() & 0o022 != 0
        };
    (!may).then(|| {
        Diagnostic::new(
            "B15",
            format!(
                "the data directory cannot be created: `{shown}` is not writable (mode {:04o})",
                metadata.mode() & 0o777
            ),
        )
        .exit(Exit::CannotCreate)
        .help(format!(
            "create {} and give it to user {own}",
            path.display()
        ))
    })
}

// Whoever may write to the parent directory may replace the directory. Where the sticky bit is set, nobody may rename
// what they do not own.
fn open_parent(parent: &Path) -> Option<Diagnostic> {
    let metadata = std::fs::metadata(parent).ok()?;
    let mode = metadata.mode();
    (metadata.is_dir() && mode & 0o002 != 0 && mode & 0o1000 == 0).then(|| {
        let shown = parent.display();
        Diagnostic::new(
            "B15",
            format!(
                "every user can write to `{shown}` (mode {:04o}), and so replace its files",
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

/// Binds the address without listening on it: it fails if another program listens there, and it makes nobody else fail,
/// neither a bridge that starts at the moment nor another check.
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
            format!("listening on the admin address {address} is not permitted"),
        )
        .exit(Exit::Permission)
        .help("choose a port above 1023 in `[admin] listen`"),
        _ => Diagnostic::new(
            "B31",
            format!("cannot listen on the admin address {address}: {error}"),
        )
        .exit(Exit::Unavailable)
        .help("set `[admin] listen` to an address of this machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn b31_only_who_listens_on_the_admin_address_has_it() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let other_check = bound(listen).unwrap();
        let listen = other_check.local_addr().unwrap();
        let config = AdminConfig {
            listen,
            users: Vec::new(),
        };
        admin(&config).unwrap();
        let starting = tokio::net::TcpListener::bind(listen).await.unwrap();
        assert_eq!(admin(&config).unwrap_err().exit, Exit::Unavailable);
        drop((other_check, starting));
        admin(&config).unwrap();
    }
}
