//! The one place that seals and opens. A sealed value names the table, column and row it belongs to, so it
//! opens nowhere else. Also the key file, and the keyed hash that names deliveries.

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

use crate::{Error, Place, RemoteId, database::Fault, directory::own_uid};

const NONCE: usize = 24;
const KEY: usize = 32;
/// What some editors put in front of a text, in UTF-8.
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
                "this is no key: a key file holds 64 hexadecimal digits and a newline; put the right file \
                 there, or restore it from a backup",
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
        written.map_err(|source| io(path, source))?;
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

/// Where a sealed value lives. Part of what is authenticated.
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

    /// The nonce, then the sealed letter and its tag.
    pub fn seal(&self, cell: Cell, letter: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut nonce = [0; NONCE];
        OsRng
            .try_fill_bytes(&mut nonce)
            .map_err(|_| Fault::Unsealable)?;
        let sealed = self
            .cipher
            .encrypt(
                XNonce::from_slice(&nonce),
                Payload {
                    msg: letter,
                    aad: cell.associated().as_bytes(),
                },
            )
            .map_err(|_| Fault::Unsealable)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The letter, if it was sealed with our key for this very cell.
    pub fn open(&self, cell: Cell, sealed: &[u8]) -> Result<Vec<u8>, Fault> {
        let corrupt = Fault::Corrupt {
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

    /// What is kept of an author in a place: enough to know them again, and nothing else.
    pub fn author_key(&self, place: &Place, author: &str) -> String {
        self.delivery_key(place, &RemoteId::from(author), place)
    }

    /// The key of a delivery: 32 hex digits, the same whenever the same fact goes to the same place.
    pub fn delivery_key(&self, from: &Place, fact: &RemoteId, to: &Place) -> String {
        self.name([from.as_str(), fact.as_str(), to.as_str()])
    }

    /// What is kept of the author of a message: 32 hex digits, enough to know the user again.
    pub fn writer_key(&self, place: &Place, message: &RemoteId, user: &str) -> String {
        self.name(["writer", place.as_str(), message.as_str(), user])
    }

    /// What is kept of what an event of ours says: enough to know it again, and nothing else.
    pub fn said_key(&self, place: &Place, remote: &RemoteId, content: &str) -> String {
        self.name(["said", place.as_str(), remote.as_str(), content])
    }

    /// What is kept of a person of a network: enough to know them again, and nothing else.
    pub fn person_key(&self, network: &str, user: &str) -> String {
        self.name(["person", network, user])
    }

    /// What is kept of who reacted with what: enough to know it again, and nothing else.
    pub fn reactor_key(&self, who: &str) -> String {
        self.name(["reactor", who])
    }

    /// What is kept of an account that is said to be another bridge's.
    pub fn rival_key(&self, place: &Place, account: &str) -> String {
        self.name(["rival", place.as_str(), account])
    }

    /// What is kept of what shows a reaction: enough to find it again, and nothing else.
    pub fn shown_key(&self, place: &Place, remote: &RemoteId) -> String {
        self.name(["shown", place.as_str(), remote.as_str()])
    }

    /// An id as it may be kept: where words are part of it that are not to be read, a keyed hash stands in their place.
    pub fn readable_id(&self, place: &Place, id: &RemoteId) -> RemoteId {
        match id.split_words() {
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

    /// What is kept of a picture: enough to know it again, and nothing else.
    pub fn picture_key(&self, which: &str) -> String {
        self.name(["picture", which])
    }

    /// What is kept of an offered file, and what a link to it proves.
    pub fn offer_key(&self, what: &str) -> String {
        self.name(["offer", what])
    }

    /// A code for this fact that nobody can guess, the same whenever it is asked for.
    pub fn code(&self, place: &Place, fact: &RemoteId) -> String {
        let mut code = self.name(["code", place.as_str(), fact.as_str()]);
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
                "others may read this key (mode {:03o}); run: chmod 600 {}",
                opened.mode() & 0o777,
                path.display()
            ),
        ));
    }
    Ok(file)
}

/// Credentials that systemd hands over lie in a directory of their own which only the service can enter; the
/// files in it may belong to root and carry group bits.
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
