//! Parses HTML into the neutral tree. Untrusted input: only what the tree can hold passes, everything else leaves only its text.
//! The parser library builds its own tree whose size and depth an attacker could choose, so a linear scan of the tags comes first
//! and decides whether the library is called at all.

mod limits;
mod markup;
mod whitespace;
mod node;

use markup::{attribute, is_block, is_language, maths, matrix_to_user, safe_href, tag};
use node::{Node, maths_source, raw_text};
use ruma_html::{ElementData, Html};

use super::{Block, Body, Inline, MAX_DEPTH, plain_inlines, sanitized};

/// The source of the HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The subset of the Matrix specification (client-server API, `m.room.message`).
    Matrix,
    /// The HTML that Gitter's server renders.
    Gitter,
}

/// Parses HTML; where it is too large or too deep to be parsed, returns its text without tags.
#[must_use]
pub fn body_from_html(html: &str, dialect: Dialect) -> Body {
    parsed(html, dialect).unwrap_or_else(|| Body::plain(&limits::without_tags(html)))
}

/// Parses HTML, unless it is too large or too deep.
#[must_use]
pub fn parsed(html: &str, dialect: Dialect) -> Option<Body> {
    parsed_as_shown(html, dialect, ToOwned::to_owned)
}

/// The same; `shown` is the form in which apps show a run of text outside of links and code.
#[must_use]
pub fn parsed_as_shown(html: &str, dialect: Dialect, shown: fn(&str) -> String) -> Option<Body> {
    if !limits::is_within_limits(html) {
        return None;
    }
    let document = Html::parse(html);
    let reader = Reader { dialect, shown };
    let mut flow = Flow::default();
    for node in document.children() {
        reader.flow(&Node::from_dom(node), 0, &mut flow);
    }
    Some(Body(flow.finish()))
}

/// The blocks parsed so far, and the current line.
#[derive(Default)]
struct Flow {
    blocks: Vec<Block>,
    line: Vec<Inline>,
}

impl Flow {
    fn end_line(&mut self) {
        let line = whitespace::normalized(std::mem::take(&mut self.line));
        if !line.is_empty() {
            self.blocks.push(Block::Paragraph(line));
        }
    }

    fn push(&mut self, block: Block) {
        self.end_line();
        self.blocks.push(block);
    }

    fn finish(mut self) -> Vec<Block> {
        self.end_line();
        self.blocks
    }
}

struct Reader {
    dialect: Dialect,
    shown: fn(&str) -> String,
}

