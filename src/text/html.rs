//! HTML → the neutral tree. Untrusted input: only what the tree knows gets through, everything else leaves
//! nothing but its text. The parser behind it builds a tree of its own whose size and depth an attacker could
//! choose, so a linear look at the tags comes first and decides whether it is asked at all.

mod guard;
mod tidy;

use ruma_html::{ElementData, Html, NodeRef};

use super::{Block, Body, Inline, MAX_DEPTH, cleaned, plain_inlines};

/// Whose HTML it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The subset of the Matrix specification (client-server API, `m.room.message`).
    Matrix,
    /// What Gitter's server renders.
    Gitter,
}

/// Reads HTML; where it is too large or too deep to be parsed, its text without tags.
#[must_use]
pub fn body_from_html(html: &str, dialect: Dialect) -> Body {
    parsed(html, dialect).unwrap_or_else(|| Body::plain(&guard::without_tags(html)))
}

/// Reads HTML, unless it is too large or too deep to be parsed.
#[must_use]
pub fn parsed(html: &str, dialect: Dialect) -> Option<Body> {
    if !guard::is_tame(html) {
        return None;
    }
    let document = Html::parse(html);
    let reader = Reader { dialect };
    let mut flow = Flow::default();
    for node in document.children() {
        reader.flow(&Twig::grown(node), 0, &mut flow);
    }
    Some(Body(flow.finish()))
}

/// A node with its children at hand: the parser's own tree finds each next sibling by searching for it.
struct Twig {
    node: NodeRef,
    children: Vec<Twig>,
    /// Whether a block stands anywhere below.
    holds_blocks: bool,
}

impl Twig {
    /// The guard has bounded the depth.
    fn grown(node: NodeRef) -> Self {
        let children: Vec<Self> = node.children().map(Self::grown).collect();
        let holds_blocks = children.iter().any(|child| {
            child.holds_blocks
                || child
                    .element()
                    .is_some_and(|element| is_block(tag(element)))
        });
        Self {
            node,
            children,
            holds_blocks,
        }
    }

    fn element(&self) -> Option<&ElementData> {
        self.node.as_element()
    }
}

/// Blocks as they are read, and the line that is not yet one.
#[derive(Default)]
struct Flow {
    blocks: Vec<Block>,
    line: Vec<Inline>,
}

