//! The command line: what was asked, in which words the answer is given, and how the program ends.

mod args;
mod prompts;
mod check;
mod console;
mod device;
mod environment;
mod diagnostics;
mod hardening;
mod import;
mod init;
mod running_bridge;
mod logging;
mod login;
mod logout;
mod portal;
mod preflight;
mod progress;
mod refused_invites;
mod run;
mod silos;
mod status;

use std::process::ExitCode;

use clap::{
    CommandFactory as _, Parser,
    error::{ContextKind, ContextValue},
};
use footbridge_matrix::Boxed;

use self::args::{Args, Command};
use crate::config::{Config, Diagnostic, Exit, Report, values::nearest};

/// What a command ends with: an exit code, or a report of what is wrong.
type CommandResult = Result<Exit, Report>;

/// The words of the command line, as the program reads them.
#[must_use]
pub fn command_line() -> clap::Command {
    Args::command()
}

/// Runs the program and tells how it ends.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(error).into(),
    };
    let ended = prepare(&args).and_then(|()| answer(args));
    match ended {
        Ok(exit) => exit.into(),
        Err(report) => {
            console::tell(&report);
            report.exit().into()
        }
    }
}

fn prepare(args: &Args) -> Result<(), Report> {
    hardening::harden().map_err(Report::of)?;
    let odd = environment::check(std::env::vars_os().map(|(name, _)| name));
    if odd.exit() != Exit::Fine {
        return Err(odd);
    }
    if !odd.diagnostics.is_empty() {
        console::tell(&odd);
    }
    logging::start(args.log_format).map_err(Report::of)
}

fn answer(args: Args) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Report::of(
                Diagnostic::new("B25", format!("the runtime cannot start: {error}"))
                    .exit(Exit::Io)
                    .help("allow this user more threads and open files"),
            )
        })?;
    let ended = runtime.block_on(command(args));
    // A prompt or a lookup that still blocks a thread does not hold up the end.
    runtime.shutdown_background();
    ended
}

// One boxed future, so that what is deep in it is compiled in the library and nowhere else.
fn command(args: Args) -> Boxed<'static, CommandResult> {
    Box::pin(async move {
        let path = args.config;
        match args.command {
            Command::Init(wishes) => init::run(&path, wishes).await,
            Command::Import { file } => import::run(&path, &file),
            Command::Check(what) => check::run(&Config::load(&path)?, what.reach()).await,
            Command::Login => login::run(&Config::load(&path)?).await,
            Command::Run => run::run(Config::load(&path)?).await,
            Command::Status(how) => status::run(&Config::load(&path)?, how.form()).await,
            Command::Portal(what) => portal::run(&Config::load(&path)?, what).await,
            Command::Silos => Ok(silos::run()),
            Command::Device(what) => device::run(&Config::load(&path)?, what).await,
            Command::Logout => logout::run(&Config::load(&path)?).await,
        }
    })
}

/// The error with the word that was meant, where clap finds none: it looks at how words begin.
fn suggesting(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidSubcommand).cloned()
    else {
        return error;
    };
    let has_words =
        |value: &ContextValue| matches!(value, ContextValue::Strings(words) if !words.is_empty());
    if error
        .get(ContextKind::SuggestedSubcommand)
        .is_some_and(has_words)
    {
        return error;
    }
    // Below which command the word stands.
    let mut command = &Args::command();
    for word in std::env::args().skip(1) {
        command = command.find_subcommand(&word).unwrap_or(command);
    }
    let words = command.get_subcommands().map(clap::Command::get_name);
    if let Some(meant) = nearest(&wrong, words) {
        let meant = ContextValue::Strings(vec![meant.to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, meant);
    }
    error
}

// What clap says, with our number in front.
fn usage(error: clap::Error) -> Exit {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayVersion) {
        console::say(&error.render().to_string());
        return Exit::Fine;
    }
    let text = suggesting(error).render().to_string();
    console::warn(&match text.strip_prefix("error: ") {
        Some(rest) => format!("error[B26]: {rest}"),
        None => format!("error[B26]: a command is missing\n\n{text}"),
    });
    Exit::Usage
}
