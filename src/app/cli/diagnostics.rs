//! Turns every error of the program into a numbered diagnostic with a help text and an exit code. No other file does
//! that.

use std::io::ErrorKind;

use footbridge_core::error_chain;
use footbridge_matrix::MatrixError;
use footbridge_silo::SiloError;
use footbridge_store::Error as StoreError;

use crate::config::{Diagnostic, Exit, Report};

/// What a store error means to the operator.
pub fn from_store_error(error: &StoreError) -> Diagnostic {
    match error {
        StoreError::Locked { pid, since, path } => Diagnostic::new(
            "B19",
            format!("another Footbridge uses `{}`", path.display()),
        )
        .exit(Exit::Locked)
        .note(format!("process {pid}, started {since}"))
        .help(format!(
            "stop it (kill {pid}) and run this again; to run two bridges at once, give each a `[store] path` and an \
             `[admin] listen` of its own"
        )),
        StoreError::WrongKey => Diagnostic::new("B17", "cannot unlock the store: wrong key")
            .exit(Exit::Permission)
            .note("nothing was changed")
            .help("restore the key file that the store was created with (`[store] key_file`)"),
        StoreError::KeyFile { path, reason } => Diagnostic::new(
            "B08",
            format!("the key file {} cannot be used", path.display()),
        )
        .exit(Exit::Permission)
        .help(reason.clone()),
        StoreError::SchemaTooNew { found, known } => Diagnostic::new(
            "B24",
            format!("the store has schema {found}; this program knows schemas up to {known}"),
        )
        .note("nothing was changed")
        .help(
            "run the newer Footbridge that wrote it; a copy from before the upgrade starts again only after \
             footbridge device reset",
        ),
        StoreError::DatabaseMissing { path } => Diagnostic::new(
            "B23",
            format!("the database {} is missing or empty", path.display()),
        )
        .exit(Exit::Io)
        .note("the encryption keys beside it are still there; nothing was changed")
        .help(
            "restore the database; or, if it is lost, move the data directory away, log its device out with another \
             client, and run: footbridge login",
        ),
        StoreError::CorruptFile { path } => damaged(&format!("{} is damaged", path.display())),
        StoreError::CorruptRow { .. } | StoreError::Sqlite { .. } => damaged(&error.to_string()),
        StoreError::Io { path, source } => from_file_error(&path.display().to_string(), source),
    }
}

fn damaged(what: &str) -> Diagnostic {
    Diagnostic::new("B23", what.to_owned())
        .exit(Exit::Io)
        .note("nothing was deleted")
        .help(
            "check the disk; then move the directory away, restore its newest complete copy and run: footbridge \
             device reset",
        )
}

fn from_file_error(path: &str, error: &std::io::Error) -> Diagnostic {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            Diagnostic::new("B15", format!("`{path}` cannot be used: permission denied"))
                .exit(Exit::Permission)
                .help("give it to the user that runs footbridge")
        }
        ErrorKind::ReadOnlyFilesystem => {
            Diagnostic::new("B15", format!("`{path}` is on a read-only file system"))
                .exit(Exit::CannotCreate)
                .help("set `[store] path` to a writable directory")
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            Diagnostic::new("B15", format!("`{path}` cannot be created: {error}"))
                .exit(Exit::CannotCreate)
                .help("set `[store] path` to a directory that can be created")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Diagnostic::new("B25", format!("no space is left for {path}"))
                .exit(Exit::Io)
                .help("free some space and start again; nothing is lost")
        }
        _ => Diagnostic::new("B15", format!("`{path}`: {error}"))
            .exit(Exit::Io)
            .help("check the file system"),
    }
}

