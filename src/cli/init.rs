//! `footbridge init`: from nothing to a checked configuration. Asks on a terminal, or takes every answer as an
//! option. Never writes over a file.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use dialoguer::{Confirm, Input};
use ruma::OwnedUserId;

use super::{Ended, args, args::Reach, check, console, login};
use crate::{
    config::{
        Config, Exit, Fault, Report, secret_file,
        values::{self, Flaw},
    },
    secret::Secret,
    silo::{KINDS, kind::Kind},
};

/// Everything that goes into the file.
struct Answers {
    user: OwnedUserId,
    homeserver: String,
    kind: &'static Kind,
    address: Option<String>,
    token: Token,
    room: String,
    channel: String,
}

/// Where the silo's token comes from.
enum Token {
    /// A file that is there already.
    File(PathBuf),
    /// Typed in: goes into a new file.
    Typed(Secret),
}

/// Asks, writes, logs in and checks.
pub async fn run(path: &Path, wishes: Box<args::Init>) -> Ended {
    refuse_existing(path).map_err(Report::of)?;
    let answers = gather(&wishes)?;
    write(path, &answers, &wishes).map_err(Report::of)?;
    console::say(&format!("Wrote {}.", path.display()));
    let config = Config::load(path)?;
    if let Err(mut report) = login::run(&config).await {
        if let Some(fault) = report.faults.first_mut() {
            fault.notes.push(format!(
                "{} is written and kept; `footbridge login` and `footbridge check` go on from here",
                path.display()
            ));
        }
        return Err(report);
    }
    let exit = check::run(&config, Reach::Network).await?;
    if exit == Exit::Fine {
        console::say(&format!(
            "\nNow invite {} into {} and start the bridge: footbridge run",
            answers.user, answers.room
        ));
    }
    Ok(exit)
}

/// Refuses to go on where there is a file already.
pub(super) fn refuse_existing(path: &Path) -> Result<(), Fault> {
    // A dangling link is something, too.
    if path.symlink_metadata().is_ok() {
        return Err(exists(path));
    }
    Ok(())
}

fn exists(path: &Path) -> Fault {
    Fault::new(
        "B15",
        format!("{} exists already and is not written over", path.display()),
    )
    .exit(Exit::CannotCreate)
    .help("name another with --config, or edit this one and run `footbridge check`")
}

fn gather(wishes: &args::Init) -> Result<Answers, Report> {
    let mut asking = Asking {
        silent: wishes.yes || !console::somebody_there(),
        faults: Vec::new(),
    };
    let user = asking.answer(
        "user",
        wishes.user.as_deref(),
        "The bridge's own Matrix account, for example @bridge:example.org",
        None,
        values::user,
    );
    let server = user.as_ref().map(|user| user.server_name().to_string());
    let homeserver = asking.answer(
        "homeserver",
        wishes.homeserver.as_deref(),
        "Its homeserver: a URL, or a server name to be looked up",
        server.as_deref(),
        |text| values::homeserver(text).map(|_| text.to_owned()),
    );
    let words: Vec<&str> = KINDS.iter().map(|kind| kind.word).collect();
    let kind = asking.answer(
        "silo-kind",
        wishes.silo_kind.as_deref(),
        &format!("The kind of silo: {}", words.join(", ")),
        words.first().copied(),
        |text| kind_of(text, &words),
    );
    let known = kind.or(KINDS.first());
    let address = asking.address(known, wishes.silo_api.as_deref());
    let token = asking.token(known, wishes.silo_token_file.as_deref());
    let example = known.map_or("", |kind| kind.channel);
    let channel = asking.answer(
        "channel",
        wishes.channel.as_deref(),
        &format!("The channel, for example {example}"),
        None,
        values::channel,
    );
    let room = asking.answer(
        "room",
        wishes.room.as_deref(),
        "The Matrix room, for example #room:example.org",
        None,
        values::room,
    );
    let given = (user, homeserver, kind, address, token, channel, room);
    match given {
        (
            Some(user),
            Some(homeserver),
            Some(kind),
            Some(address),
            Some(token),
            Some(channel),
            Some(room),
        ) => {
            let answers = Answers {
                user,
                homeserver,
                kind,
                address,
                token,
                room,
                channel,
            };
            asking.confirm(&answers).map_err(Report::of)?;
            Ok(answers)
        }
        _ => Err(Report {
            source: None,
            faults: asking.faults,
        }),
    }
}

fn kind_of(text: &str, words: &[&str]) -> Result<&'static Kind, Flaw> {
    match KINDS.iter().find(|kind| kind.word == text) {
        Some(kind) => Ok(kind),
        None => values::one_of(text, words),
    }
}

/// Collects answers, from options or from a person.
struct Asking {
    silent: bool,
    faults: Vec<Fault>,
}

impl Asking {
    fn answer<T>(
        &mut self,
        option: &str,
        given: Option<&str>,
        question: &str,
        default: Option<&str>,
        read: impl Fn(&str) -> Result<T, Flaw>,
    ) -> Option<T> {
        let text = match given.or(default.filter(|_| self.silent)) {
            Some(text) => text.to_owned(),
            None if self.silent => {
                self.faults.push(
                    Fault::new("B26", format!("--{option} is missing"))
                        .exit(Exit::Usage)
                        .help(format!(
                            "add --{option}, or run it on a terminal to be asked"
                        )),
                );
                return None;
            }
            None => self.ask(question, default, &read)?,
        };
        match read(&text) {
            Ok(value) => Some(value),
            Err(flaw) => {
                let fault = Fault::new(flaw.code, format!("--{option}: {}", flaw.what));
                self.faults.push(fault.exit(Exit::Usage).help(flaw.help));
                None
            }
        }
    }

