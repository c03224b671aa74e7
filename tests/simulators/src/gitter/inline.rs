//! What Gitter recognises inside a run of text: bare links, addresses, mentions, issues, commits and formulas.

use super::markdown::{Issue, Named, Rendered};

/// Escapes text for HTML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// The target of a link: a missing scheme becomes http, a dangerous one is removed.
pub(super) fn safe_url(url: &str) -> String {
    let lower = url.trim().to_ascii_lowercase();
    if ["javascript:", "data:", "vbscript:"]
        .iter()
        .any(|bad| lower.starts_with(bad))
    {
        return "#".to_owned();
    }
    let has_scheme = lower.contains("://") || lower.starts_with("mailto:");
    if has_scheme || lower.starts_with(['#', '/']) {
        url.to_owned()
    } else {
        format!("http://{url}")
    }
}

/// The opening tag of a link.
pub(super) fn link_open(url: &str, found: &mut Rendered) -> String {
    let target = safe_url(url);
    let class = if target == url {
        "link "
    } else {
        "link link-tooltip"
    };
    if target.starts_with("http") {
        found.urls.push(target.clone());
    }
    format!(
        r#"<a href="{}" rel="nofollow noopener noreferrer" target="_blank" class="{class}">"#,
        escape(&target)
    )
}

/// The result of a finder at the start of a text: HTML, and how many bytes it covers.
type Piece = Option<(String, usize)>;

/// Renders one run of text.
pub(super) fn render(text: &str, found: &mut Rendered) -> String {
    let mut out = String::new();
    let mut previous: Option<char> = None;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let fresh = previous.is_none_or(|before| !before.is_alphanumeric() && before != '_');
        let piece = if fresh {
            formula(rest)
                .or_else(|| bare_url(rest, found))
                .or_else(|| address(rest))
                .or_else(|| mention(rest, previous, found))
                .or_else(|| repo_reference(rest, found))
                .or_else(|| issue(rest, found))
        } else {
            None
        };
        let length = if let Some((html, length)) = piece {
            out.push_str(&html);
            length
        } else {
            out.push_str(&escape(&rest[..first.len_utf8()]));
            first.len_utf8()
        };
        let (done, tail) = rest.split_at(length);
        previous = done.chars().next_back();
        rest = tail;
    }
    out
}

fn span(text: &str, accepts: impl Fn(char) -> bool) -> usize {
    text.find(|letter| !accepts(letter)).unwrap_or(text.len())
}

fn formula(text: &str) -> Piece {
    let body = text.strip_prefix("$$")?;
    let end = body.find("$$").filter(|end| *end > 0)?;
    let tex = escape(&body[..end]);
    let html = format!(
        "<span class=\"katex\"><span class=\"katex-mathml\"><math><semantics><mrow><mi>{tex}</mi></mrow>\
         <annotation encoding=\"application/x-tex\">{tex}</annotation></semantics></math></span>\
         <span class=\"katex-html\" aria-hidden=\"true\"><span class=\"mord\">{tex}</span></span></span>"
    );
    Some((html, end + 4))
}

fn bare_url(text: &str, found: &mut Rendered) -> Piece {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let www = lower.starts_with("www.");
    if !(www || lower.starts_with("http://") || lower.starts_with("https://")) {
        return None;
    }
    let end = span(text, |letter| {
        !letter.is_whitespace() && !"<>\"".contains(letter)
    });
    let url = trim_url(&text[..end]);
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    if host.is_empty() {
        return None;
    }
    if let Some(short) = shortened(url, found) {
        return Some((short, url.len()));
    }
    let open = link_open(url, found);
    Some((format!("{open}{}</a>", escape(url)), url.len()))
}

/// Punctuation after a link belongs to the sentence, and so does an unopened bracket.
fn trim_url(url: &str) -> &str {
    let mut url = url;
    loop {
        let trimmed = url.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'']);
        let unopened =
            trimmed.ends_with(')') && trimmed.matches(')').count() > trimmed.matches('(').count();
        let trimmed = if unopened {
            trimmed.strip_suffix(')').unwrap_or(trimmed)
        } else {
            trimmed
        };
        if trimmed.len() == url.len() {
            return url;
        }
        url = trimmed;
    }
}

/// `o/r#5` for an issue, `o/r@sha7` for a commit on GitHub or GitLab.
fn shortened(url: &str, found: &mut Rendered) -> Option<String> {
    let (scheme_host, path) = url.split_once("://")?.1.split_once('/')?;
    let provider = match scheme_host {
        "github.com" | "www.github.com" => "github",
        "gitlab.com" | "www.gitlab.com" => "gitlab",
        _ => return None,
    };
    let path = path.replace("/-/", "/");
    let parts: Vec<&str> = path.split('/').collect();
    let [owner, name, kind, id] = parts[..] else {
        return None;
    };
    let repo = format!("{owner}/{name}");
    match kind {
        "issues" | "pull" | "merge_requests"
            if !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) =>
        {
            found.issues.push(Issue {
                number: id.to_owned(),
                repo: Some(repo.clone()),
            });
            Some(format!(
                r#"<a href="{}" target="_blank" data-link-type="issue" data-issue="{id}" data-issue-repo="{repo}" data-provider="{provider}" class="issue">{repo}#{id}</a>"#,
                escape(url),
                repo = escape(&repo)
            ))
        }
        "commit" if is_sha(id) => Some(commit_link(&repo, id, provider, url)),
        _ => None,
    }
}