/// What an error of the Matrix side means to the operator.
pub fn from_matrix_error(error: &MatrixError) -> Diagnostic {
    match error {
        MatrixError::SignedOut(reason) => Diagnostic::new("B20", format!("the homeserver no longer knows our session: {reason}"))
            .exit(Exit::Permission)
            .note("pending messages stay in the store")
            .help("ask the account's owner or the server's admin why; then `footbridge login`"),
        MatrixError::NoAccount => Diagnostic::new("B20", "nobody is logged in")
            .exit(Exit::Permission)
            .help("footbridge login"),
        MatrixError::Refused(reason) => Diagnostic::new("B20", format!("the homeserver refuses the login: {reason}"))
            .exit(Exit::Permission)
            .help("check `[matrix] user` and the password, then `footbridge login`"),
        MatrixError::PasswordLoginDisabled(instead) => Diagnostic::new("B20", "the homeserver does not offer login by password, and the bridge supports no other")
            .exit(Exit::Permission)
            .note(format!("it offers {instead}; no password was sent"))
            .help("ask the server's admin to allow passwords (with Matrix Authentication Service: `passwords: \
                   enabled`), or use an account on another homeserver"),
        MatrixError::WrongAccount { store, configured } => another_account(store, configured),
        MatrixError::StaleStore(reason) => Diagnostic::new("B22", "the store is older than the state of its device on the homeserver")
            .note(format!("{reason}: an old copy was restored, or the store is in use somewhere else, too"))
            .note("encryption keys must not be used twice, so this copy must never run again; nothing was sent")
            .help("restore the newest copy; if there is none: footbridge device reset"),
        MatrixError::StoreInUse(reason) => Diagnostic::new("B19", reason.clone())
            .exit(Exit::Locked)
            .help("stop the other one first; after it was killed, this one may start two minutes later"),
        MatrixError::Identity(reason) => Diagnostic::new("B21", format!("this device cannot be cross-signed: {reason}"))
            .note("encrypted portals stay closed until it is")
            .help("write the account's recovery key into a file of mode 0600, name it in `[matrix] recovery_key_file`, then `footbridge login`"),
        MatrixError::NoRoom(reason) => Diagnostic::new("B30", format!("a room cannot be found or joined: {reason}"))
            .exit(Exit::Unavailable)
            .help("check `room` in the portal, and invite the bridge's account into the room"),
        MatrixError::DatabaseMissing(path) => Diagnostic::new("B23", format!("the database {} is missing or empty", path.display()))
            .exit(Exit::Io)
            .note("nothing was changed")
            .help("restore the database; or, if it is lost, run: footbridge device reset"),
        MatrixError::CryptoStore(reason) => Diagnostic::new("B17", format!("cannot open the encryption store: {reason}"))
            .exit(Exit::Permission)
            .note("nothing was changed")
            .help("restore the data directory and the key file that belong together"),
        MatrixError::Unavailable(reason) => Diagnostic::new("B13", format!("the homeserver cannot be used: {}", error_chain::format(reason.as_ref())))
            .exit(Exit::Unavailable)
            .help("footbridge check"),
        MatrixError::Store(error) => from_store_error(error),
    }
}

/// The store belongs to another account.
pub fn another_account(store: &str, configured: &str) -> Diagnostic {
    Diagnostic::new(
        "B16",
        format!("the store belongs to {store}, the configuration names {configured}"),
    )
    .note("nothing was changed")
    .help("correct `[matrix] user`, or give each account a `[store] path` of its own")
}

/// What an error of a silo means to the operator.
pub fn from_silo_error(silo: Option<&str>, error: &SiloError) -> Diagnostic {
    let silo = silo.map_or_else(|| "a silo".to_owned(), |name| format!("silo `{name}`"));
    match error {
        SiloError::SignedOut(reason) => Diagnostic::new("B14", format!("{silo} cannot be used: {reason}"))
            .exit(Exit::Permission)
            .help("get a new token from the silo and put it into the token file"),
        SiloError::NoChannel(reason) => Diagnostic::new("B14", format!("{silo} has no such channel for the bridge's account: {reason}"))
            .exit(Exit::Unavailable)
            .help("check the spelling of `channel`, and whether the bridge's account may read and write there"),
        SiloError::Unavailable(reason) => Diagnostic::new("B14", format!("{silo} cannot be used: {}", error_chain::format(reason.as_ref())))
            .exit(Exit::Unavailable)
            .help("check the silo's URLs and this machine's network, then `footbridge check`"),
        SiloError::Store(error) => from_store_error(error),
    }
}

