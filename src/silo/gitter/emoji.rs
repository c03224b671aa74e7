//! Emoji as Gitter's apps show them: from Gitter's own list, and by its own rules for where a shortcode counts.

use std::sync::LazyLock;

use crate::shortcodes::ShortcodeTable;

static NAMES: LazyLock<ShortcodeTable> =
    LazyLock::new(|| ShortcodeTable::read(include_str!("emoji.txt")));

/// Whether Gitter shows a picture for this name.
pub fn is_name(name: &str) -> bool {
    NAMES.has(name)
}

/// What a text shows in Gitter's apps (`emojify.run`, of one text node): a shortcode counts at either end of the text,
/// after a blank and after another emoji. Names that Unicode does not have stay text.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut at, mut copied, mut last_end) = (0, 0, None);
    while let Some((start, name)) = next_name(text, at) {
        let end = start + name.len() + 2;
        // Both colons are consumed, whether or not the name counts.
        at = end;
        let before = text.get(..start).unwrap_or_default();
        let counts = start == 0
            || end == text.len()
            || last_end == Some(start)
            || before.ends_with([' ', '\t', '\r', '\n']);
        if !counts || !is_name(name) {
            continue;
        }
        last_end = Some(end);
        if let Some(emoji) = NAMES.emoji_of(name) {
            out.push_str(text.get(copied..start).unwrap_or_default());
            out.push_str(emoji);
            copied = end;
        }
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}

/// The next name between colons, and the position of the first colon.
fn next_name(text: &str, from: usize) -> Option<(usize, &str)> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let colons = text.get(from..)?.match_indices(':');
    colons.map(|(at, _)| from + at).find_map(|start| {
        let behind = text.get(start + 1..)?;
        // The only name with another character.
        let end = match behind.strip_prefix("+1") {
            Some(_) => 2,
            None => behind.find(|c| !in_name(c))?,
        };
        let (name, rest) = behind.split_at_checked(end)?;
        (!name.is_empty() && rest.starts_with(':')).then_some((start, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shortcodes::digest;

    /// The digest of the names in Gitter's own file, sorted by bytes, joined with commas.
    const PUBLISHED: &str = "cf05e8e031dba92ae864fd533fe361709096ef5993cd61371993cc81739650e9";

    #[test]
    fn the_list_is_the_one_that_gitter_publishes() {
        let all = NAMES.all();
        assert_eq!(all.len(), 882);
        let names: Vec<&str> = all.keys().copied().collect();
        assert_eq!(digest(&names.join(",")), PUBLISHED);
    }

    #[test]
    fn each_name_is_of_an_emoji_of_unicode_or_of_a_picture_of_gitters_own() {
        let mut own = Vec::new();
        for (name, emoji) in NAMES.all() {
            match emoji {
                Some(emoji) => assert!(emojis::get(emoji).is_some(), "{name}"),
                None => own.push(name),
            }
        }
        assert_eq!(
            own.join(" "),
            "bowtie feelsgood finnadie goberserk godmode hurtrealbad neckbeard octocat rage1 rage2 rage3 rage4 shipit squirrel \
             suspect trollface"
        );
        // Other lists give these names another meaning, or none.
        for (name, emoji) in [
            ("satellite", "📡"),
            ("snowman", "⛄\u{fe0f}"),
            ("umbrella", "☔\u{fe0f}"),
            ("black_square", "⬛"),
            ("kissing_face", "😚"),
            ("plus1", "👍"),
            ("slight_smile", "🙂"),
        ] {
            assert_eq!(NAMES.emoji_of(name), Some(emoji), "{name}");
        }
    }

    #[test]
    fn a_name_counts_where_gitter_shows_it() {
        for (text, seen) in [
            (":tada:", "🎉"),
            ("hi :tada:, all", "hi 🎉, all"),
            (":tada:x x:tada:", "🎉x x🎉"),
            ("(:tada:) x:tada:y (:tada: x", "(:tada:) x:tada:y (:tada: x"),
            ("a\n:+1::-1: :plus1:", "a\n👍👎 👍"),
            (":shipit::tada:", ":shipit:🎉"),
            ("10:100:30 a :bb:tada: c:", "10:100:30 a :bb:tada: c:"),
            ("::tada: x", "::tada: x"),
            ("::tada:", ":🎉"),
            (":thinking: :Tada: : :: ", ":thinking: :Tada: : :: "),
            (":+1 :+10: :", ":+1 :+10: :"),
            ("é:tada: :é:tada:", "é:tada: :é🎉"),
        ] {
            assert_eq!(shown(text), seen, "{text}");
        }
    }
}
