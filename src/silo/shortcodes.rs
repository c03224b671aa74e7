//! Shortcodes of emoji, such as `:tada:`: the list that a silo publishes, in both directions.

use std::collections::HashMap;

/// The shortcodes of one silo.
pub struct ShortcodeTable {
    /// The emoji of each name; `None` for a custom picture that Unicode does not have.
    emoji: HashMap<&'static str, Option<&'static str>>,
    /// By the emoji without its variation selector.
    names: HashMap<String, &'static str>,
}

impl ShortcodeTable {
    /// Reads lines `emoji name name …`; the first name is the one that the bridge sends. A `-` stands for a custom
    /// picture of the silo, and a line that begins with `# ` is a comment.
    #[must_use]
    pub fn read(list: &'static str) -> Self {
        let (mut emoji, mut names) = (HashMap::new(), HashMap::new());
        for line in list.lines().filter(|line| !line.starts_with("# ")) {
            let mut words = line.split(' ');
            let character = words.next().filter(|character| *character != "-");
            for (place, name) in words.enumerate() {
                emoji.insert(name, character);
                if let Some(character) = character.filter(|_| place == 0) {
                    names.insert(bare(character), name);
                }
            }
        }
        Self { emoji, names }
    }

    /// Whether the silo shows this name as an emoji or a picture.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.emoji.contains_key(name)
    }

    /// The emoji of a name; `None` for unknown names and for custom pictures.
    #[must_use]
    pub fn emoji_of(&self, name: &str) -> Option<&'static str> {
        self.emoji.get(name).copied().flatten()
    }

    /// The name of an emoji, with or without a variation selector.
    #[must_use]
    pub fn name_of(&self, emoji: &str) -> Option<&'static str> {
        self.names.get(&bare(emoji)).copied()
    }

    /// All names with their emoji.
    #[cfg(test)]
    pub fn all(&self) -> std::collections::BTreeMap<&'static str, Option<&'static str>> {
        self.emoji
            .iter()
            .map(|(name, emoji)| (*name, *emoji))
            .collect()
    }
}

/// Removes the variation selector, which some clients write and others do not.
#[must_use]
pub fn bare(emoji: &str) -> String {
    emoji.replace('\u{fe0f}', "")
}

/// SHA-256 in hexadecimal, to compare published lists.
#[cfg(test)]
pub fn digest(text: &str) -> String {
    use std::fmt::Write as _;

    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
