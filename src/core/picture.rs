//! The picture of a person on its way from one side to the other. Nobody here looks into it (C16).

use crate::spool::Spooled;

/// The largest picture of a person that is carried over, in bytes.
pub const LARGEST: u64 = 1 << 20;
/// What clients show.
const TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// A picture that is here, whole.
#[derive(Debug)]
pub struct Picture {
    /// What it is.
    pub bytes: Spooled,
    /// Its media type, as whoever had it says.
    pub mime: &'static str,
}

/// The media type that stands in a header, if it is one of a picture that clients show.
#[must_use]
pub fn type_of(header: Option<&[u8]>) -> Option<&'static str> {
    let said = header.and_then(|said| std::str::from_utf8(said).ok())?;
    let said = said.split(';').next().unwrap_or_default().trim();
    let known = |known: &&str| said.eq_ignore_ascii_case(known);
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
