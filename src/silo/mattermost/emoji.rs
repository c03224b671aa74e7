//! Emoji as Mattermost names them: by the shortcodes of GitHub, and by names of its own for what a team has made itself.

use crate::reactions;

/// How a name ends that says a colour of skin.
const SKIN: &str = "_skin_tone";

/// The name of an emoji; `None` where Mattermost has none for it.
pub fn name_of(key: &str) -> Option<String> {
    if let Some(emoji) = emojis::get(key) {
        let plain = emoji.with_skin_tone(emojis::SkinTone::Default);
        return plain.unwrap_or(emoji).shortcode().map(str::to_owned);
    }
    let own = key.strip_prefix(':')?.strip_suffix(':')?;
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_+-".contains(c);
    (!own.is_empty() && own.chars().all(known)).then(|| own.to_owned())
}

/// What people mean by a name: the emoji, or for one that a team has made itself its shortcode.
pub fn key_of(name: &str) -> Option<String> {
    let plain = name.strip_suffix(SKIN).and_then(|name| {
        let tones = [
            "_medium_light",
            "_medium_dark",
            "_light",
            "_medium",
            "_dark",
        ];
        tones.iter().find_map(|tone| name.strip_suffix(tone))
    });
    let mut known = [Some(name), plain].into_iter().flatten();
    let emoji = known.find_map(emojis::get_by_shortcode);
    match emoji {
        Some(emoji) => Some(emoji.as_str().to_owned()),
        None => reactions::key(&format!(":{name}:")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emoji_and_their_names() {
        for (key, name) in [("👍", "+1"), ("🎉", "tada"), (":shipit:", "shipit")] {
            assert_eq!(name_of(key).as_deref(), Some(name), "{key}");
            assert_eq!(key_of(name).as_deref(), Some(key), "{name}");
        }
        assert_eq!(name_of("👍🏽").as_deref(), Some("+1"));
        assert_eq!(key_of("thumbsup").as_deref(), Some("👍"));
        assert_eq!(key_of("+1_medium_skin_tone").as_deref(), Some("👍"));
        assert_eq!(name_of("yes"), None);
        assert_eq!(name_of(":a b:"), None);
    }
}
