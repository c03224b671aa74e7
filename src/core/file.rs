//! A file attached to a message: its description, known before any byte of it is transferred. Its source is a secret of the side
//! it comes from; its name is untrusted.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::names;

/// The longest name that is passed on, in bytes.
const MAX_NAME: usize = 150;
/// The longest suffix of a name that counts as its extension, the dot included.
const MAX_EXTENSION: usize = 16;
/// The type of a file without a valid type.
const UNKNOWN_TYPE: &str = "application/octet-stream";
/// The extensions that people and their players know best, where the database of media types names another first.
const EXTENSIONS: [(&str, &str); 12] = [
    ("application/ogg", "ogg"),
    ("audio/mp4", "m4a"),
    ("audio/mpeg", "mp3"),
    ("audio/ogg", "ogg"),
    ("audio/opus", "opus"),
    ("audio/vnd.wave", "wav"),
    ("audio/webm", "webm"),
    ("audio/x-m4a", "m4a"),
    ("image/tiff", "tiff"),
    ("text/plain", "txt"),
    ("video/ogg", "ogv"),
    ("video/quicktime", "mov"),
];

/// A file as the place it comes from describes it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// As written there. May contain anything: see [`File::safe_name`].
    pub name: String,
    /// The media type, as written there: see [`File::safe_type`].
    #[serde(default)]
    pub mime: String,
    /// The kind of the file.
    #[serde(default)]
    pub kind: Kind,
    /// In bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// In pixels: width and height.
    #[serde(default)]
    pub dimensions: Option<(u32, u32)>,
    /// How long it plays, in milliseconds.
    #[serde(default)]
    pub duration: Option<u64>,
    /// Whether the side it comes from has a thumbnail of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_thumbnail: bool,
    /// How the side it comes from finds it, as an opaque key of that side.
    pub source: String,
    /// A link for people who are not on that side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// An image.
    Image,
    /// A video.
    Video,
    /// Audio.
    Audio,
    /// A voice message.
    Voice,
    /// A sticker.
    Sticker,
    /// Anything else.
    #[default]
    Other,
}

// Names are message text, and a source may be a key.
impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("File(..)")
    }
}

impl Kind {
    /// The kind of a media type.
    #[must_use]
    pub fn of_type(mime: &str) -> Self {
        match mime.split('/').next() {
            Some("image") => Self::Image,
            Some("video") => Self::Video,
            Some("audio") => Self::Audio,
            _ => Self::Other,
        }
    }

    /// The kind in words, with its article.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Image => "an image",
            Self::Video => "a video",
            Self::Audio => "an audio file",
            Self::Voice => "a voice message",
            Self::Sticker => "a sticker",
            Self::Other => "a file",
        }
    }
}

impl File {
    /// One line: `an image: cat.png (2.1 MB)`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let what = self.kind.in_words();
        let mut line = match (self.kind, self.name.trim()) {
            (Kind::Voice, _) | (_, "") => what.to_owned(),
            (_, name) => format!("{what}: {}", names::display_name(name, "…")),
        };
        let details: Vec<String> = [self.duration.map(length), self.size.map(size)]
            .into_iter()
            .flatten()
            .collect();
        if !details.is_empty() {
            line.push_str(" (");
            line.push_str(&details.join(", "));
            line.push(')');
        }
        line
    }

    /// Distinguishes it from other files of one message: a digest of its source, in base64.
    #[must_use]
    pub fn digest(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(&self.source))
    }

    /// A name that is valid in every file system and contains no path (C17): the base name without separators, control and
    /// invisible characters, leading dots and reserved names, at most 150 bytes, its extension kept. A name without an extension
    /// gets that of its type: apps choose by the extension what they show and play.
    #[must_use]
    pub fn safe_name(&self) -> String {
        let base = self.name.rsplit(['/', '\\']).next().unwrap_or_default();
        let forbidden = |c: char| matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '%');
        let harmless = |text: &str| names::display_name(text, " ").replace(forbidden, "_");
        let bare = base.trim_matches(|c: char| c == '.' || c.is_whitespace());
        let (stem, extension) = match bare.rfind('.') {
            Some(at) if bare.len() - at <= MAX_EXTENSION => bare.split_at(at),
            _ => (bare, ""),
        };
        let (stem, extension) = match self.extension() {
            Some(own) if !self.is_extension(extension) => (bare, format!(".{own}")),
            _ => (stem, extension.to_owned()),
        };
        let extension = match extension.strip_prefix('.') {
            Some(extension) => format!(".{}", harmless(extension)),
            None => String::new(),
        };
        let stem = if stem.is_empty() {
            String::new()
        } else {
            harmless(stem)
        };
        let mut stem = stem.trim_start_matches('.').to_owned();
        if stem.trim().is_empty() {
            "file".clone_into(&mut stem);
        }
        if is_reserved(&stem) {
            stem.insert(0, '_');
        }
        while stem.len() + extension.len() > MAX_NAME {
            stem.pop();
        }
        format!("{stem}{extension}")
    }

    /// The extension of its type; `None` where the type is unknown.
    fn extension(&self) -> Option<&'static str> {
        let mime = self.safe_type().to_ascii_lowercase();
        let known = EXTENSIONS.iter().find(|(of, _)| *of == mime);
        let known = known.map(|(_, extension)| *extension);
        known
            .or_else(|| mime2ext::mime2ext(&mime))
            .filter(|_| mime != UNKNOWN_TYPE)
    }

    /// Whether the suffix of a name, dot included, is an extension. For images, video and audio it must be one of a media type;
    /// for other files it is any short word, but no number: `report v1.2` has none.
    fn is_extension(&self, end: &str) -> bool {
        let end = end.strip_prefix('.').unwrap_or_default();
        let has_meaning = !mime_guess::from_ext(end).is_empty();
        let is_word = end
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-+~".contains(c))
            && end.contains(|c: char| c.is_ascii_alphabetic());
        let is_own = self
            .extension()
            .is_some_and(|own| own.eq_ignore_ascii_case(end));
        has_meaning || is_own || (is_word && Kind::of_type(self.safe_type()) == Kind::Other)
    }

    /// A media type that is safe in a header.
    #[must_use]
    pub fn safe_type(&self) -> &str {
        let token = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "!#$&^_.+-".contains(c);
            !part.is_empty() && part.chars().all(known)
        };
        let bare = self.mime.split(';').next().unwrap_or_default().trim();
        match bare.split_once('/') {
            Some((kind, rest)) if bare.len() <= 100 && token(kind) && token(rest) => bare,
            _ => UNKNOWN_TYPE,
        }
    }
}

