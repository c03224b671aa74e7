//! Seals and opens values. A sealed value is bound to its table, column and row, so it cannot be opened anywhere else. Also the
//! key file, and the keyed hash that names deliveries.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rand::{TryRngCore, rngs::OsRng};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Error, Place, RemoteId, database::TxError, directory::own_uid};

const NONCE: usize = 24;
const KEY: usize = 32;
/// What some editors write before a text, in UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The key everything at rest is sealed with: 32 random bytes in a file of mode 0600.
pub struct StoreKey(Zeroizing<[u8; KEY]>);

impl StoreKey {
    /// Reads the key file. Refuses a file that others may read or that is not 32 bytes in hex.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut file = open_key_file(path)?;
        // A byte order mark, a key and its line end; one byte more shows that there is more.
        let mut text = Zeroizing::new(Vec::with_capacity(BOM.len() + 2 * KEY + 3));
        (&mut file)
            .take((BOM.len() + 2 * KEY + 3) as u64)
            .read_to_end(&mut text)
            .map_err(|source| io(path, source))?;
        let digits = text.strip_prefix(BOM).unwrap_or(&text);
        let bytes = unhex(digits.trim_ascii_end()).ok_or_else(|| {
            refused(
                path,
                "this is not a key: a key file holds 64 hexadecimal digits and a newline; put the right file there, \
                 or restore it from a backup",
            )
        })?;
        Ok(Self(bytes))
    }

    /// Reads the key file, or makes one when there is none. Never overwrites.
    pub fn read_or_create(path: &Path) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Self::read(path),
            Err(source) => return Err(io(path, source)),
        };
        let mut key = Zeroizing::new([0; KEY]);
        OsRng
            .try_fill_bytes(key.as_mut_slice())
            .map_err(|error| io(path, std::io::Error::other(error)))?;
        let line = Zeroizing::new(hex(key.as_slice()) + "\n");
        let written = file
            .write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_parent(path));
        if let Err(source) = written {
            // The disk is full, for example: the next attempt must not find half a key.
            let _gone = std::fs::remove_file(path);
            return Err(io(path, source));
        }
        Ok(Self(key))
    }

    /// A copy for another thread, wiped like the original.
    pub(crate) fn copy(&self) -> Self {
        Self(self.0.clone())
    }

    /// A key for one purpose (HKDF-SHA256 with the purpose as info), e.g. for the SDK's own stores.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; KEY];
        // HKDF-SHA256 refuses only more than 8160 bytes, which a fixed length of 32 never asks for.
        if Hkdf::<Sha256>::new(None, self.0.as_slice())
            .expand(purpose.as_bytes(), &mut key)
            .is_err()
        {
            unreachable!("32 bytes are a valid length for HKDF-SHA256");
        }
        key
    }
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKey(..)")
    }
}

/// The place of a sealed value. It is part of what is authenticated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub table: &'static str,
    pub column: &'static str,
    pub row: i64,
}

impl Cell {
    fn associated(self) -> String {
        format!("{}\0{}\0{}", self.table, self.column, self.row)
    }
}

/// Seals and opens with the keys derived for it.
pub(crate) struct Seal {
    cipher: XChaCha20Poly1305,
    naming: Zeroizing<[u8; KEY]>,
}

impl Seal {
    pub fn new(key: &StoreKey) -> Self {
        let sealing = Zeroizing::new(key.derive("footbridge-store/seal/1"));
        Self {
            cipher: XChaCha20Poly1305::new(Key::from_slice(sealing.as_slice())),
            naming: Zeroizing::new(key.derive("footbridge-store/delivery-key/1")),
        }
    }