impl Reader {
    /// Parses one node where blocks are allowed. `depth` counts the levels of the tree around it.
    fn flow(&self, node: &Node, depth: usize, flow: &mut Flow) {
        let Some(element) = node.element() else {
            self.inline(node, depth, &mut flow.line);
            return;
        };
        match tag(element) {
            "mx-reply" if self.dialect == Dialect::Matrix => {}
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                let level = tag(element)
                    .as_bytes()
                    .get(1)
                    .map_or(1, |digit| digit - b'0');
                let line = whitespace::normalized(self.inlines(node, depth + 1));
                if !line.is_empty() {
                    flow.push(Block::Heading(level, line));
                }
            }
            "pre" => flow.push(self.code(node)),
            "hr" => flow.push(Block::Rule),
            "blockquote" if depth < MAX_DEPTH => {
                let inner = self.blocks(node, depth + 1);
                if !inner.is_empty() {
                    flow.push(Block::Quote(inner));
                }
            }
            "ul" | "ol" if depth < MAX_DEPTH => {
                if let Some(list) = self.list(node, element, depth + 1) {
                    flow.push(list);
                }
            }
            "table" if depth < MAX_DEPTH => {
                let rows = self.rows(node, depth + 1);
                if !rows.is_empty() {
                    flow.push(Block::Table(rows));
                }
            }
            "div" if self.dialect == Dialect::Matrix && maths(element).is_some() => {
                flow.push(Block::Maths(maths(element).unwrap_or_default()));
            }
            // Boxes without a meaning of their own, and whatever is nested too deep.
            name if is_block(name) => {
                flow.end_line();
                self.flow_children(node, depth, flow);
                flow.end_line();
            }
            _ if node.holds_blocks => self.flow_children(node, depth, flow),
            _ => self.inline(node, depth, &mut flow.line),
        }
    }

    fn flow_children(&self, node: &Node, depth: usize, flow: &mut Flow) {
        for child in &node.children {
            self.flow(child, depth, flow);
        }
    }

    fn blocks(&self, node: &Node, depth: usize) -> Vec<Block> {
        let mut flow = Flow::default();
        self.flow_children(node, depth, &mut flow);
        flow.finish()
    }

    fn list(&self, node: &Node, element: &ElementData, depth: usize) -> Option<Block> {
        let mut items: Vec<Vec<Block>> = Vec::new();
        for child in &node.children {
            let is_item = child.element().is_some_and(|item| tag(item) == "li");
            let blocks = if is_item {
                self.blocks(child, depth)
            } else {
                let mut flow = Flow::default();
                self.flow(child, depth, &mut flow);
                flow.finish()
            };
            if !blocks.is_empty() {
                items.push(blocks);
            }
        }
        let start = (tag(element) == "ol").then(|| {
            attribute(element, "start")
                .and_then(|start| start.trim().parse().ok())
                .unwrap_or(1)
        });
        (!items.is_empty()).then_some(Block::List { start, items })
    }

    fn rows(&self, node: &Node, depth: usize) -> Vec<Vec<Vec<Inline>>> {
        let mut rows = Vec::new();
        for child in &node.children {
            let Some(element) = child.element() else {
                continue;
            };
            if tag(element) != "tr" {
                rows.extend(self.rows(child, depth));
                continue;
            }
            let cells: Vec<_> = child
                .children
                .iter()
                .filter(|cell| cell.element().is_some())
                .map(|cell| whitespace::normalized(self.inlines(cell, depth + 1)))
                .collect();
            if !cells.is_empty() {
                rows.push(cells);
            }
        }
        rows
    }

    fn code(&self, node: &Node) -> Block {
        let class = node.children.iter().find_map(|child| {
            let element = child.element()?;
            (tag(element) == "code").then(|| attribute(element, "class"))?
        });
        let language = class.and_then(|class| {
            class.split_ascii_whitespace().find_map(|word| {
                let name = match self.dialect {
                    Dialect::Matrix => word.strip_prefix("language-")?,
                    Dialect::Gitter => word.strip_prefix("language-").unwrap_or(word),
                };
                is_language(name).then(|| name.to_ascii_lowercase())
            })
        });
        let mut text = String::new();
        raw_text(node, &mut text);
        let text = sanitized(&text);
        Block::Code {
            language,
            text: text.trim_end_matches('\n').to_owned(),
        }
    }

    fn inlines(&self, node: &Node, depth: usize) -> Vec<Inline> {
        let mut out = Vec::new();
        for child in &node.children {
            self.inline(child, depth, &mut out);
        }
        out
    }

    /// Parses one node where only running text is allowed.
    fn inline(&self, node: &Node, depth: usize, out: &mut Vec<Inline>) {
        if let Some(text) = node.dom.as_text() {
            out.push(Inline::Text((self.shown)(&sanitized(&text.borrow()))));
            return;
        }
        let Some(element) = node.element() else {
            return;
        };
        match tag(element) {
            "script" | "style" | "head" | "title" | "template" | "mx-reply" => {}
            "br" => out.push(Inline::Break),
            "img" => out.extend(self.image(element)),
            "code" | "tt" | "kbd" | "samp" => {
                let mut text = String::new();
                raw_text(node, &mut text);
                let text = sanitized(&text).replace('\n', " ");
                if !text.is_empty() {
                    out.push(Inline::Code(text));
                }
            }
            "a" if depth < MAX_DEPTH => self.anchor(node, element, depth, out),
            "span" => self.span(node, element, depth, out),
            name => {
                let wrap: Option<fn(Vec<Inline>) -> Inline> = match name {
                    "b" | "strong" => Some(Inline::Bold),
                    "i" | "em" | "cite" => Some(Inline::Italic),
                    "del" | "s" | "strike" => Some(Inline::Strike),
                    _ => None,
                };
                self.wrapped(node, depth, wrap, out);
                if is_block(name) {
                    out.push(Inline::Break);
                }
            }
        }
    }

    fn wrapped(
        &self,
        node: &Node,
        depth: usize,
        wrap: Option<fn(Vec<Inline>) -> Inline>,
        out: &mut Vec<Inline>,
    ) {
        match wrap {
            Some(wrap) if depth < MAX_DEPTH => {
                let inner = self.inlines(node, depth + 1);
                if !inner.is_empty() {
                    out.push(wrap(inner));
                }
            }
            _ => out.extend(self.inlines(node, depth)),
        }
    }

    fn span(&self, node: &Node, element: &ElementData, depth: usize, out: &mut Vec<Inline>) {
        match self.dialect {
            Dialect::Matrix => {
                if let Some(maths) = maths(element) {
                    out.push(Inline::Maths(maths));
                } else if attribute(element, "data-mx-spoiler").is_some() {
                    self.wrapped(node, depth, Some(Inline::Spoiler), out);
                } else {
                    self.wrapped(node, depth, None, out);
                }
            }
            Dialect::Gitter => {
                let class = attribute(element, "class").unwrap_or_default();
                if class.split_ascii_whitespace().any(|word| word == "katex") {
                    out.extend(maths_source(node).map(Inline::Maths));
                    return;
                }
                match attribute(element, "data-link-type").as_deref() {
                    Some("mention") => {
                        let name = attribute(element, "data-screen-name").unwrap_or_default();
                        let name = sanitized(&name).into_owned();
                        out.push(Inline::Mention {
                            id: name.clone(),
                            name,
                        });
                    }
                    _ => self.wrapped(node, depth, None, out),
                }
            }
        }
    }

    fn anchor(&self, node: &Node, element: &ElementData, depth: usize, out: &mut Vec<Inline>) {
        let in_link = Self {
            shown: ToOwned::to_owned,
            ..*self
        };
        let label = in_link.inlines(node, depth + 1);
        // Gitter's server puts a scheme in front of `mailto:`.
        let href = attribute(element, "href").map(|href| match href.strip_prefix("http://") {
            Some(address) if address.starts_with("mailto:") => address.to_owned(),
            _ => href,
        });
        let Some(href) = href.and_then(|href| safe_href(&href)) else {
            out.extend(label);
            return;
        };
        if self.dialect == Dialect::Matrix
            && let Some(id) = matrix_to_user(&href)
        {
            let name = plain_inlines(&label);
            let name = name.trim().trim_start_matches('@');
            out.push(Inline::Mention {
                name: if name.is_empty() {
                    id.clone()
                } else {
                    name.to_owned()
                },
                id,
            });
            return;
        }
        // HTML does not allow a link in a link.
        let label = whitespace::without_links(label);
        out.push(Inline::Link { href, label });
    }

    fn image(&self, element: &ElementData) -> Option<Inline> {
        let alt = attribute(element, "alt")
            .or_else(|| attribute(element, "title"))
            .map(|alt| sanitized(&alt).trim().to_owned())
            .filter(|alt| !alt.is_empty());
        match self.dialect {
            Dialect::Matrix => alt.map(Inline::Text),
            Dialect::Gitter => {
                let href = attribute(element, "src").and_then(|src| safe_href(&src));
                let shown = alt.clone().or_else(|| href.clone());
                match href {
                    Some(href) => Some(Inline::Link {
                        href,
                        label: shown.map(Inline::Text).into_iter().collect(),
                    }),
                    None => alt.map(Inline::Text),
                }
            }
        }
    }
}