fn is_sha(text: &str) -> bool {
    (7..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn commit_link(repo: &str, sha: &str, provider: &str, url: &str) -> String {
    format!(
        r#"<a href="{}" target="_blank" data-link-type="commit" data-commit-sha="{sha}" data-commit-repo="{repo}" data-provider="{provider}" class="commit">{repo}@{}</a>"#,
        escape(url),
        &sha[..7],
        repo = escape(repo)
    )
}

fn address(text: &str) -> Piece {
    let local = span(text, |letter| {
        letter.is_ascii_alphanumeric() || "._%+-".contains(letter)
    });
    let domain = text[local..].strip_prefix('@').filter(|_| local > 0)?;
    let mut length = span(domain, |letter| {
        letter.is_ascii_alphanumeric() || ".-".contains(letter)
    });
    length = domain[..length].trim_end_matches(['.', '-']).len();
    let domain = &domain[..length];
    if !domain.contains('.') {
        return None;
    }
    let whole = &text[..local + 1 + length];
    let html = format!(
        r#"<a href="mailto:{whole}" rel="nofollow noopener noreferrer" target="_blank" class="link ">{whole}</a>"#
    );
    Some((html, whole.len()))
}

fn mention(text: &str, previous: Option<char>, found: &mut Rendered) -> Piece {
    if previous.is_some_and(|before| "/#".contains(before)) {
        return None;
    }
    let body = text.strip_prefix('@')?;
    if let Some(group) = body.strip_prefix('/') {
        let end = span(group, |letter| {
            letter.is_ascii_alphanumeric() || "_-".contains(letter)
        });
        let name = &group[..end];
        if name.is_empty() {
            return None;
        }
        found.mentions.push(Named {
            screen_name: name.to_owned(),
            group: true,
        });
        let html = format!(
            r#"<span data-link-type="groupmention" data-group-name="{name}" class="groupmention">@/{name}</span>"#
        );
        return Some((html, end + 2));
    }
    let end = span(body, |letter| {
        letter.is_ascii_alphanumeric() || "_-.:[]".contains(letter)
    });
    let name = body[..end].trim_end_matches(['.', ':']);
    if !name.contains(|letter: char| letter.is_ascii_alphanumeric()) {
        return None;
    }
    found.mentions.push(Named {
        screen_name: name.to_owned(),
        group: false,
    });
    let html = format!(
        r#"<span data-link-type="mention" data-screen-name="{name}" class="mention">@{name}</span>"#
    );
    Some((html, name.len() + 1))
}

/// `org/repo#12` and `org/repo@sha`.
fn repo_reference(text: &str, found: &mut Rendered) -> Piece {
    let end = span(text, |letter| {
        letter.is_ascii_alphanumeric() || "_-./".contains(letter)
    });
    let repo = &text[..end];
    let (owner, name) = repo.split_once('/')?;
    if owner.is_empty() || name.is_empty() || name.contains('/') {
        return None;
    }
    let tail = &text[end..];
    if let Some(digits) = tail.strip_prefix('#') {
        let number = &digits[..span(digits, |letter| letter.is_ascii_digit())];
        if number.is_empty() {
            return None;
        }
        found.issues.push(Issue {
            number: number.to_owned(),
            repo: Some(repo.to_owned()),
        });
        let html = format!(
            r#"<a target="_blank" data-link-type="issue" data-issue="{number}" data-issue-repo="{repo}" class="issue">{repo}#{number}</a>"#
        );
        return Some((html, end + 1 + number.len()));
    }
    let digits = tail.strip_prefix('@')?;
    let sha = &digits[..span(digits, |letter| letter.is_ascii_alphanumeric())];
    if !is_sha(sha) {
        return None;
    }
    let url = format!("https://github.com/{repo}/commit/{sha}");
    Some((commit_link(repo, sha, "github", &url), end + 1 + sha.len()))
}

fn issue(text: &str, found: &mut Rendered) -> Piece {
    let digits = text.strip_prefix('#')?;
    let end = span(digits, |letter| letter.is_ascii_digit());
    let number = &digits[..end];
    let follows = digits[end..].chars().next();
    if number.is_empty() || follows.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    {
        return None;
    }
    found.issues.push(Issue {
        number: number.to_owned(),
        repo: None,
    });
    let html = format!(
        r#"<a target="_blank" data-link-type="issue" data-issue="{number}" class="issue">#{number}</a>"#
    );
    Some((html, end + 1))
}
