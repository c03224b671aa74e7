//! Addresses of servers: URLs, and server names to be discovered.

use footbridge_matrix::Homeserver;
use ruma::OwnedServerName;
use url::{Host, Url};

use super::{ValueError, value_error};

/// The homeserver: a URL, or a server name to be discovered.
pub fn homeserver(text: &str) -> Result<Homeserver, ValueError> {
    const HELP: &str = "write its URL, for example \"https://matrix.example.org\", or its server name, for example \"example.org\"";
    if text.trim() != text {
        return value_error(
            "B11",
            "the homeserver has spaces around it",
            "remove the spaces",
        );
    }
    if text.starts_with('@') {
        return value_error("B12", "this is a user id, not a homeserver", HELP);
    }
    if text.contains("://") {
        return base_url("homeserver", text, &["https", "http"]).map(Homeserver::Url);
    }
    if let Some((name, path)) = text.split_once('/') {
        return value_error(
            "B11",
            format!("the homeserver has a path (`/{path}`) but no scheme"),
            format!("write \"https://{name}\""),
        );
    }
    if !text.is_ascii() {
        return international(text);
    }
    if let Some(host) = loopback(text) {
        return value_error(
            "B11",
            format!(
                "`{text}` is not a server name that others can resolve: {host} is this machine"
            ),
            format!(
                "write the URL, \"http://{text}\", or \"https://{text}\" if the server speaks TLS there"
            ),
        );
    }
    OwnedServerName::try_from(text)
        .map(Homeserver::Name)
        .or_else(|_| {
            value_error(
                "B11",
                format!("`{text}` is neither a URL nor a server name"),
                HELP,
            )
        })
}

/// The host of an address without a scheme, where it is this machine.
fn loopback(text: &str) -> Option<String> {
    let url = Url::parse(&format!("http://{text}")).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none();
    let host = url.host().filter(|host| is_bare && is_loopback(host))?;
    Some(host.to_string())
}

// Two names can look the same where letters look alike; the ASCII form is unmistakable.
fn international<T>(host: &str) -> Result<T, ValueError> {
    let ascii = Url::parse(&format!("https://{host}"))
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned));
    value_error(
        "B11",
        format!("`{host}` has letters that look like others"),
        match ascii {
            Some(ascii) => format!(
                "write the ASCII form, \"{ascii}\", after making sure that it is the one you mean"
            ),
            None => "write the ASCII form of the name".to_owned(),
        },
    )
}

/// A base URL of requests. Credentials in it are refused and never repeated.
pub fn base_url(name: &str, text: &str, schemes: &[&str]) -> Result<Url, ValueError> {
    let scheme = schemes.first().unwrap_or(&"https");
    let example = format!("write, for example, \"{scheme}://chat.example.org\"");
    let refused =
        |what: &str, help: &str| value_error("B11", format!("the {name} URL {what}"), help);
    if text.trim() != text {
        return refused("has spaces around it", "remove the spaces");
    }
    if !text.contains("://") {
        return refused(
            "has no scheme",
            &with_scheme(text, schemes).unwrap_or(example),
        );
    }
    let Ok(url) = Url::parse(text) else {
        return refused("is invalid", &example);
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refused(
            "has a user name or password in it",
            "remove everything between `://` and `@`",
        );
    }
    if !schemes.contains(&url.scheme()) {
        return refused(&format!("has the scheme `{}`", url.scheme()), &example);
    }
    let Some(host) = url.host() else {
        return refused("has no host", &example);
    };
    let written = text.split_once("://").map_or(text, |(_, rest)| rest);
    let written = written.split(['/', '?', '#']).next().unwrap_or_default();
    if !written.is_ascii() {
        return international(written);
    }
    if !matches!(url.scheme(), "https" | "wss") && !is_loopback(&host) {
        return refused(
            &format!(
                "is not encrypted (`{}`) and does not stay on this machine",
                url.scheme()
            ),
            &format!("write \"{}s://{written}\"", url.scheme()),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refused(
            "has a query or a fragment",
            "remove everything from `?` or `#` on",
        );
    }
    if name == "homeserver" && url.path() != "/" {
        return refused(
            &format!("has a path (`{}`)", url.path()),
            &format!("write \"{}://{written}\"", url.scheme()),
        );
    }
    Ok(url)
}

/// What to write for an address without a scheme; `None` where it is no address or has credentials.
fn with_scheme(text: &str, schemes: &[&str]) -> Option<String> {
    let scheme = match loopback(text) {
        Some(_) => schemes.last(),
        None => schemes.first(),
    }?;
    let url = Url::parse(&format!("{scheme}://{text}")).ok()?;
    let is_plain = text.is_ascii() && !text.contains('@') && url.host().is_some();
    is_plain.then(|| format!("write \"{scheme}://{text}\""))
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homeservers_are_urls_or_names() {
        for good in [
            "https://matrix.example.org",
            "https://matrix.example.org/",
            "https://m.example.org:8448",
            "http://localhost:8008",
            "http://127.0.0.1:8008",
            "http://[::1]:8008",
            "example.org",
            "example.org:8448",
            "localhost.example.org",
        ] {
            assert!(homeserver(good).is_ok(), "{good}");
        }
        for (bad, code) in [
            ("https://matrix.example.org/_matrix", "B11"),
            ("https://user:hush@matrix.example.org", "B11"),
            ("http://matrix.example.org", "B11"),
            (" https://matrix.example.org", "B11"),
            ("https://mätrix.example.org", "B11"),
            ("mätrix.example.org", "B11"),
            ("matrix.example.org/path", "B11"),
            ("ftp://matrix.example.org", "B11"),
            ("https://", "B11"),
            ("https://a.example/?x=1", "B11"),
            ("not a server", "B11"),
            ("", "B11"),
            ("@bridge:example.org", "B12"),
        ] {
            let error = homeserver(bad).unwrap_err();
            assert_eq!(error.code, code, "{bad}");
            assert!(
                !error.what.contains("hush") && !error.help.contains("hush"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn an_address_without_a_scheme_gets_a_suggestion() {
        for (text, help) in [
            ("localhost:8008", "\"http://localhost:8008\""),
            ("localhost", "\"http://localhost\""),
            ("127.0.0.1:8008", "\"http://127.0.0.1:8008\""),
            ("[::1]:8008", "\"http://[::1]:8008\""),
            ("matrix.localhost:8008", "\"http://matrix.localhost:8008\""),
        ] {
            let error = homeserver(text).unwrap_err();
            assert!(
                error.code == "B11" && error.help.contains(help),
                "{error:?}"
            );
        }
        for (text, schemes, help) in [
            (
                "localhost:8065",
                ["https", "http"],
                "write \"http://localhost:8065\"",
            ),
            (
                "127.0.0.1:4242",
                ["https", "http"],
                "write \"http://127.0.0.1:4242\"",
            ),
            (
                "localhost:5000",
                ["wss", "ws"],
                "write \"ws://localhost:5000\"",
            ),
            (
                "chat.example.org",
                ["https", "http"],
                "write \"https://chat.example.org\"",
            ),
            (
                "chat.example.org:8065/team",
                ["https", "http"],
                "write \"https://chat.example.org:8065/team\"",
            ),
            (
                "me:hush@chat.example.org",
                ["https", "http"],
                "write, for example, \"https://chat.example.org\"",
            ),
        ] {
            let error = base_url("silo", text, &schemes).unwrap_err();
            assert_eq!(
                (error.what.as_str(), error.help.as_str()),
                ("the silo URL has no scheme", help)
            );
        }
    }
}
