//! `[[silo]]`: what every kind of silo needs. Each kind's own keys are read in a file of its own.

mod gitter;
mod matterbridge;
mod mattermost;

use std::ops::Range;

use footbridge_core::{media_fetcher::MediaHost, secret::Secret};
use footbridge_silo::SiloConfig;
use url::Url;

use super::{
    diagnostic::{Diagnostic, Exit},
    keys::{KINDS, listed},
    mask,
    schema::{Schema, Section},
    secret_file,
    sections::ConfigReader,
    values,
};

impl ConfigReader<'_> {
    pub(super) fn silo(&mut self, section: &Section<'_>) -> Option<SiloConfig> {
        let name = self
            .schema
            .required(section, "name", "\"gitter\"", values::silo_name);
        let kind = self.schema.required(section, "kind", "\"gitter\"", |text| {
            let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
            match kinds.iter().find(|kind| **kind == text) {
                Some(kind) => Ok(*kind),
                None => values::one_of(text, &kinds),
            }
        });
        if let Some(kind) = kind {
            self.refuse_keys_of_others(section, kind);
        }
        let config = match kind {
            Some("matterbridge") => self
                .matterbridge(section, name)
                .map(SiloConfig::Matterbridge),
            Some("mattermost") => self.mattermost(section, name).map(SiloConfig::Mattermost),
            // Of which kind it is meant to be is not known: most are of this one.
            _ => self.gitter(section, name).map(SiloConfig::Gitter),
        };
        kind?;
        config
    }

    // A key that does nothing here is one that somebody relies on in vain.
    fn refuse_keys_of_others(&mut self, section: &Section<'_>, kind: &str) {
        let own = KINDS.iter().find(|(own, _)| *own == kind);
        let own = own.map_or(&[][..], |(_, keys)| keys);
        let mut told = Vec::new();
        for (other, keys) in KINDS.iter().filter(|(other, _)| *other != kind) {
            for key in keys.iter().filter(|key| !own.contains(key)) {
                let Some(span) = section.key_span(key) else {
                    continue;
                };
                // One that several others have is told once.
                if told.contains(key) {
                    continue;
                }
                told.push(*key);
                let what = format!(
                    "`{key}` belongs to silos of kind \"{other}\", and this one is \"{kind}\""
                );
                self.schema.diagnostics.push(
                    Diagnostic::new("B02", what)
                        .at(span)
                        .note(format!(
                            "beside what every silo has, \"{kind}\" has {}",
                            listed(own.iter().copied())
                        ))
                        .help("remove the line"),
                );
            }
        }
    }

    fn token(&mut self, section: &Section<'_>) -> Option<Secret> {
        let found = self.token_if_any(section);
        let keys = ["token", "token_file"];
        if keys.iter().all(|key| section.key_span(key).is_none()) && !section.means("token") {
            self.schema
                .missing(section, "token_file", "\"gitter.token\"");
        }
        found
    }

    fn token_if_any(&mut self, section: &Section<'_>) -> Option<Secret> {
        match (section.key_span("token"), section.key_span("token_file")) {
            (Some(inline), Some(file)) => {
                self.schema.diagnostics.push(
                    Diagnostic::new("B09", "the token is given twice")
                        .exit(Exit::Usage)
                        .labelled(file, "here by a file")
                        .labelled(inline, "and here in words")
                        .help("keep `token_file` and remove `token`"),
                );
                None
            }
            (Some(key), None) => self.inline_token(section, key),
            (None, Some(_)) => self.token_from_file(section),
            (None, None) => None,
        }
    }

    fn inline_token(&mut self, section: &Section<'_>, key: Range<usize>) -> Option<Secret> {
        if let Some(fault) = &self.open_to_others {
            let help = format!(
                "chmod 600 {}, or move the token into a file of its own: token_file = \"gitter.token\"",
                self.file.display()
            );
            self.schema
                .diagnostics
                .push(fault.clone().labelled(key, "a secret").help(help));
        }
        self.schema.read(section, "token", |text| {
            if text.is_empty()
                || text.len() > 4096
                || text.contains(|c: char| c.is_whitespace() || c.is_control())
            {
                return Err(values::ValueError {
                    code: "B10",
                    what: "the token is empty, too long, or has spaces in it".to_owned(),
                    help: "paste the token alone, between the quotes".to_owned(),
                });
            }
            Ok(Secret::new(text.to_owned()))
        })
    }

    fn token_from_file(&mut self, section: &Section<'_>) -> Option<Secret> {
        let text = self.schema.text(section, "token_file")?;
        let path = self.base.join(text.get_ref());
        if mask::looks_like_token(text.get_ref()) && !path.exists() {
            self.schema.diagnostics.push(
                Diagnostic::new(
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
                self.schema.diagnostics.push(fault.at(text.span()));
                None
            }
        }
    }
}

/// A host that media are fetched from: a name or an address, with a port if it is not the usual one.
fn media_host(text: &str) -> Result<MediaHost, values::ValueError> {
    text.parse().map_err(|why| values::ValueError {
        code: "B11",
        what: format!("`{text}` is {why}"),
        help:
            "write a host as it stands in the addresses of files, for example \"media.example.org\""
                .to_owned(),
    })
}

fn url_of(
    walk: &mut Schema,
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
