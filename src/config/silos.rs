//! `[[silo]]`: what every kind of silo needs, and Gitter's own keys.

use std::ops::Range;

use url::Url;

use super::{
    fault::{Exit, Fault},
    mask, secret_file,
    sections::{Reader, span_of},
    values,
    walk::{Section, Walk},
};
use crate::{
    secret::Secret,
    silo::{
        SiloConfig,
        gitter::{Feed, GitterConfig},
    },
};

/// What Gitter's own API allows in a minute.
const GITTER_LIMIT: u32 = 100;
const GITTER_HOST: &str = "api.gitter.im";

impl Reader<'_> {
    pub(super) fn silo(&mut self, section: &Section<'_>) -> Option<SiloConfig> {
        let name = self
            .walk
            .need(section, "name", "\"gitter\"", values::silo_name);
        let kind = self.walk.need(section, "kind", "\"gitter\"", |text| {
            if text == "gitter" {
                Ok(())
            } else {
                values::one_of(text, &["gitter"])
            }
        });
        let token = self.token(section);
        let walk = &mut self.walk;
        let api = url_of(
            walk,
            section,
            "api",
            "https://api.gitter.im/v1",
            &["https", "http"],
        );
        let stream = url_of(
            walk,
            section,
            "stream",
            "https://stream.gitter.im/v1",
            &["https", "http"],
        );
        let realtime = url_of(
            walk,
            section,
            "realtime",
            "wss://ws.gitter.im/bayeux",
            &["wss", "ws", "https", "http"],
        );
        let feed = walk.read(section, "feed", |text| match text {
            "realtime" => Ok(Feed::Realtime),
            "stream" => Ok(Feed::Stream),
            _ => values::one_of(text, &["realtime", "stream"]),
        });
        let settle = span_of(walk, section, "settle", 1..=300, 20);
        let overlap = span_of(walk, section, "overlap", 0..=3600, 10);
        let audit = span_of(walk, section, "audit", 10..=3600, 300);
        let requests_per_minute = self.requests_per_minute(section, api.as_ref());
        kind?;
        Some(SiloConfig::Gitter(GitterConfig {
            name: name?,
            token: token?,
            api: api?,
            stream: stream?,
            realtime: realtime?,
            feed: feed.unwrap_or_default(),
            requests_per_minute,
            settle,
            overlap,
            audit,
        }))
    }

    fn requests_per_minute(&mut self, section: &Section<'_>, api: Option<&Url>) -> u32 {
        const DEFAULT: u32 = 95;
        let Some(given) = self.walk.number(section, "requests_per_minute", 1..=60_000) else {
            return DEFAULT;
        };
        let theirs = api.is_some_and(|api| api.host_str() == Some(GITTER_HOST));
        if theirs && *given.get_ref() > GITTER_LIMIT {
            self.walk.faults.push(
                Fault::new(
                    "B28",
                    format!(
                        "`requests_per_minute` is more than the {GITTER_LIMIT} that `api` allows"
                    ),
                )
                .at(given.span())
                .note(format!(
                    "`api` is https://{GITTER_HOST}, which refuses what goes beyond its limit"
                ))
                .help(format!(
                    "write at most {GITTER_LIMIT}, better {DEFAULT}, or remove the line"
                )),
            );
        }
        *given.get_ref()
    }

    fn token(&mut self, section: &Section<'_>) -> Option<Secret> {
        match (section.key_span("token"), section.key_span("token_file")) {
            (Some(inline), Some(file)) => {
                self.walk.faults.push(
                    Fault::new("B09", "the token is given twice")
                        .exit(Exit::Usage)
                        .labelled(file, "here by a file")
                        .labelled(inline, "and here in words")
                        .help("keep `token_file` and remove `token`"),
                );
                None
            }
            (Some(key), None) => self.inline_token(section, key),
            (None, Some(_)) => self.token_from_file(section),
            (None, None) if section.means("token") => None,
            (None, None) => {
                self.walk.missing(section, "token_file", "\"gitter.token\"");
                None
            }
        }
    }

    fn inline_token(&mut self, section: &Section<'_>, key: Range<usize>) -> Option<Secret> {
        if let Some(fault) = &self.open_to_others {
            let help = format!(
                "chmod 600 {}, or move the token into a file of its own: token_file = \"gitter.token\"",
                self.file.display()
            );
            self.walk
                .faults
                .push(fault.clone().labelled(key, "a secret").help(help));
        }
        self.walk.read(section, "token", |text| {
            if text.is_empty()
                || text.len() > 4096
                || text.contains(|c: char| c.is_whitespace() || c.is_control())
            {
                return Err(values::Flaw {
                    code: "B10",
                    what: "the token is empty, too long, or has spaces in it".to_owned(),
                    help: "paste the token alone, between the quotes".to_owned(),
                });
            }
            Ok(Secret::new(text.to_owned()))
        })
    }

    fn token_from_file(&mut self, section: &Section<'_>) -> Option<Secret> {
        let text = self.walk.text(section, "token_file")?;
        let path = self.base.join(text.get_ref());
        if mask::looks_like_token(text.get_ref()) && !path.exists() {
            self.walk.faults.push(
                Fault::new(
                    "B18",
                    "`token_file` names no file; it looks like the token itself",
                )
                .exit(Exit::NoInput)
                .at(text.span())
                .help("put the token into a file of mode 0600 and name the file here"),
            );
            return None;
        }
        match secret_file::read("token_file", &path) {
            Ok(token) => Some(token),
            Err(fault) => {
                self.walk.faults.push(fault.at(text.span()));
                None
            }
        }
    }
}

fn url_of(
    walk: &mut Walk,
    section: &Section<'_>,
    key: &'static str,
    default: &str,
    schemes: &[&str],
) -> Option<Url> {
    let read = |text: &str| values::base_url(key, text, schemes);
    if section.key_span(key).is_some() {
        walk.read(section, key, read)
    } else {
        read(default).ok()
    }
}