impl Flow {
    fn end_line(&mut self) {
        let line = tidy::tidied(std::mem::take(&mut self.line));
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
}

impl Reader {
    /// Reads one node where blocks may stand. `depth` counts the wrappers of the tree around it.
    fn flow(&self, node: &Twig, depth: usize, flow: &mut Flow) {
        let Some(element) = node.element() else {
            self.inline(node, depth, &mut flow.line);
            return;
        };
        match tag(element) {
            "mx-reply" if self.dialect == Dialect::Matrix => {}
            "p" | "div" | "details" | "summary" | "section" | "article" | "header" | "footer"
            | "center" | "dl" | "dt" | "dd" | "figure" | "figcaption" => {
                flow.end_line();
                self.flow_children(node, depth, flow);
                flow.end_line();
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                let level = tag(element)
                    .as_bytes()
                    .get(1)
                    .map_or(1, |digit| digit - b'0');
                let line = tidy::tidied(self.inlines(node, depth + 1));
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
            "blockquote" | "ul" | "ol" | "li" | "table" | "tr" | "caption" => {
                flow.end_line();
                self.flow_children(node, depth, flow);
                flow.end_line();
            }
            _ if node.holds_blocks => self.flow_children(node, depth, flow),
            _ => self.inline(node, depth, &mut flow.line),
        }
    }

    fn flow_children(&self, node: &Twig, depth: usize, flow: &mut Flow) {
        for child in &node.children {
            self.flow(child, depth, flow);
        }
    }

    fn blocks(&self, node: &Twig, depth: usize) -> Vec<Block> {
        let mut flow = Flow::default();
        self.flow_children(node, depth, &mut flow);
        flow.finish()
    }

    fn list(&self, node: &Twig, element: &ElementData, depth: usize) -> Option<Block> {
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

    fn rows(&self, node: &Twig, depth: usize) -> Vec<Vec<Vec<Inline>>> {
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
                .map(|cell| tidy::tidied(self.inlines(cell, depth + 1)))
                .collect();
            if !cells.is_empty() {
                rows.push(cells);
            }
        }
        rows
    }

    fn code(&self, node: &Twig) -> Block {
        let class = node
            .children
            .iter()
            .filter_map(|child| {
                let element = child.element()?;
                (tag(element) == "code").then(|| attribute(element, "class"))?
            })
            .next();
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
        let text = cleaned(&text);
        Block::Code {
            language,
            text: text.trim_end_matches('\n').to_owned(),
        }
    }

    fn inlines(&self, node: &Twig, depth: usize) -> Vec<Inline> {
        let mut out = Vec::new();
        for child in &node.children {
            self.inline(child, depth, &mut out);
        }
        out
    }

    /// Reads one node where only running text may stand.
    fn inline(&self, node: &Twig, depth: usize, out: &mut Vec<Inline>) {
        if let Some(text) = node.node.as_text() {
            out.push(Inline::Text(self.spoken(&text.borrow())));
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
                let text = cleaned(&text).replace('\n', " ");
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
        node: &Twig,
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

    fn span(&self, node: &Twig, element: &ElementData, depth: usize, out: &mut Vec<Inline>) {
        match self.dialect {
            Dialect::Matrix => {
                if let Some(maths) = attribute(element, "data-mx-maths") {
                    out.push(Inline::Code(cleaned(&maths).replace('\n', " ")));
                } else if attribute(element, "data-mx-spoiler").is_some() {
                    self.wrapped(node, depth, Some(Inline::Spoiler), out);
                } else {
                    self.wrapped(node, depth, None, out);
                }
            }
            Dialect::Gitter => {
                let class = attribute(element, "class").unwrap_or_default();
                if class.split_ascii_whitespace().any(|word| word == "katex") {
                    out.extend(maths_source(node).map(Inline::Code));
                    return;
                }
                match attribute(element, "data-link-type").as_deref() {
                    Some("mention") => {
                        let name = attribute(element, "data-screen-name").unwrap_or_default();
                        let name = cleaned(&name).into_owned();
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

    fn anchor(&self, node: &Twig, element: &ElementData, depth: usize, out: &mut Vec<Inline>) {
        let label = self.inlines(node, depth + 1);
        let Some(href) = attribute(element, "href").and_then(|href| allowed(&href)) else {
            out.extend(label);
            return;
        };
        if self.dialect == Dialect::Matrix
            && let Some(id) = pill(&href)
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
        // A link in a link would come out as one only by chance.
        let label = tidy::without_links(label);
        out.push(Inline::Link { href, label });
    }

    fn image(&self, element: &ElementData) -> Option<Inline> {
        let alt = attribute(element, "alt")
            .or_else(|| attribute(element, "title"))
            .map(|alt| cleaned(&alt).trim().to_owned())
            .filter(|alt| !alt.is_empty());
        match self.dialect {
            Dialect::Matrix => alt.map(Inline::Text),
            Dialect::Gitter => {
                let href = attribute(element, "src").and_then(|src| allowed(&src));
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

    /// Characters as their author meant them.
    fn spoken(&self, text: &str) -> String {
        match self.dialect {
            Dialect::Matrix => cleaned(text).into_owned(),
            Dialect::Gitter => super::with_emoji(&cleaned(text)),
        }
    }
}

fn tag(element: &ElementData) -> &str {
    &element.name.local
}

fn attribute(element: &ElementData, name: &str) -> Option<String> {
    element
        .attrs
        .borrow()
        .iter()
        .find(|attribute| &*attribute.name.local == name)
        .map(|attribute| attribute.value.to_string())
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "p" | "div"
            | "details"
            | "summary"
            | "section"
            | "article"
            | "header"
            | "footer"
            | "center"
            | "dl"
            | "dt"
            | "dd"
            | "figure"
            | "figcaption"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "pre"
            | "hr"
            | "blockquote"
            | "ul"
            | "ol"
            | "li"
            | "table"
            | "tr"
            | "caption"
    )
}

/// A language name that may stand in an attribute or behind a fence.
fn is_language(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '#' | '_' | '.'))
}

/// All text below a node, as written; a `<br>` is a line feed.
fn raw_text(node: &Twig, out: &mut String) {
    for child in &node.children {
        if let Some(text) = child.node.as_text() {
            out.push_str(&text.borrow());
        } else if let Some(element) = child.element() {
            match tag(element) {
                "br" => out.push('\n'),
                "script" | "style" => {}
                _ => raw_text(child, out),
            }
        }
    }
}

/// The TeX that a KaTeX span was made of.
fn maths_source(node: &Twig) -> Option<String> {
    node.children.iter().find_map(|child| {
        let element = child.element()?;
        if tag(element) == "annotation" {
            let mut text = String::new();
            raw_text(child, &mut text);
            return Some(cleaned(&text).replace('\n', " "));
        }
        maths_source(child)
    })
}

/// The target of a link, if the tree may hold it: scheme known, nothing invisible in it.
fn allowed(href: &str) -> Option<String> {
    let href = href.trim();
    let (scheme, rest) = href.split_once(':')?;
    let known = ["http", "https", "mailto", "matrix"]
        .iter()
        .find(|known| scheme.eq_ignore_ascii_case(known))?;
    let visible = |c: char| !(c.is_control() || c.is_whitespace() || super::is_invisible(c));
    (!rest.is_empty() && href.len() <= 4096 && rest.chars().all(visible))
        .then(|| format!("{known}:{rest}"))
}

/// The person a link stands for: `https://matrix.to/#/@alice:example.org` or `matrix:u/alice:example.org`.
fn pill(href: &str) -> Option<String> {
    let id = if let Some(rest) = href.strip_prefix("https://matrix.to/#/") {
        let id = rest
            .split('?')
            .next()?
            .replace("%40", "@")
            .replace("%3A", ":");
        id.starts_with('@').then_some(id)?
    } else {
        let id = href.strip_prefix("matrix:u/")?.split('?').next()?;
        format!("@{id}")
    };
    let bare = !id.contains('/') && id.len() <= 255;
    (bare && id.contains(':')).then_some(id)
}