    fn ask<T>(
        &mut self,
        question: &str,
        default: Option<&str>,
        read: &impl Fn(&str) -> Result<T, Flaw>,
    ) -> Option<String> {
        let mut input =
            Input::<String>::new()
                .with_prompt(question)
                .validate_with(|text: &String| {
                    read(text)
                        .map(drop)
                        .map_err(|flaw| format!("{}; {}", flaw.what, flaw.help))
                });
        if let Some(default) = default {
            input = input.default(default.to_owned());
        }
        match input.interact_text() {
            Ok(text) => Some(text),
            Err(error) => {
                self.faults.push(login::unanswered(&error));
                None
            }
        }
    }

    /// Where the silo is, which need not be said of those that have one public address: `None` without a complaint.
    #[expect(
        clippy::option_option,
        reason = "nothing was said, and nothing need be said, are two things"
    )]
    fn address(&mut self, kind: Option<&Kind>, given: Option<&str>) -> Option<Option<String>> {
        match kind.and_then(|kind| kind.address) {
            None => Some(given.map(str::to_owned)),
            Some((_, example)) => {
                let question = format!("Where it is, for example {example}");
                let read = |text: &str| {
                    values::base_url("--silo-api", text, &["https", "http"])
                        .map(|_| text.to_owned())
                };
                self.answer("silo-api", given, &question, None, read)
                    .map(Some)
            }
        }
    }

    fn token(&mut self, kind: Option<&Kind>, file: Option<&Path>) -> Option<Token> {
        let got = match file {
            Some(path) => secret_file::read("--silo-token-file", path)
                .map(|_readable| Token::File(path.to_owned())),
            None if self.silent => Err(Fault::new("B26", "--silo-token-file is missing")
                .exit(Exit::Usage)
                .help("put the silo's token into a file of mode 0600 and name it")),
            None => {
                let title = kind.map_or("the silo", |kind| kind.title);
                let question = format!("The bridge's token at {title}");
                login::ask(&question, "--silo-token-file").map(Token::Typed)
            }
        };
        match got {
            Ok(token) => Some(token),
            Err(fault) => {
                self.faults.push(fault);
                None
            }
        }
    }

    // A room that is encrypted for a reason is about to be read by somebody else: the operator says yes to that.
    fn confirm(&self, answers: &Answers) -> Result<(), Fault> {
        if self.silent {
            return Ok(());
        }
        let question = format!(
            "Everything written in {} will be readable in {} at {}. Is everyone there fine with that?",
            answers.room, answers.channel, answers.kind.title
        );
        match Confirm::new().with_prompt(question).interact() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::new(
                "B29",
                "without consent nothing is bridged; nothing was written",
            )
            .exit(Exit::Usage)
            .help("ask the people in the room, then run it again")),
            Err(error) => Err(login::unanswered(&error)),
        }
    }
}

fn write(path: &Path, answers: &Answers, wishes: &args::Init) -> Result<(), Fault> {
    let base = path.parent().unwrap_or(Path::new(""));
    let token_file = match &answers.token {
        Token::File(file) => absolute(file)?,
        Token::Typed(secret) => {
            let name = format!("{}.token", answers.kind.word);
            write_new(&base.join(&name), secret.expose())?;
            name
        }
    };
    write_new(path, &contents(answers, wishes, &token_file)?)
}

// Paths in the file are relative to the file, those on the command line to where we are.
fn absolute(path: &Path) -> Result<String, Fault> {
    let cannot = |reason: String| {
        Fault::new(
            "B26",
            format!("{} cannot be named in the file: {reason}", path.display()),
        )
        .exit(Exit::Usage)
        .help("name a file whose path is UTF-8")
    };
    let absolute = std::path::absolute(path).map_err(|error| cannot(error.to_string()))?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|_| cannot("it is not UTF-8".to_owned()))
}

fn contents(answers: &Answers, wishes: &args::Init, token_file: &str) -> Result<String, Fault> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut lines = String::from(
        "# Every option with its default and its reason: config.toml.example\n\n[matrix]\n",
    );
    let mut add = |key: &str, value: &str| {
        // Writing into a String cannot fail.
        let _whole = writeln!(lines, "{key} = {}", quoted(value));
    };
    add("homeserver", &answers.homeserver);
    add("user", answers.user.as_str());
    if let Some(file) = &wishes.password_file {
        add("password_file", &absolute(file)?);
    }
    if let Some(file) = &wishes.recovery_key_file {
        add("recovery_key_file", &absolute(file)?);
    }
    lines.push_str("\n[[silo]]\n");
    let mut add = |key: &str, value: &str| {
        let _whole = writeln!(lines, "{key} = {}", quoted(value));
    };
    add("name", answers.kind.word);
    add("kind", answers.kind.word);
    add("token_file", token_file);
    let address = answers.kind.address.map_or("api", |(key, _)| key);
    let urls = [
        (address, &answers.address),
        ("stream", &wishes.silo_stream),
        ("realtime", &wishes.silo_realtime),
    ];
    for (key, url) in urls {
        if let Some(url) = url {
            add(key, url);
        }
    }
    lines.push_str("\n# One of these for every room joined to a channel.\n[[portal]]\n");
    let mut add = |key: &str, value: &str| {
        let _whole = writeln!(lines, "{key} = {}", quoted(value));
    };
    add("room", &answers.room);
    add("silo", answers.kind.word);
    add("channel", &answers.channel);
    Ok(lines)
}

/// Writes a file of mode 0600. `create_new` follows no link and overwrites nothing.
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), Fault> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => Fault::new(
            "B15",
            format!("{} cannot be written: {error}", path.display()),
        )
        .exit(Exit::CannotCreate)
        .help("name a writable place with --config"),
    })
}
