//! Conversion between files in Matrix events (client-server API, "m.image" and related types, "Sending encrypted
//! attachments") and the neutral type.

use footbridge_core::{
    file::{File, Kind},
    image::Image,
    outlet::Content,
    spool::Spooled,
};
use ruma::{MxcUri, events::room::EncryptedFile};
use serde_json::{Value, json};

use super::json::{insert, text_at};

/// The source of a file on a homeserver.
#[derive(Debug)]
pub enum MediaSource {
    /// Unencrypted.
    Clear(ruma::OwnedMxcUri),
    /// Encrypted, with its keys.
    Encrypted(Box<EncryptedFile>),
}

/// The file of a message, if it has a valid source.
pub(super) fn file_of(content: &Value) -> Option<File> {
    described(content).filter(lies_somewhere)
}

/// The image of a sticker, if it has a valid source.
pub(super) fn sticker_of(content: &Value) -> Option<File> {
    Some(read(content, Kind::Sticker)).filter(lies_somewhere)
}

/// The most files of one message that are relayed; further ones are only named.
const MAX_ITEMS: usize = 20;

/// The files of a gallery, those that are relayed and those that are not, with their captions (MSC4274, "Inline media
/// galleries"); `None` for any other message.
pub(super) fn gallery_of(content: &Value) -> Option<Gallery> {
    if !matches!(
        text_at(content, "/msgtype")?,
        "m.gallery" | "dm.filament.gallery"
    ) {
        return None;
    }
    let mut gallery = Gallery::default();
    for item in content.get("itemtypes")?.as_array()? {
        let mut item = item.clone();
        if !item.is_object() {
            continue;
        }
        let kind = item.get("itemtype").cloned().unwrap_or_default();
        insert(&mut item, "msgtype", kind);
        // A file of an unknown kind is relayed as any file.
        let file = described(&item).unwrap_or_else(|| read(&item, Kind::Other));
        let (body, name) = (text_at(&item, "/body"), text_at(&item, "/filename"));
        if name.is_some() && body != name {
            gallery.captions.extend(body.map(str::to_owned));
        }
        if gallery
            .files
            .iter()
            .any(|known| known.source == file.source)
        {
            // A second copy of a file costs a transfer and shows nothing new.
            continue;
        }
        if lies_somewhere(&file) && gallery.files.len() < MAX_ITEMS {
            gallery.files.push(file);
        } else if gallery.left.len() < MAX_ITEMS {
            gallery.left.push(file);
        } else {
            gallery.more += 1;
        }
    }
    Some(gallery)
}

/// Several files in one message.
#[derive(Default)]
pub(super) struct Gallery {
    /// The files that are relayed, in order.
    pub(super) files: Vec<File>,
    /// Files without a valid source, or too many.
    pub(super) left: Vec<File>,
    /// How many further files there are.
    pub(super) more: usize,
    /// The captions of single files.
    pub(super) captions: Vec<String>,
}

fn lies_somewhere(file: &File) -> bool {
    source_of(&file.source).is_some()
}

/// The file of a message, whether its source is valid or not.
pub(super) fn described(content: &Value) -> Option<File> {
    let voice =
        content.get("org.matrix.msc3245.voice").is_some() || content.get("m.voice").is_some();
    let kind = match text_at(content, "/msgtype")? {
        "m.image" => Kind::Image,
        "m.video" => Kind::Video,
        "m.audio" if voice => Kind::Voice,
        "m.audio" => Kind::Audio,
        "m.file" => Kind::Other,
        _ => return None,
    };
    Some(read(content, kind))
}

fn read(content: &Value, kind: Kind) -> File {
    let file = content.get("file").filter(|file| file.is_object());
    let source = match file {
        Some(file) => file.to_string(),
        None => text_at(content, "/url").unwrap_or_default().to_owned(),
    };
    let info = |key: &str| content.get("info")?.get(key);
    let number = |key: &str| info(key).and_then(Value::as_u64);
    let pixels = |key: &str| number(key).and_then(|pixels| u32::try_from(pixels).ok());
    let name = text_at(content, "/filename").or_else(|| text_at(content, "/body"));
    File {
        name: name.unwrap_or_default().to_owned(),
        mime: info("mimetype")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        kind,
        size: number("size"),
        dimensions: pixels("w").zip(pixels("h")),
        duration: number("duration"),
        has_thumbnail: false,
        source,
        link: None,
    }
}

/// The source of a file; `None` where its URL names no media of a homeserver (C26).
#[must_use]
pub fn source_of(source: &str) -> Option<MediaSource> {
    let is_media = |address: &MxcUri| {
        let id = address.parts().map_or("", |(_, id)| id);
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        (1..=255).contains(&id.len()) && id.chars().all(known)
    };
    if source.starts_with("mxc://") {
        let address = ruma::OwnedMxcUri::from(source);
        return is_media(&address).then_some(MediaSource::Clear(address));
    }
    let file: EncryptedFile = serde_json::from_str(source).ok()?;
    is_media(&file.url).then(|| MediaSource::Encrypted(Box::new(file)))
}

/// The event of a file; `address` is its URL, where it is encrypted if the room is.
#[must_use]
pub fn event_of(
    file: &File,
    spooled: &Spooled,
    content: &Content,
    address: &str,
    encrypted: bool,
) -> Value {
    let mut event = super::event_content(content, None, None, None);
    let kind = match file.kind {
        Kind::Image | Kind::Sticker => "m.image",
        Kind::Video => "m.video",
        Kind::Audio | Kind::Voice => "m.audio",
        Kind::Other => "m.file",
    };
    insert(&mut event, "msgtype", json!(kind));
    insert(&mut event, "filename", json!(file.safe_name()));
    let mut info = json!({ "mimetype": file.safe_type(), "size": spooled.length() });
    if let Some((width, height)) = file.dimensions {
        insert(&mut info, "w", json!(width));
        insert(&mut info, "h", json!(height));
    }
    if let Some(duration) = file.duration {
        insert(&mut info, "duration", json!(duration));
    }
    insert(&mut event, "info", info);
    if file.kind == Kind::Voice {
        insert(&mut event, "org.matrix.msc3245.voice", json!({}));
    }
    if encrypted {
        let mut key = spooled.key_json().clone();
        insert(&mut key, "url", json!(address));
        insert(&mut event, "file", key);
    } else {
        insert(&mut event, "url", json!(address));
    }
    event
}

/// The widest preview, in pixels; its height follows.
const PREVIEW_WIDTH: u32 = 1_920;

/// Adds a thumbnail to a file's event; `address` is the thumbnail's URL.
pub fn put_thumbnail(
    event: &mut Value,
    file: &File,
    preview: &Image,
    address: &str,
    encrypted: bool,
) {
    let Some(info) = event.get_mut("info") else {
        return;
    };
    let mut about = json!({ "mimetype": preview.mime, "size": preview.bytes.length() });
    if let Some((width, height)) = file.dimensions.filter(|(width, _)| *width > 0) {
        let narrow = width.min(PREVIEW_WIDTH);
        let high = u64::from(height) * u64::from(narrow) / u64::from(width);
        insert(&mut about, "w", json!(narrow));
        insert(&mut about, "h", json!(high));
    }
    insert(info, "thumbnail_info", about);
    if encrypted {
        let mut key = preview.bytes.key_json().clone();
        insert(&mut key, "url", json!(address));
        insert(info, "thumbnail_file", key);
    } else {
        insert(info, "thumbnail_url", json!(address));
    }
}
