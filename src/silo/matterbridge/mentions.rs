//! Text that mentions nobody in any network that Matterbridge may forward it to. The target network is unknown, so
//! everything that mentions somebody in any of them is broken by a zero-width space, in code too: most of them know no
//! code.

use footbridge_core::text::{char_reference, is_at_reference};

use crate::markdown::{email, has_at_in_authority};

/// Ends a word invisibly.
pub(super) const ZERO_WIDTH_SPACE: char = '\u{200b}';
/// Group mentions, after an `@` or, on VK, an asterisk.
const GROUP_MENTIONS: [&str; 7] = [
    "everyone", "here", "channel", "all", "room", "group", "online",
];
/// How VK's mentions of an account or a group begin: `[id1|Ann]`.
const VK_PREFIXES: [&str; 4] = ["id", "club", "public", "event"];

/// The same text, mentioning nobody.
///
/// - An `@` before anything (Mattermost, Telegram, Rocket.Chat, Zulip's `@**all**`, `@_**ann**` and `@*group*`,
///   Discord's `@everyone`): separated from it, unless it is in a plain mail address. The name after it is broken as
///   well: IRC, and Mattermost for users who chose their name as a keyword, notify by the name alone.
/// - An `@` in a web address: written `%40`, which leads to the same place. The other marks are broken there as well.
/// - `<@1>`, `<@&1>`, `<#1>` of Discord, `<!channel>`, `<!subteam^1>` of Slack: broken after the `<`.
/// - `tg://user?id=1` of Telegram, which also accepts `tg:user?id=1` and backslashes in it: broken after the colon.
/// - `[id1|Ann]`, `*id1` and `*all` of VK: broken after their first mark.
/// - `&commat;` and `&#64;`, which are an `@` in the Markdown and HTML of several, and letters of `tg:user` written as
///   references: broken after their ampersand.
#[must_use]
pub fn escape_mentions(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    // The end of the present web address, and the replacement for an `@` in it.
    let mut address = (0, "");
    let mut name = MentionName::None;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let begins_word = text
            .get(..at)
            .and_then(|before| before.chars().next_back())
            .is_none_or(|c| c.is_whitespace() || c == '(');
        if at >= address.0
            && let Some(url) = web_address(rest)
        {
            // In the authority an `@` cannot be encoded: the text is no address then.
            let instead = if has_at_in_authority(url) {
                "@\u{200b}"
            } else {
                "%40"
            };
            address = (at + url.len(), instead);
        }
        if begins_word && let Some(address) = mail_address(rest) {
            out.push_str(address);
            at += address.len();
            continue;
        }
        let Some(c) = rest.chars().next() else { break };
        if c == '@' && at < address.0 {
            out.push_str(address.1);
            at += 1;
            continue;
        }
        at += c.len_utf8();
        let after = text.get(at..).unwrap_or_default();
        if name.ends_before(c) {
            out.push(ZERO_WIDTH_SPACE);
        }
        out.push(c);
        let calls = match c {
            '@' => {
                // Also at the end of a text: some networks wrap it in marks.
                let calls = !after.starts_with(char::is_whitespace);
                // A web address after an `@` stays one.
                if calls && web_address(after).is_none() {
                    name = MentionName::Awaited;
                }
                calls
            }
            '<' => after.starts_with(['@', '!', '#']),
            '*' => is_vk(after) || GROUP_MENTIONS.iter().any(|word| begins_with(after, word)),
            '[' => is_vk(after),
            '&' => is_at_reference(after) || is_telegram_reference(after),
            ':' => is_telegram(&out, after),
            _ => false,
        };
        if calls {
            out.push(ZERO_WIDTH_SPACE);
        }
    }
    out
}

/// The state of the name after an `@`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MentionName {
    /// There is no name.
    None,
    /// Only marks were read: `@**Ann**`.
    Awaited,
    /// Its first letter was read.
    Begun,
}

impl MentionName {
    /// Takes the next character. Returns whether it is the second letter of the name.
    fn ends_before(&mut self, c: char) -> bool {
        let is_letter = c.is_alphanumeric();
        let next = match self {
            Self::Awaited if is_letter => Self::Begun,
            Self::Awaited if !c.is_whitespace() && c != '@' => Self::Awaited,
            // A combining mark belongs to its letter.
            Self::Begun if !is_letter && !c.is_ascii() && !c.is_whitespace() => Self::Begun,
            _ => Self::None,
        };
        let ends = *self == Self::Begun && is_letter;
        *self = next;
        ends
    }
}

/// The same for a name, which Matterbridge's configuration may put between any marks: `<` and `>`, asterisks or
/// brackets.
#[must_use]
pub fn escape_name(name: &str) -> String {
    let name = escape_mentions(name);
    let calls_all = GROUP_MENTIONS.iter().any(|word| {
        begins_with(&name, word)
            && name
                .get(word.len()..)
                .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    });
    let opens = name.starts_with(['!', '#', '&']) || is_vk(&name) || calls_all;
    let ends = name.ends_with(['<', '[', '*', '@', '&']);
    let part = |is_needed: bool| if is_needed { "\u{200b}" } else { "" };
    format!("{}{name}{}", part(opens), part(ends))
}

