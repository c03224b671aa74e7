//! The parsed document in a form that is cheap to traverse.

use ruma_html::{ElementData, NodeRef};

use super::markup::{is_block, tag};
use crate::text::sanitized;

/// A node with its children: the parser library's own tree finds each next sibling by a search.
pub(super) struct Node {
    pub(super) dom: NodeRef,
    pub(super) children: Vec<Node>,
    /// Whether a descendant is a block.
    pub(super) holds_blocks: bool,
}

impl Node {
    /// The scan of the tags has bounded the depth.
    pub(super) fn from_dom(node: NodeRef) -> Self {
        let children: Vec<Self> = node.children().map(Self::from_dom).collect();
        let holds_blocks = children.iter().any(|child| {
            child.holds_blocks
                || child
                    .element()
                    .is_some_and(|element| is_block(tag(element)))
        });
        Self {
            dom: node,
            children,
            holds_blocks,
        }
    }

    pub(super) fn element(&self) -> Option<&ElementData> {
        self.dom.as_element()
    }
}

/// All text below a node, as written; a `<br>` is a line feed.
pub(super) fn raw_text(node: &Node, out: &mut String) {
    for child in &node.children {
        if let Some(text) = child.dom.as_text() {
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

/// The TeX source of a `KaTeX` span.
pub(super) fn maths_source(node: &Node) -> Option<String> {
    node.children.iter().find_map(|child| {
        let element = child.element()?;
        if tag(element) == "annotation" {
            let mut text = String::new();
            raw_text(child, &mut text);
            return Some(sanitized(&text).replace('\n', " "));
        }
        maths_source(child)
    })
}
