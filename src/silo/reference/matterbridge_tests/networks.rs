//! What Matterbridge does to a text (`gateway.go` and the `Send` of each network, v1.26.1-dev), and whom the text
//! mentions in the networks behind it: their grammars, reimplemented independently of the bridge's writer. Where a text
//! could be read in two ways, the reading with a mention counts.

use std::{collections::HashSet, sync::LazyLock};

use crate::reference::mattermost;

/// The members of every channel, by the names that their networks match.
pub const PEOPLE: [&str; 4] = ["bob", "Ann B", "ann", "carl"];
const EVERYBODY: [&str; 6] = ["all", "here", "channel", "everyone", "room", "online"];

/// The names that kyokomi/emoji publishes, except flags, which match a pattern: `:flag-([a-z]{2}):`.
static NAMES: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let lines = include_str!("../../matterbridge/emoji.txt").lines();
    let lines = lines.filter(|line| !line.starts_with("# "));
    lines.flat_map(|line| line.split(' ')).collect()
});

fn is_name(read: &str) -> bool {
    let is_flag = |code: &str| matches!(code.as_bytes(), [b'a'..=b'z', b'a'..=b'z']);
    NAMES.contains(read) || read.strip_prefix("flag-").is_some_and(is_flag)
}

/// `emoji.Sprint` of kyokomi/emoji, as its loop over runes does it.
pub fn emojized(text: &str) -> String {
    let mut out = String::new();
    let mut name: Option<String> = None;
    for c in text.chars() {
        match (&mut name, c) {
            (None, ':') => name = Some(String::new()),
            (None, c) => out.push(c),
            (Some(read), ':') if read.is_empty() => out.push(':'),
            (Some(read), ':') => {
                if is_name(read) {
                    out.push('🙂');
                } else {
                    out.extend([":", read, ":"]);
                }
                name = None;
            }
            (Some(read), c) if c.is_whitespace() => {
                out.extend([":", read]);
                out.push(c);
                name = None;
            }
            (Some(read), c) => read.push(c),
        }
    }
    if let Some(read) = name {
        out.extend([":", &read]);
    }
    out
}

/// What the networks receive for a text: under each kind of `RemoteNickFormat`, and as the emote of Mattermost, Slack
/// and IRC.
pub fn handed_on(name: &str, text: &str) -> Vec<String> {
    let text = emojized(text);
    let formats = [
        ["", ""],
        ["", ": "],
        ["[matrix] <", "> "],
        ["**", "** "],
        ["`", "` "],
        ["[", "] "],
    ];
    let wraps = ["", "*", "_"];
    let all = formats.iter().flat_map(|[before, behind]| {
        let nick = format!("{before}{name}{behind}");
        let text = &text;
        wraps.map(|wrap| format!("{nick}{wrap}{text}{wrap}"))
    });
    // Some networks show the name outside of the text.
    all.chain([text.clone(), format!("*{text}*")]).collect()
}

/// The network whose grammar finds a mention.
pub fn caller(text: &str) -> Option<&'static str> {
    type Calls = fn(&str) -> bool;
    let networks: [(&str, Calls); 9] = [
        ("Mattermost", mattermost::calls),
        ("Slack", slack),
        ("Discord", discord),
        ("Telegram", telegram),
        ("Rocket.Chat", rocket_chat),
        ("Zulip", zulip),
        ("VK", vk),
        ("Matrix", matrix),
        ("Nextcloud Talk", nextcloud),
    ];
    networks
        .iter()
        .find_map(|(name, calls)| calls(text).then_some(*name))
}

