//! The one place that seals and opens.

use std::path::Path;

use crate::Error;

/// The key everything at rest is sealed with: 32 random bytes in a file of mode 0600.
pub struct StoreKey;

impl StoreKey {
    /// Reads the key file. Refuses a file that others may read or that is not 32 bytes in hex.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let _ = path;
        unimplemented!()
    }

    /// Reads the key file, or makes one when there is none. Never overwrites.
    pub fn read_or_create(path: &Path) -> Result<Self, Error> {
        let _ = path;
        unimplemented!()
    }

    /// A key for one purpose (HKDF-SHA256 with the purpose as info), e.g. for the SDK's own stores.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let _ = purpose;
        unimplemented!()
    }
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKey(..)")
    }
}
