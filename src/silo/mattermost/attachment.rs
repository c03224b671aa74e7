//! Pure conversion of an integration's attachments into text.

use footbridge_core::text::{Block, Body, Inline};
use url::Url;

use super::{api::Attachment, arrival::one_line};
use crate::markdown::{body_from_markdown_of, resolved};

/// An attachment as text: all that people see of it, in the same order.
pub(super) fn attached(attachment: &Attachment, server: Option<&Url>) -> Vec<Block> {
    let read = |markdown: &str| body_from_markdown_of(markdown, server);
    let leading = |address: &str, label| leading(address, label, server);
    let mut blocks = read(&attachment.pretext).0;
    let text = |text: &str| vec![Inline::Text(text.to_owned())];
    let author = attachment.author_name.trim();
    if !author.is_empty() {
        blocks.push(leading(&attachment.author_link, text(author)));
    }
    let title = attachment.title.trim();
    if !title.is_empty() {
        let label = vec![Inline::Bold(text(title))];
        blocks.push(leading(&attachment.title_link, label));
    }
    blocks.extend(read(&attachment.text).0);
    for field in &attachment.fields {
        let value = match &field.value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        };
        let title = field.title.trim();
        let value = one_line(&read(&value).to_plain());
        let mut line = Vec::new();
        if !title.is_empty() {
            line.extend([Inline::Bold(text(title)), Inline::Text(": ".to_owned())]);
        }
        line.push(Inline::Text(value));
        blocks.push(Block::Paragraph(line));
    }
    for (address, what) in [
        (&attachment.image_url, "image"),
        (&attachment.thumb_url, "thumbnail"),
    ] {
        if !address.trim().is_empty() {
            blocks.push(leading(address, text(what)));
        }
    }
    blocks.extend(read(&attachment.footer).0);
    let buttons = attachment.actions.iter().map(|button| button.name.trim());
    let buttons: Vec<&str> = buttons.filter(|name| !name.is_empty()).collect();
    if !buttons.is_empty() {
        let line = format!("(buttons: {})", buttons.join(", "));
        blocks.push(Block::Paragraph(vec![Inline::Text(line)]));
    }
    if blocks.is_empty() {
        blocks = Body::plain(&attachment.fallback).0;
    }
    blocks
}

/// A line with a link to an address, if that is one of the web.
fn leading(address: &str, label: Vec<Inline>, server: Option<&Url>) -> Block {
    let href = resolved(address, server).unwrap_or_else(|| address.trim().to_owned());
    let leads = Url::parse(&href).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    Block::Paragraph(if leads {
        vec![Inline::Link { href, label }]
    } else {
        label
    })
}