/// Names that are devices on Windows, whatever follows a dot.
fn is_reserved(stem: &str) -> bool {
    let word = stem.split('.').next().unwrap_or_default().trim_end();
    let numbered = |prefix: &str| {
        word.get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && word.get(3..).is_some_and(|digit| {
                digit.len() == 1 && digit.chars().all(|c| ('1'..='9').contains(&c))
            })
    };
    ["con", "prn", "aux", "nul"]
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name))
        || numbered("com")
        || numbered("lpt")
}

/// A size for people: decimal units, one digit behind the point below ten.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut tenths = bytes / 100;
    let mut unit = UNITS[0];
    for larger in UNITS.iter().skip(1) {
        if tenths < 10_000 {
            break;
        }
        tenths /= 1000;
        unit = larger;
    }
    if tenths >= 100 {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

fn length(millis: u64) -> String {
    let seconds = millis / 1000;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str) -> File {
        File {
            name: name.to_owned(),
            ..File::default()
        }
    }

    #[test]
    fn c17_a_name_leads_nowhere_and_is_good_everywhere() {
        let long = format!("{}.png", "n".repeat(400));
        let cut = format!("{}….png", "n".repeat(100));
        let table = [
            ("cat.png", "cat.png"),
            ("../../etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("/abs/olute", "olute"),
            (".bashrc", "bashrc"),
            ("...", "file"),
            ("..", "file"),
            ("", "file"),
            ("a/", "file"),
            ("con", "_con"),
            ("NUL.txt", "_NUL.txt"),
            ("com1.log", "_com1.log"),
            ("console.log", "console.log"),
            ("a\u{202e}gnp.exe", "agnp.exe"),
            ("a\r\nb\0.txt", "a b.txt"),
            ("a:b*c?.txt", "a_b_c_.txt"),
            ("%2e%2e%2fx", "_2e_2e_2fx"),
            (long.as_str(), cut.as_str()),
        ];
        for (given, safe) in table {
            assert_eq!(named(given).safe_name(), safe, "{given:?}");
        }
    }

    #[test]
    fn a_name_without_an_extension_gets_that_of_its_type() {
        for (name, mime, safe) in [
            // As Element Web sends them.
            ("Voice message", "audio/ogg", "Voice message.ogg"),
            (
                "Voice message",
                "audio/ogg; codecs=opus",
                "Voice message.ogg",
            ),
            (
                "👍 (thumbs up sign)",
                "image/webp",
                "👍 (thumbs up sign).webp",
            ),
            ("image", "image/png", "image.png"),
            ("", "IMAGE/JPEG", "file.jpg"),
            ("Mr. Smith", "audio/mp4", "Mr. Smith.m4a"),
            ("at 10.30", "video/mp4", "at 10.30.mp4"),
            ("holiday.2024", "image/svg+xml", "holiday.2024.svg"),
            ("report v1.2", "application/pdf", "report v1.2.pdf"),
            ("notes", "text/plain", "notes.txt"),
            ("a/", "image/gif", "file.gif"),
            // A name with an extension keeps it, whatever its type.
            ("cat.JPEG", "image/png", "cat.JPEG"),
            ("rec.AMR", "audio/amr", "rec.AMR"),
            ("notes.org", "text/plain", "notes.org"),
            ("x.tar.zst", "application/zstd", "x.tar.zst"),
            ("Makefile", "", "Makefile"),
            ("core", "application/octet-stream", "core"),
            ("x", "a/b\r\nX: y", "x"),
            ("x", "application/x-nobody-knows", "x"),
        ] {
            let file = File {
                mime: mime.to_owned(),
                ..named(name)
            };
            assert_eq!(file.safe_name(), safe, "{name:?} {mime:?}");
        }
        let long = File {
            mime: "image/png".to_owned(),
            ..named(&"n".repeat(400))
        };
        let safe = long.safe_name();
        assert!(safe.ends_with("….png") && safe.len() <= MAX_NAME, "{safe}");
    }

    #[test]
    fn a_media_type_is_safe_in_a_header() {
        let typed = |mime: &str| {
            let file = File {
                mime: mime.to_owned(),
                ..File::default()
            };
            file.safe_type().to_owned()
        };
        assert_eq!(typed("image/svg+xml; charset=x"), "image/svg+xml");
        for bad in ["", "image", "image/", "a/b\r\nX: y", "a b/c", "ü/x"] {
            assert_eq!(typed(bad), UNKNOWN_TYPE, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn c17_no_name_is_dangerous(name in any::<String>(), mime in "(image/png|audio/ogg|text/plain|)") {
            let safe = File { mime, ..named(&name) }.safe_name();
            prop_assert!(!safe.is_empty() && safe.len() <= MAX_NAME + 1);
            prop_assert!(!safe.contains(['/', '\\', '\0', '\n', '\r']) && !safe.starts_with('.'));
            prop_assert!(!is_reserved(&safe));
        }
    }
}