    /// The nonce, then the ciphertext and its tag.
    pub fn seal(&self, cell: Cell, plaintext: &[u8]) -> Result<Vec<u8>, TxError> {
        let mut nonce = [0; NONCE];
        OsRng
            .try_fill_bytes(&mut nonce)
            .map_err(|_| TxError::NoRandomness)?;
        let sealed = self
            .cipher
            .encrypt(
                XNonce::from_slice(&nonce),
                Payload {
                    msg: plaintext,
                    aad: cell.associated().as_bytes(),
                },
            )
            .map_err(|_| TxError::NoRandomness)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The plaintext, if it was sealed with this key for this very cell.
    pub fn open(&self, cell: Cell, sealed: &[u8]) -> Result<Vec<u8>, TxError> {
        let corrupt = TxError::CorruptRow {
            table: cell.table,
            row: cell.row,
        };
        let Some((nonce, body)) = sealed.split_at_checked(NONCE) else {
            return Err(corrupt);
        };
        self.cipher
            .decrypt(
                XNonce::from_slice(nonce),
                Payload {
                    msg: body,
                    aad: cell.associated().as_bytes(),
                },
            )
            .map_err(|_| corrupt)
    }

    /// The keyed hash of an author in a place.
    pub fn author_hash(&self, place: &Place, author: &str) -> String {
        self.delivery_key(place, &RemoteId::from(author), place)
    }

    /// The transaction key of a delivery: 32 hex digits, the same whenever the same event goes to the same place.
    pub fn delivery_key(&self, from: &Place, event_id: &RemoteId, to: &Place) -> String {
        self.name([from.as_str(), event_id.as_str(), to.as_str()])
    }

    /// The keyed hash of the author of a message: 32 hex digits, another one for each message.
    pub fn author_of_message_hash(&self, place: &Place, message: &RemoteId, user: &str) -> String {
        self.name(["writer", place.as_str(), message.as_str(), user])
    }

    /// The keyed hash of the content of an event.
    pub fn event_content_hash(&self, place: &Place, remote: &RemoteId, content: &str) -> String {
        self.name(["said", place.as_str(), remote.as_str(), content])
    }

    /// The keyed hash of a person of a network.
    pub fn person_hash(&self, network: &str, user: &str) -> String {
        self.name(["person", network, user])
    }

    /// The keyed hash of a person and an emoji.
    pub fn reactor_hash(&self, who: &str) -> String {
        self.name(["reactor", who])
    }

    /// The keyed hash of an account that is claimed to be another bridge's.
    pub fn peer_account_hash(&self, place: &Place, account: &str) -> String {
        self.name(["rival", place.as_str(), account])
    }

    /// The keyed hash of the id of what shows a reaction.
    pub fn reaction_event_hash(&self, place: &Place, remote: &RemoteId) -> String {
        self.name(["shown", place.as_str(), remote.as_str()])
    }

    /// An id as it may be stored: a part that must not be readable is replaced by a keyed hash.
    pub fn stored_id(&self, place: &Place, id: &RemoteId) -> RemoteId {
        match id.split_private_suffix() {
            Some((of, words)) => RemoteId(format!(
                "{of}/{}",
                self.name(["words", place.as_str(), words])
            )),
            None => id.clone(),
        }
    }

    /// A key for naming what a network gives no id.
    pub fn naming_key(&self, purpose: &str) -> String {
        self.name(["naming", purpose])
    }

    /// The keyed hash of an avatar.
    pub fn avatar_hash(&self, which: &str) -> String {
        self.name(["picture", which])
    }

    /// The keyed hash of a media link's file, and the proof in its token.
    pub fn media_link_hash(&self, what: &str) -> String {
        self.name(["offer", what])
    }

    /// A code for this event that nobody can guess, the same whenever it is asked for.
    pub fn code(&self, place: &Place, event_id: &RemoteId) -> String {
        let mut code = self.name(["code", place.as_str(), event_id.as_str()]);
        code.truncate(12);
        code
    }

    fn name<const N: usize>(&self, parts: [&str; N]) -> String {
        // HMAC takes keys of any length, so this cannot fail.
        let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(self.naming.as_slice()) else {
            unreachable!("HMAC takes keys of any length");
        };
        for part in parts {
            mac.update(part.as_bytes());
            mac.update(b"\0");
        }
        let mut digits = hex(&mac.finalize().into_bytes());
        digits.truncate(32);
        digits
    }
}

fn open_key_file(path: &Path) -> Result<File, Error> {
    let named = std::fs::symlink_metadata(path).map_err(|source| io(path, source))?;
    if !named.is_file() {
        return Err(refused(
            path,
            "the key must be a regular file, not a link or a directory; name the file itself",
        ));
    }
    let file = File::open(path).map_err(|source| io(path, source))?;
    let opened = file.metadata().map_err(|source| io(path, source))?;
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(refused(
            path,
            "the file changed while it was opened; try again",
        ));
    }
    if is_credential(path) {
        return Ok(file);
    }
    if own_uid().is_some_and(|uid| uid != opened.uid()) {
        return Err(refused(
            path,
            &format!(
                "this key belongs to user {}, not to the one Footbridge runs as; run it as that user, or \
                 change the owner with chown",
                opened.uid()
            ),
        ));
    }
    if opened.mode() & 0o077 != 0 {
        return Err(refused(
            path,
            &format!(
                "other users can read this key (mode {:03o}); run: chmod 600 {}",
                opened.mode() & 0o777,
                path.display()
            ),
        ));
    }
    Ok(file)
}

/// Credentials that systemd provides are in a directory of their own which only the service can enter; the files in it may belong
/// to root and have group bits.
fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY")
        .is_some_and(|directory| path.parent() == Some(Path::new(&directory)))
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_owned(),
        source,
    }
}

fn refused(path: &Path, reason: &str) -> Error {
    Error::KeyFile {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn unhex(text: &[u8]) -> Option<Zeroizing<[u8; KEY]>> {
    let mut key = Zeroizing::new([0; KEY]);
    let mut pairs = text.chunks_exact(2);
    for byte in key.iter_mut() {
        let &[high, low] = pairs.next()? else {
            return None;
        };
        let high = char::from(high).to_digit(16)?;
        let low = char::from(low).to_digit(16)?;
        *byte = u8::try_from(16 * high + low).ok()?;
    }
    (pairs.next().is_none() && pairs.remainder().is_empty()).then_some(key)
}
