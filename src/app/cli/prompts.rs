//! The questions of `footbridge init`: options answer them, or a person does.

use std::path::{Path, PathBuf};

use dialoguer::Input;
use footbridge_core::secret::Secret;
use footbridge_silo::capabilities::SiloKind;

use super::login;
use crate::config::{
    Diagnostic, Exit, secret_file,
    values::{self, ValueError},
};

/// Where the silo's token comes from.
pub(super) enum TokenSource {
    /// An existing file.
    File(PathBuf),
    /// Typed in; it is written to a new file.
    Typed(Secret),
    /// This silo needs none.
    None,
}

/// Collects answers, from options or from a person.
pub(super) struct Prompter {
    /// Whether nobody can be asked.
    pub silent: bool,
    /// The errors so far.
    pub diagnostics: Vec<Diagnostic>,
}

impl Prompter {
    /// One answer: the given one, or that of the person.
    pub fn answer<T>(
        &mut self,
        option: &str,
        given: Option<&str>,
        question: &str,
        default: Option<&str>,
        read: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let text = match given.or(default.filter(|_| self.silent)) {
            Some(text) => text.to_owned(),
            None if self.silent => {
                self.missing(option);
                return None;
            }
            None => self.ask(question, default, &read)?,
        };
        match read(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                let diagnostic = Diagnostic::new(error.code, format!("--{option}: {}", error.what));
                self.diagnostics
                    .push(diagnostic.exit(Exit::Usage).help(error.help));
                None
            }
        }
    }

    fn ask<T>(
        &mut self,
        question: &str,
        default: Option<&str>,
        read: &impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<String> {
        let mut input =
            Input::<String>::new()
                .with_prompt(question)
                .validate_with(|text: &String| {
                    read(text)
                        .map(drop)
                        .map_err(|problem| format!("{}; {}", problem.what, problem.help))
                });
        if let Some(default) = default {
            input = input.default(default.to_owned());
        }
        match input.interact_text() {
            Ok(text) => Some(text),
            Err(error) => {
                self.diagnostics.push(login::unanswered(&error));
                None
            }
        }
    }

    /// The address of the silo. `Some(None)` for a kind of silo that has one public address and needs no answer; `None`
    /// after an error.
    #[expect(
        clippy::option_option,
        reason = "an empty answer must be given explicitly"
    )]
    pub fn address(
        &mut self,
        kind: Option<&SiloKind>,
        given: Option<&str>,
    ) -> Option<Option<String>> {
        match kind.and_then(|kind| kind.address) {
            None => Some(given.map(str::to_owned)),
            Some((_, example)) => {
                let question = format!("Its address, for example {example}");
                let read = |text: &str| {
                    values::base_url("--silo-api", text, &["https", "http"])
                        .map(|_| text.to_owned())
                };
                self.answer("silo-api", given, &question, None, read)
                    .map(Some)
            }
        }
    }

    /// An option is missing, and nobody can be asked.
    pub fn missing(&mut self, option: &str) {
        let diagnostic = Diagnostic::new("B26", format!("--{option} is missing"));
        let help = format!("add --{option}, or run it on a terminal to be asked");
        self.diagnostics
            .push(diagnostic.exit(Exit::Usage).help(help));
    }

    /// Checks whether a secret that is needed later can be read.
    pub fn secret(&mut self, option: &str, file: Option<&Path>) {
        let read = file.map(|file| secret_file::read(option, file));
        self.diagnostics.extend(read.and_then(Result::err));
    }

    /// The homeserver of the account. Where neither it nor the user id is given and nobody can be asked, only the
    /// missing user id is reported.
    pub fn homeserver(&mut self, given: Option<&str>, of_user: Option<&str>) -> Option<String> {
        if self.silent && given.is_none() && of_user.is_none() {
            return None;
        }
        self.answer(
            "homeserver",
            given,
            "Its homeserver: a URL or a server name",
            of_user,
            |text| values::homeserver(text).map(|_| text.to_owned()),
        )
    }

    /// The token of a silo.
    pub fn token(&mut self, kind: Option<&SiloKind>, file: Option<&Path>) -> Option<TokenSource> {
        let needed = kind.is_none_or(|kind| kind.needs_token);
        let got = match file {
            Some(path) => secret_file::read("--silo-token-file", path)
                .map(|_readable| TokenSource::File(path.to_owned())),
            None if self.silent && !needed => Ok(TokenSource::None),
            None if self.silent => Err(Diagnostic::new("B26", "--silo-token-file is missing")
                .exit(Exit::Usage)
                .help("put the silo's token into a file of mode 0600 and name it")),
            None => {
                let title = kind.map_or("the silo", |kind| kind.title);
                let or_none = if needed {
                    ""
                } else {
                    "; leave it empty if there is none"
                };
                let question = format!("The bridge's token at {title}{or_none}");
                let typed = login::ask(&question, "--silo-token-file", needed);
                typed.map(|typed| match typed.expose() {
                    "" => TokenSource::None,
                    _ => TokenSource::Typed(typed),
                })
            }
        };
        match got {
            Ok(token) => Some(token),
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }
}