/// What an error of the running bridge means to the operator: its first cause that is known here.
pub fn from_bridge_error(error: &anyhow::Error) -> Diagnostic {
    for cause in error.chain() {
        if let Some(store) = cause.downcast_ref::<StoreError>() {
            return from_store_error(store);
        }
        if let Some(matrix) = cause.downcast_ref::<MatrixError>() {
            return from_matrix_error(matrix);
        }
        if let Some(silo) = cause.downcast_ref::<SiloError>() {
            return from_silo_error(None, silo);
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == ErrorKind::AddrInUse
        {
            return address_in_use(&format!("{error:#}"));
        }
    }
    Diagnostic::new("B00", format!("the bridge stopped: {error:#}"))
        .exit(Exit::Failed)
        .help("pending messages stay in the store; start it again with FOOTBRIDGE_LOG=debug")
}

/// Another program listens on the admin address.
pub fn address_in_use(what: &str) -> Diagnostic {
    Diagnostic::new("B31", what.to_owned())
        .exit(Exit::Unavailable)
        .help("stop the program that listens there, or give this one another `[admin] listen`")
}

impl From<StoreError> for Report {
    fn from(error: StoreError) -> Self {
        Self::of(from_store_error(&error))
    }
}

impl From<MatrixError> for Report {
    fn from(error: MatrixError) -> Self {
        Self::of(from_matrix_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn io(kind: ErrorKind) -> StoreError {
        StoreError::Io {
            path: PathBuf::from("data"),
            source: kind.into(),
        }
    }

    #[test]
    fn every_error_of_the_store_has_a_number_a_code_and_a_way_out() {
        let path = || PathBuf::from("data");
        let table = [
            (
                StoreError::Locked {
                    path: path(),
                    pid: "7".into(),
                    since: "noon".into(),
                },
                "B19",
                Exit::Locked,
            ),
            (StoreError::WrongKey, "B17", Exit::Permission),
            (
                StoreError::KeyFile {
                    path: path(),
                    reason: "chmod 600 data".into(),
                },
                "B08",
                Exit::Permission,
            ),
            (
                StoreError::SchemaTooNew { found: 9, known: 1 },
                "B24",
                Exit::Configuration,
            ),
            (StoreError::CorruptFile { path: path() }, "B23", Exit::Io),
            (
                StoreError::CorruptRow {
                    table: "journal",
                    row: 1,
                },
                "B23",
                Exit::Io,
            ),
            (io(ErrorKind::PermissionDenied), "B15", Exit::Permission),
            (io(ErrorKind::NotFound), "B15", Exit::CannotCreate),
            (io(ErrorKind::NotADirectory), "B15", Exit::CannotCreate),
            (io(ErrorKind::ReadOnlyFilesystem), "B15", Exit::CannotCreate),
            (io(ErrorKind::StorageFull), "B25", Exit::Io),
            (io(ErrorKind::Other), "B15", Exit::Io),
        ];
        for (error, code, exit) in table {
            let diagnostic = from_store_error(&error);
            assert_eq!((diagnostic.code, diagnostic.exit), (code, exit), "{error}");
            assert!(
                diagnostic.help.is_some_and(|help| !help.is_empty()),
                "{error}"
            );
            // The same whether it comes alone, from a side, or from deep in the bridge.
            let code_of_matrix = from_matrix_error(&MatrixError::Store(error)).code;
            assert_eq!(code_of_matrix, code);
        }
    }

    #[test]
    fn every_error_of_a_side_has_a_number_a_code_and_a_way_out() {
        let why = || "because".to_owned();
        let matrix = [
            (MatrixError::SignedOut(why()), "B20", Exit::Permission),
            (MatrixError::NoAccount, "B20", Exit::Permission),
            (MatrixError::Refused(why()), "B20", Exit::Permission),
            (
                MatrixError::PasswordLoginDisabled(why()),
                "B20",
                Exit::Permission,
            ),
            (MatrixError::Identity(why()), "B21", Exit::Configuration),
            (
                MatrixError::WrongAccount {
                    store: why(),
                    configured: why(),
                },
                "B16",
                Exit::Configuration,
            ),
            (MatrixError::StaleStore(why()), "B22", Exit::Configuration),
            (MatrixError::StoreInUse(why()), "B19", Exit::Locked),
            (MatrixError::NoRoom(why()), "B30", Exit::Unavailable),
            (MatrixError::CryptoStore(why()), "B17", Exit::Permission),
            (MatrixError::DatabaseMissing("x".into()), "B23", Exit::Io),
            (
                MatrixError::Unavailable(anyhow::anyhow!("no route")),
                "B13",
                Exit::Unavailable,
            ),
        ];
        for (error, code, exit) in matrix {
            let diagnostic = from_matrix_error(&error);
            assert_eq!((diagnostic.code, diagnostic.exit), (code, exit), "{error}");
            assert!(diagnostic.help.is_some(), "{error}");
            let diagnostic =
                from_bridge_error(&anyhow::Error::from(error).context("while starting"));
            assert_eq!((diagnostic.code, diagnostic.exit), (code, exit));
        }
        let silo = [
            (SiloError::SignedOut(why()), Exit::Permission),
            (SiloError::NoChannel(why()), Exit::Unavailable),
            (
                SiloError::Unavailable(anyhow::anyhow!("no route")),
                Exit::Unavailable,
            ),
        ];
        for (error, exit) in silo {
            let diagnostic = from_silo_error(Some("gitter"), &error);
            assert_eq!((diagnostic.code, diagnostic.exit), ("B14", exit), "{error}");
            assert!(diagnostic.help.is_some(), "{error}");
        }
    }

    #[test]
    fn an_address_in_use_is_known_from_deep_within() {
        let error = anyhow::Error::from(std::io::Error::from(ErrorKind::AddrInUse))
            .context("the admin address");
        assert_eq!(from_bridge_error(&error).code, "B31");
        let unknown = from_bridge_error(&anyhow::anyhow!("no idea"));
        assert_eq!((unknown.code, unknown.exit), ("B00", Exit::Failed));
    }
}