/// The web address that this begins with, up to the next space.
fn web_address(text: &str) -> Option<&str> {
    let is_web = begins_with(text, "http://") || begins_with(text, "https://");
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '<' | '>'));
    is_web.then_some(text.get(..end.unwrap_or(text.len()))?)
}

/// The mail address that this begins with, if no network takes a part of it for a mention.
fn mail_address(text: &str) -> Option<&str> {
    let address = text.get(..email(text)?)?;
    let (_, host) = address.split_once('@')?;
    let calls = GROUP_MENTIONS.iter().any(|word| begins_with(host, word));
    (!calls).then_some(address)
}

fn is_vk(after: &str) -> bool {
    VK_PREFIXES.iter().any(|word| {
        let id = after.get(word.len()..).filter(|_| begins_with(after, word));
        id.is_some_and(|id| id.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn begins_with(text: &str, word: &str) -> bool {
    let head = text.get(..word.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(word))
}

/// Whether a colon between these belongs to a link by which Telegram mentions an account (`get_link_user_id` of
/// `TDLib`). Telegram finds such links in any letter case, and its parser removes backslashes before.
fn is_telegram(before: &str, after: &str) -> bool {
    let mut before = before.chars().rev().filter(|c| *c != '\\').skip(1);
    let mut scheme = || before.next().map(|c| c.to_ascii_lowercase());
    if (scheme(), scheme()) != (Some('g'), Some('t')) {
        return false;
    }
    let after = after.chars().filter(|c| *c != '\\');
    // Two slashes are enough.
    let behind = after.enumerate().skip_while(|(at, c)| *at < 2 && *c == '/');
    let host = behind.map(|(_, c)| c.to_ascii_lowercase());
    host.take(4).eq("user".chars())
}

/// Whether the character reference after this ampersand is a character of such a link: Telegram decodes them in
/// addresses.
fn is_telegram_reference(after: &str) -> bool {
    let c = char_reference(after).and_then(char::from_u32);
    c.is_some_and(|c| "tg:/user".contains(c.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether the text contains a mark that mentions somebody without an `@`.
    fn has_mark(sent: &str) -> bool {
        let sent = sent.to_lowercase();
        let mention = |(at, mark): (usize, &str)| {
            let after = sent[at + mark.len()..].chars().next();
            after.is_some_and(|c| c != ZERO_WIDTH_SPACE && !c.is_whitespace())
        };
        if sent.match_indices("<@").any(mention) {
            return true;
        }
        let ids = VK_PREFIXES
            .iter()
            .flat_map(|word| [format!("[{word}"), format!("*{word}")]);
        let id = |id: String| {
            let mut found = sent.match_indices(&id);
            found.any(|(at, id)| sent[at + id.len()..].starts_with(|c: char| c.is_ascii_digit()))
        };
        ["<!", "<#", "tg://user", "tg:user", "&commat;", "&#64;"]
            .iter()
            .any(|mark| sent.contains(mark))
            || ids.into_iter().any(id)
    }

    /// Texts of people, and what is sent.
    const SENT: &[(&str, &str)] = &[
        ("@everyone hi", "@\u{200b}e\u{200b}veryone hi"),
        ("hi @Here!", "hi @\u{200b}H\u{200b}ere!"),
        (
            "@bob, @-bob @b-o @b",
            "@\u{200b}b\u{200b}ob, @\u{200b}-b\u{200b}ob @\u{200b}b-o @\u{200b}b",
        ),
        ("@e\u{301}a", "@\u{200b}e\u{301}\u{200b}a"),
        ("@https://x.example/a", "@\u{200b}https://x.example/a"),
        (
            "@**all** @**Ann B**",
            "@\u{200b}**\u{200b}a\u{200b}ll** @\u{200b}**A\u{200b}nn B**",
        ),
        (
            "@_**Ann** @*team*",
            "@\u{200b}_**A\u{200b}nn** @\u{200b}*t\u{200b}eam*",
        ),
        ("@@all", "@\u{200b}@\u{200b}a\u{200b}ll"),
        ("a@example.org", "a@example.org"),
        ("(a@example.org)", "(a@example.org)"),
        ("a@everyone.example", "a@\u{200b}e\u{200b}veryone.example"),
        ("x/a@example.org", "x/a@\u{200b}e\u{200b}xample.org"),
        ("at home @ five", "at home @ five"),
        ("at home @", "at home @\u{200b}"),
        (
            "<@1234> <@&5> <#6> <!channel> <!subteam^S1> a < b",
            "<\u{200b}@\u{200b}1\u{200b}234> <\u{200b}@\u{200b}&5> <\u{200b}#6> <\u{200b}!channel> <\u{200b}!subteam^S1> a < b",
        ),
        (
            "https://medium.com/@al/post",
            "https://medium.com/%40al/post",
        ),
        ("xHTTP://a.b/?@all#@b", "xHTTP://a.b/?%40all#%40b"),
        ("http://@all", "http://@\u{200b}all"),
        ("@http://@all", "@\u{200b}http://@\u{200b}all"),
        (
            "https://al@x.example/@b",
            "https://al@\u{200b}x.example/@\u{200b}b",
        ),
        ("[x](TG://user?id=1)", "[x](TG:\u{200b}//user?id=1)"),
        ("[x](tg:User?id=1)", "[x](tg:\u{200b}User?id=1)"),
        ("<tg:/user/?a=b&id=1>", "<tg:\u{200b}/user/?a=b&id=1>"),
        (
            "[x](t\\g\\:/\\/us\\er?id=1)",
            "[x](t\\g\\:\u{200b}/\\/us\\er?id=1)",
        ),
        (
            "[x](tg&#58;user?id=1) [x](tg:&#x55;ser?id=1) &#x7A;",
            "[x](tg&\u{200b}#58;user?id=1) [x](tg:&\u{200b}#x55;ser?id=1) &#x7A;",
        ),
        (
            "tg:///user? atg: users tg:used",
            "tg:///user? atg: users tg:used",
        ),
        (
            "[id1|Ann] *all [idea]",
            "[\u{200b}id1|Ann] *\u{200b}all [idea]",
        ),
        (
            "*id1 (Ann) *club22 *idea",
            "*\u{200b}id1 (Ann) *\u{200b}club22 *idea",
        ),
        (
            "http://a[x](tg://user?id=1)",
            "http://a[x](tg:\u{200b}//user?id=1)",
        ),
        (
            "http://a/[id1|Ann]*id1*all(<!here",
            "http://a/[\u{200b}id1|Ann]*\u{200b}id1*\u{200b}all(<\u{200b}!here",
        ),
        (
            "https://x.example/Rust_(language)?q=[a]&b=*c*",
            "https://x.example/Rust_(language)?q=[a]&b=*c*",
        ),
        (
            "&commat;ann &#64;ann &#x40;all &amp; &#65;",
            "&\u{200b}commat;ann &\u{200b}#64;ann &\u{200b}#x40;all &amp; &#65;",
        ),
        ("gr\u{fc}n \u{1f986}", "gr\u{fc}n \u{1f986}"),
    ];

    #[test]
    fn b12_nobody_is_mentioned_on_any_network() {
        for (text, sent) in SENT {
            assert_eq!(escape_mentions(text), *sent);
        }
    }

    proptest! {
        /// Any remaining `@` precedes nothing, or is in a mail address between a name and a host.
        #[test]
        fn b12_no_text_mentions_anybody(pieces in prop::collection::vec(prop_oneof![
            prop::sample::select(vec!["@", "@all", "**", "http://", "https://x.example/", "a@b.example", "<", "!", "#", "/",
                "(", " ", "\n", "bob", "%", "tg:", "//user?", "user", "\\", "&#58;", "[id1", "*", "[", "[x](",
                "id1|Ann]", "club2", "&commat;", "&#64;"])
                .prop_map(str::to_owned),
            "\\PC{0,4}",
        ], 0..12)) {
            let sent = escape_mentions(&pieces.concat());
            for (at, _) in sent.match_indices('@') {
                let (before, after) = (&sent[..at], &sent[at + 1..]);
                let parted = after.is_empty() || after.starts_with(|c: char| c.is_whitespace() || c == ZERO_WIDTH_SPACE);
                let in_mail = before.ends_with(|c: char| c.is_ascii_alphanumeric())
                    && after.starts_with(|c: char| c.is_ascii_alphanumeric());
                prop_assert!(parted || in_mail, "{sent:?}");
                let names = GROUP_MENTIONS.iter().any(|word| begins_with(after, word));
                prop_assert!(!names, "{sent:?}");
            }
            prop_assert!(!has_mark(&sent), "{sent:?}");
        }

        /// No name mentions anybody either, whatever marks surround it.
        #[test]
        fn b12_no_name_between_marks_mentions_anybody(pieces in prop::collection::vec(prop_oneof![
            prop::sample::select(vec!["!", "#", "&", "@", "<", "[", "*", "channel", "subteam^S1", "id1|Ann", "club1", "all",
                "commat;", "#64;", " ", "Ann"]).prop_map(str::to_owned),
            "\\PC{0,2}",
        ], 0..6)) {
            let name = escape_name(&pieces.concat());
            for (before, behind) in [("[matrix] <", "> hi"), ("[", "] hi"), ("*", "* id1"), ("**", "** !here"), ("<", ">@x"),
                ("", "#1"), ("", "!here")] {
                let sent = format!("{before}{name}{behind}");
                prop_assert!(!has_mark(&sent), "{sent:?}");
            }
        }
    }
}
