//! The parsed document in a shape that is cheap to walk.

use ruma_html::{ElementData, NodeRef};

use super::markup::{is_block, tag};
use crate::text::cleaned;

/// A node with its children at hand: the parser's own tree finds each next sibling by searching for it.
pub(super) struct Twig {
    pub(super) node: NodeRef,
    pub(super) children: Vec<Twig>,
    /// Whether a block stands anywhere below.
    pub(super) holds_blocks: bool,
}

impl Twig {
    /// The guard has bounded the depth.
    pub(super) fn grown(node: NodeRef) -> Self {
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

    pub(super) fn element(&self) -> Option<&ElementData> {
        self.node.as_element()
    }
}

/// All text below a node, as written; a `<br>` is a line feed.
pub(super) fn raw_text(node: &Twig, out: &mut String) {
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

/// The TeX that a `KaTeX` span was made of.
pub(super) fn maths_source(node: &Twig) -> Option<String> {
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