/// What precedes and follows each occurrence of a mark.
fn places<'t>(text: &'t str, mark: &'t str) -> impl Iterator<Item = (Option<char>, &'t str)> {
    text.match_indices(mark).map(move |(at, mark)| {
        let before = text[..at].chars().next_back();
        (before, &text[at + mark.len()..])
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn begins(text: &str, word: &str) -> bool {
    text.to_lowercase().starts_with(&word.to_lowercase())
}

/// `<@U1>`, `<!here>`, `<!subteam^S1>`, and with `link_names`, which Matterbridge sets, every `@name`; the same in
/// Mattermost's incoming webhooks.
fn slack(text: &str) -> bool {
    let marks = ["<@", "<!"];
    let marked = marks.iter().any(|mark| {
        places(text, mark)
            .any(|(_, behind)| behind.starts_with(|c: char| c.is_ascii_alphanumeric()))
    });
    let named = |(before, behind): (Option<char>, &str)| {
        !before.is_some_and(is_word) && behind.starts_with(is_word)
    };
    marked || places(text, "@").any(named)
}

/// `<@1>`, `<@&1>`, `@everyone` and `@here` anywhere; Matterbridge itself looks after every `@` for a member's name.
fn discord(text: &str) -> bool {
    let id = |behind: &str| {
        let behind = behind.strip_prefix(['!', '&']).unwrap_or(behind);
        let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        digits > 0 && behind[digits..].starts_with('>')
    };
    places(text, "<@").any(|(_, behind)| id(behind))
        || places(text, "@").any(|(_, behind)| {
            let words = ["everyone", "here"].iter().chain(&PEOPLE);
            let mut words = words.map(|word| behind.strip_prefix(word));
            words.any(|rest| {
                rest.is_some_and(|rest| !rest.starts_with(is_word) && !rest.starts_with('.'))
            })
        })
}

/// `@name` that does not continue a word, and links to accounts. In its HTML mode Matterbridge parses Markdown first,
/// and in either mode, as in Telegram's own, backslashes are removed from addresses.
fn telegram(text: &str) -> bool {
    let text = decoded(text);
    let name = |(before, behind): (Option<char>, &str)| {
        !before.is_some_and(is_word) && behind.starts_with(|c: char| c.is_ascii_alphabetic())
    };
    let lower = text.replace('\\', "").to_lowercase();
    // An address ends where its link ends.
    let ends = |c: char| c.is_whitespace() || matches!(c, ')' | '"' | '\'' | '>');
    let link = |(_, behind): (Option<char>, &str)| {
        let end = behind.find(ends).unwrap_or(behind.len());
        calls_account(&behind[..end])
    };
    places(&text, "@").any(name) || places(&lower, "tg:").any(link)
}

/// Whether the text after `tg:` is a link to an account, by `get_link_user_id` of `TDLib`: two slashes or none, `user`,
/// a slash or none, and `id` among the query parameters, up to a `#`.
fn calls_account(link: &str) -> bool {
    let host = link.strip_prefix("//").unwrap_or(link);
    let Some(behind) = host.strip_prefix("user") else {
        return false;
    };
    let Some(query) = behind.strip_prefix('/').unwrap_or(behind).strip_prefix('?') else {
        return false;
    };
    let query = query.split('#').next().unwrap_or_default();
    let mut ids = query.split('&').filter_map(|one| one.strip_prefix("id="));
    ids.next()
        .is_some_and(|id| id.parse().is_ok_and(|id: i64| id > 0))
}

/// `@name` at the beginning, after white space or after an angle bracket.
fn rocket_chat(text: &str) -> bool {
    places(text, "@").any(|(before, behind)| {
        before.is_none_or(|c| c.is_whitespace() || c == '>')
            && behind.starts_with(|c: char| is_word(c) || c == '.' || c == '-')
    })
}

/// `@**Ann B**`, silent as `@_**Ann B**`, and `@*group*`.
fn zulip(text: &str) -> bool {
    places(text, "@").any(|(_, behind)| {
        let name = behind.strip_prefix('_').unwrap_or(behind);
        let name = name.strip_prefix("**").or_else(|| name.strip_prefix('*'));
        name.is_some_and(|name| name.starts_with(|c: char| !c.is_whitespace() && c != '*'))
    })
}

/// `[id1|Ann]`, `*id1`, `@id1`, `*all` and similar.
fn vk(text: &str) -> bool {
    let account = |behind: &str| {
        ["id", "club", "public", "event"].iter().any(|word| {
            begins(behind, word) && behind[word.len()..].starts_with(|c: char| c.is_ascii_digit())
        })
    };
    let all = |behind: &str| EVERYBODY.iter().any(|word| begins(behind, word));
    places(text, "[").any(|(_, behind)| account(behind))
        || places(text, "*").any(|(_, behind)| account(behind) || all(behind))
        || places(text, "@").any(|(before, behind)| {
            !before.is_some_and(is_word) && (account(behind) || all(behind))
        })
}

/// `@room`, and complete user ids, as text or in the address of a link.
fn matrix(text: &str) -> bool {
    places(text, "@").any(|(before, behind)| {
        let is_id = || {
            let local = behind.find(|c: char| !c.is_ascii_alphanumeric() && !"._=-/+".contains(c));
            local.is_some_and(|local| local > 0 && behind[local..].starts_with(':'))
        };
        (begins(behind, "room") || is_id()) && !before.is_some_and(is_word)
    })
}

/// `@name` and `@"name with spaces"`.
fn nextcloud(text: &str) -> bool {
    places(text, "@").any(|(before, behind)| {
        !before.is_some_and(is_word) && behind.starts_with(|c: char| is_word(c) || c == '"')
    })
}

/// Whether the text contains a name without a mark: IRC and XMPP clients look for it, and Mattermost for users who
/// chose that.
pub fn names(text: &str, name: &str) -> bool {
    let letter = |c: char| matches!(c, '_') || c.is_alphanumeric();
    text.split(|c| !letter(c))
        .any(|word| word.eq_ignore_ascii_case(name))
}

/// Character references, as HTML and Markdown read them. The semicolon may be missing.
fn decoded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        out.push_str(before);
        rest = behind;
        if let Some(behind) = behind.strip_prefix("commat;") {
            (out, rest) = (out + "@", behind);
            continue;
        }
        let digits = behind
            .strip_prefix("#x")
            .or_else(|| behind.strip_prefix("#X"));
        let (digits, radix) = match digits {
            Some(digits) => (digits, 16),
            None => (behind.strip_prefix('#').unwrap_or_default(), 10),
        };
        let end = digits
            .find(|c: char| !c.is_digit(radix))
            .unwrap_or(digits.len());
        let c = u32::from_str_radix(&digits[..end], radix)
            .ok()
            .and_then(char::from_u32);
        match c {
            Some(c) => {
                out.push(c);
                rest = digits[end..].strip_prefix(';').unwrap_or(&digits[end..]);
            }
            None => out.push('&'),
        }
    }
    out + rest
}
