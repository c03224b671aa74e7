//! A file on its way from one side to the other: on disk, encrypted as a Matrix attachment, without a name, and deleted with the
//! process. A file that came encrypted is verified before any byte of it is passed on; a file that came unencrypted is encrypted
//! before it is written to the disk. At most a few blocks of it are in memory.

use std::{
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::Arc,
};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use matrix_sdk_crypto::{AttachmentDecryptor, AttachmentEncryptor, MediaEncryptionInfo};
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::spawn_blocking,
};
use tokio_util::{
    bytes::Bytes,
    io::{StreamReader, SyncIoBridge},
};

/// How many files are transferred at the same time.
const AT_ONCE: usize = 2;
/// The size of a block, in bytes.
const BLOCK: usize = 64 << 10;
/// How many blocks may wait for the reader.
const WAITING: usize = 4;

/// The directory for files on their way, and how many there may be at once.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
    most: u64,
    slots: Arc<Semaphore>,
}

/// Why a file was not spooled.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It is larger than is allowed.
    #[error("it is larger than {}", crate::file::size(*.0))]
    TooLarge(u64),
    /// It does not match the hash in its message.
    #[error("its hash does not match")]
    HashMismatch,
    /// The transfer was incomplete.
    #[error("the transfer was incomplete: {0}")]
    Incomplete(io::Error),
    /// It cannot be written to the bridge's disk.
    #[error("it cannot be written to disk: {0}")]
    Disk(io::Error),
}

impl Spool {
    /// Spools files of at most `most` bytes in this directory.
    #[must_use]
    pub fn new(directory: PathBuf, most: u64) -> Self {
        Self {
            directory,
            most,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The same directory for files of at most `most` bytes, with its own limit of files transferred at the same time.
    #[must_use]
    pub fn with_limits(&self, most: u64, at_once: usize) -> Self {
        Self {
            directory: self.directory.clone(),
            most: most.min(self.most),
            slots: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// The largest file, in bytes.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Spools an unencrypted file, and encrypts it with a new key.
    pub async fn seal(
        &self,
        bytes: impl Stream<Item = Result<Bytes, impl Into<Reason> + 'static>> + Send + 'static,
    ) -> Result<Spooled, SpoolError> {
        self.take(bytes, |input, file| {
            let mut encryptor = AttachmentEncryptor::new(input);
            let length = copy(&mut encryptor, file)?;
            Ok((length, encryptor.finish()))
        })
        .await
    }

    /// Spools a file that is encrypted with this key, and verifies its hash.
    pub async fn verify(
        &self,
        bytes: impl Stream<Item = Result<Bytes, impl Into<Reason> + 'static>> + Send + 'static,
        key: MediaEncryptionInfo,
    ) -> Result<Spooled, SpoolError> {
        let spooled = self
            .take(bytes, move |input, file| Ok((copy(input, file)?, key)))
            .await?;
        let checked = {
            let (sealed, key) = (spooled.sealed.clone(), spooled.key()?);
            spawn_blocking(move || {
                let mut reader = PositionedReader::start(sealed);
                let mut decrypted = AttachmentDecryptor::new(&mut reader, key)
                    .map_err(|_| SpoolError::HashMismatch)?;
                io::copy(&mut decrypted, &mut io::sink()).map_err(|_| SpoolError::HashMismatch)
            })
        };
        checked.await.map_err(joined)??;
        Ok(spooled)
    }

    async fn take(
        &self,
        bytes: impl Stream<Item = Result<Bytes, impl Into<Reason> + 'static>> + Send + 'static,
        fill: impl FnOnce(
            &mut Input,
            &mut std::fs::File,
        ) -> Result<(u64, MediaEncryptionInfo), SpoolError>
        + Send
        + 'static,
    ) -> Result<Spooled, SpoolError> {
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.map_err(|closed| SpoolError::Disk(io::Error::other(closed)))?;
        let bytes = bytes.map_err(io::Error::other).boxed();
        let (directory, most) = (self.directory.clone(), self.most);
        let mut input = SyncIoBridge::new(StreamReader::new(bytes)).take(most.saturating_add(1));
        let filled = spawn_blocking(move || {
            let mut file = tempfile::tempfile_in(directory).map_err(SpoolError::Disk)?;
            let (length, key) = fill(&mut input, &mut file)?;
            if length > most {
                return Err(SpoolError::TooLarge(most));
            }
            let key = serde_json::to_value(&key).map_err(|error| SpoolError::Disk(error.into()))?;
            Ok((file, length, key))
        });
        let (file, length, key) = filled.await.map_err(joined)??;
        Ok(Spooled {
            sealed: Arc::new(file),
            length,
            key,
            _slot: Arc::new(slot),
        })
    }
}

/// Why the stream of bytes failed.
type Reason = Box<dyn std::error::Error + Send + Sync>;

type Input =
    io::Take<SyncIoBridge<StreamReader<stream::BoxStream<'static, io::Result<Bytes>>, Bytes>>>;

/// Copies, and distinguishes an error of the source from an error of the disk.
fn copy(from: &mut impl Read, to: &mut std::fs::File) -> Result<u64, SpoolError> {
    let mut block = vec![0; BLOCK];
    let mut length = 0;
    loop {
        let count = match from.read(&mut block) {
            Ok(0) => return Ok(length),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SpoolError::Incomplete(error)),
        };
        let read = block.get(..count).unwrap_or_default();
        io::Write::write_all(to, read).map_err(SpoolError::Disk)?;
        length += count as u64;
    }
}

fn joined(error: tokio::task::JoinError) -> SpoolError {
    SpoolError::Disk(io::Error::other(error))
}

/// A file, block by block.
pub type Blocks = stream::BoxStream<'static, io::Result<Bytes>>;

/// A file that is completely in the spool.
#[derive(Clone)]
pub struct Spooled {
    sealed: Arc<std::fs::File>,
    length: u64,
    key: Value,
    /// It counts as being transferred as long as it exists.
    _slot: Arc<OwnedSemaphorePermit>,
}

// It holds a key.
impl std::fmt::Debug for Spooled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spooled(..)")
    }
}

impl Spooled {
    /// In bytes, encrypted or not.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The key to the encrypted bytes, in the form of an event (`EncryptedFile` without its `url`).
    #[must_use]
    pub fn key_json(&self) -> &Value {
        &self.key
    }

