//! `[[silo]]`: what every kind of silo needs. The keys of one kind are declared and read in the folder of that silo.

use std::{ops::Range, time::Duration};

use footbridge_core::{
    config_keys::{Key, TableReader, ValueError},
    secret::Secret,
};
use footbridge_silo::{AnySiloConfig, KINDS, capabilities::SiloKind};
use url::Url;

use super::{
    diagnostic::{Diagnostic, Exit},
    keys::{self, listed},
    mask,
    schema::Section,
    secret_file,
    sections::ConfigReader,
    values,
};

impl ConfigReader<'_> {
    pub(super) fn silo(&mut self, section: &Section<'_>) -> Option<AnySiloConfig> {
        let name = self
            .schema
            .read(section, &keys::silo::NAME, values::silo_name);
        let kind = self.schema.read(section, &keys::silo::KIND, |text| {
            let words: Vec<&str> = KINDS.iter().map(|kind| kind.word).collect();
            match keys::silo_kind(text) {
                Some(kind) => Ok(kind),
                None => values::one_of(text, &words),
            }
        });
        if let Some(kind) = kind {
            self.refuse_keys_of_others(section, kind);
        }
        // Where the kind is wrong, most silos are of the first one.
        let read = kind.or(KINDS.first().copied())?.read;
        let config = read(
            &mut SiloSection {
                reader: self,
                section,
            },
            name,
        );
        kind?;
        config
    }

    // A key that does nothing here is one that somebody relies on in vain.
    fn refuse_keys_of_others(&mut self, section: &Section<'_>, kind: &SiloKind) {
        let is_own = |key: &Key| kind.keys.iter().any(|own| own.name == key.name);
        let mut reported = Vec::new();
        for other in KINDS.iter().filter(|other| other.word != kind.word) {
            for key in other.keys.iter().filter(|key| !is_own(key)) {
                let Some(span) = section.key_span(key.name) else {
                    continue;
                };
                // One that several other kinds have is reported once.
                if reported.contains(&key.name) {
                    continue;
                }
                reported.push(key.name);
                let what = format!(
                    "`{}` belongs to silos of kind \"{}\", and this one is \"{}\"",
                    key.name, other.word, kind.word
                );
                self.schema.diagnostics.push(
                    Diagnostic::new("B02", what)
                        .at(span)
                        .note(format!(
                            "besides the keys of every silo, \"{}\" has {}",
                            kind.word,
                            listed(kind.keys.iter().map(|key| key.name))
                        ))
                        .help("remove the line"),
                );
            }
        }
    }

    fn token(&mut self, section: &Section<'_>) -> Option<Secret> {
        let token = self.token_if_any(section);
        let keys = ["token", "token_file"];
        if keys.iter().all(|key| section.key_span(key).is_none()) && !section.means("token") {
            self.schema.missing(section, &keys::silo::TOKEN_FILE);
        }
        token
    }

    fn token_if_any(&mut self, section: &Section<'_>) -> Option<Secret> {
        match (section.key_span("token"), section.key_span("token_file")) {
            (Some(inline), Some(file)) => {
                self.schema.diagnostics.push(
                    Diagnostic::new("B09", "the token is given twice")
                        .exit(Exit::Usage)
                        .labelled(file, "here by a file")
                        .labelled(inline, "and here as text")
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
        if let Some(diagnostic) = &self.open_to_others {
            let help = format!(
                "chmod 600 {}, or move the token into a file of its own: token_file = \"gitter.token\"",
                self.file.display()
            );
            self.schema
                .diagnostics
                .push(diagnostic.clone().labelled(key, "a secret").help(help));
        }
        self.schema.read(section, &keys::silo::TOKEN, |text| {
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
        let text = self.schema.text(section, &keys::silo::TOKEN_FILE)?;
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
            Err(diagnostic) => {
                self.schema.diagnostics.push(diagnostic.at(text.span()));
                None
            }
        }
    }
}

/// The section of one silo.
struct SiloSection<'s, 'f, 't> {
    reader: &'s mut ConfigReader<'f>,
    section: &'s Section<'t>,
}

impl TableReader for SiloSection<'_, '_, '_> {
    fn has(&self, key: &'static Key) -> bool {
        self.section.key_span(key.name).is_some()
    }

    fn text(
        &mut self,
        key: &'static Key,
        check: &dyn Fn(&str) -> Result<(), ValueError>,
    ) -> Option<String> {
        let read = |text: &str| check(text).map(|()| text.to_owned());
        self.reader.schema.read(self.section, key, read)
    }

    fn texts(
        &mut self,
        key: &'static Key,
        check: &dyn Fn(&str) -> Result<(), ValueError>,
    ) -> Vec<String> {
        let read = |text: &str| check(text).map(|()| text.to_owned());
        self.reader.schema.texts(self.section, key, read)
    }

    fn word(&mut self, key: &'static Key) -> &'static str {
        self.reader.schema.word(self.section, key)
    }

    fn number(&mut self, key: &'static Key) -> u32 {
        self.reader.schema.number(self.section, key)
    }

    fn duration(&mut self, key: &'static Key) -> Duration {
        self.reader.schema.duration(self.section, key)
    }

    fn url(&mut self, key: &'static Key) -> Option<Url> {
        self.reader.schema.url(self.section, key)
    }

    fn token(&mut self, required: bool) -> Option<Secret> {
        if required {
            self.reader.token(self.section)
        } else {
            self.reader.token_if_any(self.section)
        }
    }

    fn refuse(&mut self, key: &'static Key, error: ValueError, note: Option<String>) {
        let diagnostic = Diagnostic::new(error.code, error.what)
            .at(self.section.span(key.name))
            .help(error.help);
        let diagnostic = match note {
            Some(note) => diagnostic.note(note),
            None => diagnostic,
        };
        self.reader.schema.diagnostics.push(diagnostic);
    }
}
