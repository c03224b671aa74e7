//! `footbridge init`: makes a checked configuration from nothing. It asks on a terminal, or takes every answer as an
//! option, and never overwrites a file.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use dialoguer::Confirm;
use footbridge_silo::{KINDS, capabilities::SiloKind};
use ruma::OwnedUserId;

use super::{
    CommandResult, args,
    args::CheckScope,
    check, console, login,
    prompts::{Prompter, TokenSource},
};
use crate::config::{
    Config, Diagnostic, Exit, Report,
    values::{self, ValueError},
};

/// Everything that the configuration contains.
struct InitAnswers {
    user: OwnedUserId,
    homeserver: String,
    kind: &'static SiloKind,
    address: Option<String>,
    token: TokenSource,
    room: String,
    channel: String,
}

/// Asks, writes the configuration, logs in and checks.
pub async fn run(path: &Path, options: Box<args::Init>) -> CommandResult {
    refuse_existing(path).map_err(Report::of)?;
    let answers = gather(path, &options)?;
    let config = write(path, &answers, &options)?;
    console::say(&format!("Wrote {}.", path.display()));
    if let Err(mut report) = login::run(&config).await {
        if let Some(diagnostic) = report.diagnostics.first_mut() {
            diagnostic.notes.push(format!(
                "{} is written and kept: correct it where it is wrong, then run `footbridge login` and `footbridge \
                 check`",
                path.display()
            ));
        }
        return Err(report);
    }
    let exit = check::run(&config, CheckScope::Network).await?;
    if exit == Exit::Fine {
        console::say(&format!(
            "\nNow start the bridge: footbridge run; then invite {} into {}",
            answers.user, answers.room
        ));
    }
    Ok(exit)
}

/// Refuses to continue where the token file that would be written exists.
pub(super) fn refuse_token(file: &Path, instead: &str) -> Result<(), Diagnostic> {
    if file.symlink_metadata().is_ok() {
        let mut diagnostic = exists(file);
        diagnostic.help = Some(format!(
            "remove it if it is from an earlier attempt, or {instead}"
        ));
        return Err(diagnostic);
    }
    Ok(())
}

/// Refuses to continue where there is a file already.
pub(super) fn refuse_existing(path: &Path) -> Result<(), Diagnostic> {
    // A dangling symbolic link counts as existing.
    if path.symlink_metadata().is_ok() {
        return Err(exists(path));
    }
    Ok(())
}

fn exists(path: &Path) -> Diagnostic {
    Diagnostic::new(
        "B15",
        format!("{} exists already and is not overwritten", path.display()),
    )
    .exit(Exit::CannotCreate)
    .help("name another with --config, or edit this one and run `footbridge check`")
}

/// The file for a token that is typed in.
fn token_file(path: &Path, kind: &SiloKind) -> PathBuf {
    let base = path.parent().unwrap_or(Path::new(""));
    base.join(format!("{}.token", kind.word))
}

fn gather(path: &Path, options: &args::Init) -> Result<InitAnswers, Report> {
    let mut prompter = Prompter {
        silent: options.yes || !console::is_interactive(),
        diagnostics: Vec::new(),
    };
    if prompter.silent && options.password_file.is_none() {
        prompter.missing("password-file");
    }
    prompter.secret("--password-file", options.password_file.as_deref());
    prompter.secret("--recovery-key-file", options.recovery_key_file.as_deref());
    let user = prompter.answer(
        "user",
        options.user.as_deref(),
        "The bridge's own Matrix account, for example @bridge:example.org",
        None,
        values::user,
    );
    let server = user.as_ref().map(|user| user.server_name().to_string());
    let homeserver = prompter.homeserver(options.homeserver.as_deref(), server.as_deref());
    let words: Vec<&str> = KINDS.iter().map(|kind| kind.word).collect();
    let kind = prompter.answer(
        "silo-kind",
        options.silo_kind.as_deref(),
        &format!("The kind of silo: {}", words.join(", ")),
        words.first().copied(),
        |text| kind_of(text, &words),
    );
    let known = kind.or(KINDS.first().copied());
    if let (Some(kind), None, false) = (kind, &options.silo_token_file, prompter.silent) {
        refuse_token(&token_file(path, kind), "give it with --silo-token-file")
            .map_err(Report::of)?;
    }
    let address = prompter.address(known, options.silo_api.as_deref());
    let token = prompter.token(known, options.silo_token_file.as_deref());
    let example = known.map_or("", |kind| kind.channel);
    let channel = prompter.answer(
        "channel",
        options.channel.as_deref(),
        &format!("The channel, for example {example}"),
        None,
        values::channel,
    );
    let room = prompter.answer(
        "room",
        options.room.as_deref(),
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
        ) if prompter.diagnostics.is_empty() => {
            let answers = InitAnswers {
                user,
                homeserver,
                kind,
                address,
                token,
                room,
                channel,
            };
            confirm(prompter.silent, &answers).map_err(Report::of)?;
            Ok(answers)
        }
        _ => Err(Report {
            source: None,
            diagnostics: prompter.diagnostics,
        }),
    }
}