    fn key(&self) -> Result<MediaEncryptionInfo, SpoolError> {
        serde_json::from_value(self.key.clone()).map_err(|_| SpoolError::HashMismatch)
    }

    /// The encrypted bytes.
    #[must_use]
    pub fn encrypted(&self) -> Blocks {
        self.blocks(None)
    }

    /// The decrypted bytes.
    pub fn decrypted(&self) -> Result<Blocks, SpoolError> {
        Ok(self.blocks(Some(self.key()?)))
    }

    fn blocks(&self, key: Option<MediaEncryptionInfo>) -> Blocks {
        let (sender, receiver) = mpsc::channel(WAITING);
        let file = self.clone();
        // Ends when the file is read, or when the receiver is dropped.
        drop(spawn_blocking(move || {
            let mut reader = PositionedReader::start(file.sealed.clone());
            let outcome = match key {
                None => send_blocks(&mut reader, &sender),
                Some(key) => match AttachmentDecryptor::new(&mut reader, key) {
                    Ok(mut decrypted) => send_blocks(&mut decrypted, &sender),
                    Err(error) => Err(io::Error::other(error)),
                },
            };
            if let Err(error) = outcome {
                drop(sender.blocking_send(Err(error)));
            }
        }));
        stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|block| (block, receiver))
        })
        .fuse()
        .boxed()
    }
}

/// Sends block after block.
fn send_blocks(from: &mut impl Read, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    loop {
        let mut block = vec![0; BLOCK];
        let count = from.read(&mut block)?;
        block.truncate(count);
        if count == 0 || to.blocking_send(Ok(block.into())).is_err() {
            return Ok(());
        }
    }
}

/// Reads a file from its beginning, with its own position.
struct PositionedReader {
    file: Arc<std::fs::File>,
    position: u64,
}

impl PositionedReader {
    fn start(file: Arc<std::fs::File>) -> Self {
        Self { file, position: 0 }
    }
}

impl Read for PositionedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coming(bytes: &[u8]) -> impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static {
        let blocks: Vec<_> = bytes
            .chunks(1000)
            .map(|block| Ok(Bytes::copy_from_slice(block)))
            .collect();
        stream::iter(blocks)
    }

    async fn all(blocks: Blocks) -> Vec<u8> {
        let blocks: Vec<Bytes> = blocks.try_collect().await.unwrap();
        blocks.concat()
    }

    fn spool(most: u64) -> (tempfile::TempDir, Spool) {
        let home = tempfile::tempdir().unwrap();
        let spool = Spool::new(home.path().to_owned(), most);
        (home, spool)
    }

    #[tokio::test]
    async fn an_unencrypted_file_is_encrypted_on_disk_and_can_be_decrypted() {
        let (home, spool) = spool(1 << 20);
        let plain: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let kept = spool.seal(coming(&plain)).await.unwrap();
        assert_eq!(kept.length(), 300_000);
        assert_eq!(all(kept.decrypted().unwrap()).await, plain);
        let sealed = all(kept.encrypted()).await;
        assert!(sealed.len() == plain.len() && sealed != plain);
        // The file has no name in the directory.
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        // The key in an event decrypts it elsewhere.
        let key = || serde_json::from_value(kept.key_json().clone()).unwrap();
        let moved = spool.verify(coming(&sealed), key()).await.unwrap();
        assert_eq!(all(moved.decrypted().unwrap()).await, plain);
    }

    #[tokio::test]
    async fn a_changed_or_truncated_file_is_refused_before_it_is_read() {
        let (_home, spool) = spool(1 << 20);
        let kept = spool
            .seal(coming(b"the truth, and nothing else"))
            .await
            .unwrap();
        let mut forged = all(kept.encrypted()).await;
        let key = || serde_json::from_value(kept.key_json().clone()).unwrap();
        let cut = forged[..10].to_vec();
        forged[3] ^= 1;
        for bytes in [forged, cut] {
            let refused = spool.verify(coming(&bytes), key()).await;
            assert!(matches!(refused, Err(SpoolError::HashMismatch)));
        }
    }

    #[tokio::test]
    async fn c16_what_is_too_large_is_not_read_to_its_end() {
        let (_home, spool) = spool(5_000);
        let endless = stream::repeat_with(|| reqwest::Result::Ok(Bytes::from_static(&[7; 1000])));
        let refused = spool.seal(endless).await;
        assert!(matches!(refused, Err(SpoolError::TooLarge(5_000))));
        assert!(spool.seal(coming(&[7; 5_000])).await.is_ok());
    }
}
