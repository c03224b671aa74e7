//! Renders the tree as HTML of the Matrix specification. Generated, never copied: every tag is written here and every text is
//! escaped.

use super::{Block, Body, Inline, is_misleading_link, plain_inlines};

/// The body as Matrix HTML. A single paragraph has no `<p>`.
#[must_use]
pub fn html_from_body(body: &Body) -> String {
    let mut out = String::new();
    if let [Block::Paragraph(inlines)] = body.0.as_slice() {
        write_inlines(inlines, &mut out);
    } else {
        write_blocks(&body.0, &mut out);
    }
    out
}

fn write_blocks(blocks: &[Block], out: &mut String) {
    for block in blocks {
        write_block(block, out);
    }
}

fn write_block(block: &Block, out: &mut String) {
    match block {
        Block::Paragraph(inlines) => write_tagged("p", inlines, out),
        Block::Heading(level, inlines) => {
            write_tagged(&format!("h{}", (*level).clamp(1, 6)), inlines, out);
        }
        Block::Code { language, text } => {
            out.push_str("<pre><code");
            if let Some(language) = language {
                out.push_str(" class=\"language-");
                escape(language, out);
                out.push('"');
            }
            out.push('>');
            escape(text, out);
            out.push_str("</code></pre>");
        }
        Block::Quote(blocks) => {
            out.push_str("<blockquote>");
            write_blocks(blocks, out);
            out.push_str("</blockquote>");
        }
        Block::List { start, items } => {
            match start {
                None => out.push_str("<ul>"),
                Some(1) => out.push_str("<ol>"),
                Some(first) => {
                    out.push_str("<ol start=\"");
                    out.push_str(&first.to_string());
                    out.push_str("\">");
                }
            }
            for item in items {
                out.push_str("<li>");
                if let [Block::Paragraph(inlines)] = item.as_slice() {
                    write_inlines(inlines, out);
                } else {
                    write_blocks(item, out);
                }
                out.push_str("</li>");
            }
            out.push_str(if start.is_some() { "</ol>" } else { "</ul>" });
        }
        Block::Table(rows) => write_table(rows, out),
        Block::Rule => out.push_str("<hr>"),
        Block::Maths(tex) => write_maths("div", tex, out),
    }
}

/// A formula, with its source for clients that cannot show formulas.
fn write_maths(tag: &str, tex: &str, out: &mut String) {
    out.push('<');
    out.push_str(tag);
    out.push_str(" data-mx-maths=\"");
    escape(tex, out);
    out.push_str("\"><code>");
    escape(tex, out);
    out.push_str("</code></");
    out.push_str(tag);
    out.push('>');
}

fn write_table(rows: &[Vec<Vec<Inline>>], out: &mut String) {
    out.push_str("<table>");
    for (index, row) in rows.iter().enumerate() {
        out.push_str("<tr>");
        for cell in row {
            write_tagged(if index == 0 { "th" } else { "td" }, cell, out);
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

fn write_tagged(tag: &str, inlines: &[Inline], out: &mut String) {
    out.push('<');
    out.push_str(tag);
    out.push('>');
    write_inlines(inlines, out);
    out.push_str("</");
    out.push_str(tag);
    out.push('>');
}

fn write_inlines(inlines: &[Inline], out: &mut String) {
    for inline in inlines {
        write_inline(inline, out);
    }
}

fn write_inline(inline: &Inline, out: &mut String) {
    match inline {
        Inline::Text(text) => escape_spaced(text, out),
        Inline::Break => out.push_str("<br>"),
        Inline::Bold(inner) => write_tagged("strong", inner, out),
        Inline::Italic(inner) => write_tagged("em", inner, out),
        Inline::Strike(inner) => write_tagged("del", inner, out),
        Inline::Code(text) => {
            out.push_str("<code>");
            escape(text, out);
            out.push_str("</code>");
        }
        Inline::Maths(tex) => write_maths("span", tex, out),
        Inline::Spoiler(inner) => {
            out.push_str("<span data-mx-spoiler>");
            write_inlines(inner, out);
            out.push_str("</span>");
        }
        Inline::Link { href, label } => {
            let shown = plain_inlines(label);
            out.push_str("<a href=\"");
            escape(href, out);
            out.push_str("\">");
            if shown.trim().is_empty() {
                escape(href, out);
            } else {
                write_inlines(label, out);
            }
            out.push_str("</a>");
            if is_misleading_link(href, &shown) {
                out.push_str(" (");
                escape(href, out);
                out.push(')');
            }
        }
        Inline::Ping { id, name } => {
            out.push_str("<a href=\"https://matrix.to/#/");
            escape(id, out);
            out.push_str("\">");
            escape(name.trim_start_matches('@'), out);
            out.push_str("</a>");
        }
        Inline::Mention { name, .. } => {
            if !name.starts_with('@') {
                out.push('@');
            }
            escape(name, out);
        }
    }
}

/// Running text: of several spaces all but the last become no-break spaces, because HTML would fold them.
fn escape_spaced(text: &str, out: &mut String) {
    let blank = |c: char| matches!(c, ' ' | '\n' | '\t');
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if !blank(c) {
            escape_char(c, out);
        } else if rest.peek().is_some_and(|next| blank(*next)) {
            out.push('\u{a0}');
        } else {
            out.push(' ');
        }
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        escape_char(c, out);
    }
}

fn escape_char(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        c => out.push(c),
    }
}