fn kind_of(text: &str, words: &[&str]) -> Result<&'static SiloKind, ValueError> {
    match KINDS.iter().find(|kind| kind.word == text) {
        Some(kind) => Ok(kind),
        None => values::one_of(text, words),
    }
}

/// People elsewhere will be able to read the room: the operator must confirm that.
fn confirm(silent: bool, answers: &InitAnswers) -> Result<(), Diagnostic> {
    if silent {
        return Ok(());
    }
    let question = format!(
        "Everything written in {} will be readable in {} at {}. Does everyone there agree?",
        answers.room, answers.channel, answers.kind.title
    );
    match Confirm::new().with_prompt(question).interact() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Diagnostic::new(
            "B29",
            "without consent nothing is bridged; nothing was written",
        )
        .exit(Exit::Usage)
        .help("ask the people in the room, then run this command again")),
        Err(error) => Err(login::unanswered(&error)),
    }
}

/// Writes the configuration, and the token file where the token was typed in. If the configuration is invalid, neither
/// is left.
fn write(path: &Path, answers: &InitAnswers, options: &args::Init) -> Result<Config, Report> {
    let (named, typed_file) = match &answers.token {
        TokenSource::File(file) => (Some(absolute(file).map_err(Report::of)?), None),
        TokenSource::Typed(secret) => {
            let file = token_file(path, answers.kind);
            write_new(&file, secret.expose()).map_err(Report::of)?;
            (Some(format!("{}.token", answers.kind.word)), Some(file))
        }
        TokenSource::None => (None, None),
    };
    let written = contents(answers, options, named.as_deref())
        .map_err(Report::of)
        .and_then(|text| {
            let config = Config::parse(path, text.clone().into_bytes())?;
            write_new(path, &text).map_err(Report::of)?;
            Ok(config)
        });
    written.map_err(|mut report| {
        // This run has made the file.
        if let Some(file) = typed_file
            && let Err(error) = std::fs::remove_file(&file)
        {
            tracing::warn!(error = %error, "{} remains", file.display());
        }
        if let Some(diagnostic) = report.diagnostics.first_mut() {
            diagnostic.notes.push("nothing was written".to_owned());
        }
        report
    })
}

// Paths in the configuration are relative to it; those on the command line are relative to the working directory.
fn absolute(path: &Path) -> Result<String, Diagnostic> {
    let cannot = |reason: String| {
        Diagnostic::new(
            "B26",
            format!(
                "{} cannot be written into the file: {reason}",
                path.display()
            ),
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

fn contents(
    answers: &InitAnswers,
    options: &args::Init,
    token_file: Option<&str>,
) -> Result<String, Diagnostic> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut lines = String::from(
        "# Every option, its default and its reason: config.toml.example\n\n[matrix]\n",
    );
    let mut add = |key: &str, value: &str| {
        // Writing into a String cannot fail.
        let _infallible = writeln!(lines, "{key} = {}", quoted(value));
    };
    add("homeserver", &answers.homeserver);
    add("user", answers.user.as_str());
    if let Some(file) = &options.password_file {
        add("password_file", &absolute(file)?);
    }
    if let Some(file) = &options.recovery_key_file {
        add("recovery_key_file", &absolute(file)?);
    }
    lines.push_str("\n[[silo]]\n");
    let mut add = |key: &str, value: &str| {
        let _infallible = writeln!(lines, "{key} = {}", quoted(value));
    };
    add("name", answers.kind.word);
    add("kind", answers.kind.word);
    if let Some(file) = token_file {
        add("token_file", file);
    }
    let address = answers.kind.address.map_or("api", |(key, _)| key);
    let urls = [
        (address, &answers.address),
        ("stream", &options.silo_stream),
        ("realtime", &options.silo_realtime),
    ];
    for (key, url) in urls {
        if let Some(url) = url {
            add(key, url);
        }
    }
    lines.push_str("\n# One of these for every room that is linked to a channel.\n[[portal]]\n");
    let mut add = |key: &str, value: &str| {
        let _infallible = writeln!(lines, "{key} = {}", quoted(value));
    };
    add("room", &answers.room);
    add("silo", answers.kind.word);
    add("channel", &answers.channel);
    Ok(lines)
}

/// Writes a file of mode 0600. `create_new` follows no link and overwrites nothing.
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), Diagnostic> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        if written.is_err() {
            // A part of the file would be in the way of the next attempt.
            let _best_effort = std::fs::remove_file(path);
        }
        written
    };
    write().map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => Diagnostic::new(
            "B15",
            format!("{} cannot be written: {error}", path.display()),
        )
        .exit(Exit::CannotCreate)
        .help("name a writable path with --config"),
    })
}
