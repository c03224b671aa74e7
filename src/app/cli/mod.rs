//! The command line: parses the arguments, runs the command, prints its answer and returns the exit code.

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
mod person;
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

/// The grammar of the command line.
#[must_use]
pub fn command_line() -> clap::Command {
    Args::command()
}

/// Runs the program and returns its exit code.
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
            console::print_report(&report);
            report.exit().into()
        }
    }
}

fn prepare(args: &Args) -> Result<(), Report> {
    hardening::harden().map_err(Report::of)?;
    let report = environment::check(std::env::vars_os().map(|(name, _)| name));
    if report.exit() != Exit::Fine {
        return Err(report);
    }
    if !report.diagnostics.is_empty() {
        console::print_report(&report);
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
    // A prompt or a DNS look-up that still blocks a thread must not delay the end.
    runtime.shutdown_background();
    ended
}

// One boxed future, so that the code behind it is compiled in the library and nowhere else.
fn command(args: Args) -> Boxed<'static, CommandResult> {
    Box::pin(async move {
        let path = args.config;
        match args.command {
            Command::Init(options) => init::run(&path, options).await,
            Command::Import { file } => import::run(&path, &file),
            Command::Check(what) => check::run(&Config::load(&path)?, what.reach()).await,
            Command::Login(args) => match &args.person {
                Some(user) => {
                    let file = args.password_file.as_deref();
                    person::log_in(&Config::load(&path)?, user, file).await
                }
                None => login::run(&Config::load(&path)?).await,
            },
            Command::Run => run::run(Config::load(&path)?).await,
            Command::Status(how) => status::run(&Config::load(&path)?, how.form()).await,
            Command::Portal(what) => portal::run(&Config::load(&path)?, what).await,
            Command::Silos => Ok(silos::run()),
            Command::Device(what) => device::run(&Config::load(&path)?, what).await,
            Command::Logout(args) => match &args.person {
                Some(user) => person::log_out(&Config::load(&path)?, user).await,
                None => logout::run(&Config::load(&path)?).await,
            },
        }
    })
}

/// Adds the command that was probably meant to the error, where clap suggests none: clap compares the beginnings of
/// words only.
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
    // Find the command whose subcommand is wrong.
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

// Clap's message, with the number of the diagnostic in front.
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
