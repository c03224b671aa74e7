//! A person's avatar or a file's thumbnail on its way from one side to the other. The bridge does not decode it (C16).

use crate::spool::Spooled;

/// The largest image that is relayed as an avatar or a thumbnail, in bytes.
pub const LARGEST: u64 = 1 << 20;
/// The image types that clients show.
const TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// An image that is completely in the spool.
#[derive(Debug)]
pub struct Image {
    /// Its bytes.
    pub bytes: Spooled,
    /// Its media type, as its source declares it.
    pub mime: &'static str,
}

/// The media type in a header, if it is one of an image that clients show.
#[must_use]
pub fn type_of(header: Option<&[u8]>) -> Option<&'static str> {
    let value = header.and_then(|value| std::str::from_utf8(value).ok())?;
    let value = value.split(';').next().unwrap_or_default().trim();
    let known = |known: &&str| value.eq_ignore_ascii_case(known);
    TYPES.into_iter().find(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c16_only_what_clients_show_is_a_picture() {
        assert!(type_of(Some(b"image/PNG; charset=x")).is_some());
        for other in ["image/svg+xml", "text/html", "", "image/png\r\nx: y"] {
            assert!(type_of(Some(other.as_bytes())).is_none(), "{other:?}");
        }
        assert!(type_of(None).is_none());
    }
}
