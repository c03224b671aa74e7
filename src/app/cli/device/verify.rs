//! `footbridge device verify`: compares seven emoji on this terminal and on the client of an admin. The bridge must not
//! run meanwhile; while it runs, it is verified from the client.

use std::{io::Write, time::Duration};

use footbridge_core::{
    clock::Clock,
    http_client,
    inbox::{Inbox, Signals},
};
use footbridge_matrix::{
    Matrix, MatrixError,
    verify::{Emoji, VerificationAnswer, VerificationStage, Verifications},
};
use footbridge_store::{Error as StoreError, Store, StoreKey};
use ruma::{OwnedUserId, UserId};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::super::{CommandResult, console, diagnostics, login, preflight};
use crate::config::{Config, Diagnostic, Exit, Report};

/// How long the command waits for a request.
const REQUEST_WAIT: Duration = Duration::from_mins(10);

/// Verifies the device.
pub async fn run(config: &Config, user: Option<String>) -> CommandResult {
    let user = wanted(config, user)?;
    if !console::is_interactive() {
        return Err(Report::of(
            Diagnostic::new(
                "B18",
                "there is no terminal: a person must compare the emoji",
            )
            .exit(Exit::NoInput)
            .help("run it on a terminal, or start the bridge and verify it from your client"),
        ));
    }
    preflight::before_opening(config)?;
    let key = StoreKey::read(&config.store.key_file)?;
    let store = match Store::open(&config.store.path, &key).await {
        Err(error @ StoreError::Locked { .. }) => return Err(Report::of(running(config, &error))),
        store => store?,
    };
    let clock = Clock::start();
    let http = http_client::client()
        .map_err(|error| Report::of(diagnostics::from_bridge_error(&error)))?;
    let matrix = config.matrix.clone();
    let matrix = Matrix::open(store.clone(), &key, matrix, config.trust(), http, clock).await?;
    let rooms = super::reset::rooms(&store).await?;
    let inbox = Inbox::new(store.clone(), Signals::default(), clock);
    let stop = CancellationToken::new();
    let verifying = async {
        let ended = talk(&matrix, user.as_deref()).await;
        stop.cancel();
        ended
    };
    let (synced, ended) = tokio::join!(
        matrix.device().listen(rooms, inbox, stop.clone()),
        verifying
    );
    matrix.device().release_lease().await;
    synced?;
    store.checkpoint().await?;
    ended
}

/// The user must be on the list `[admin] users`; `None` where none is named, and any of them may ask.
fn wanted(config: &Config, user: Option<String>) -> Result<Option<OwnedUserId>, Report> {
    let admins = &config.matrix.admins;
    let not_listed = |what: String| {
        Report::of(
            Diagnostic::new("B12", what)
                .help("add the user id to the configuration: [admin] users = [\"@me:example.org\"]. A server name is \
                       not enough for this"),
        )
    };
    match user {
        Some(user) => match UserId::parse(user.as_str()) {
            Ok(user) if admins.contains(&user) => Ok(Some(user)),
            Ok(user) => Err(not_listed(format!(
                "{user} is not on the list `[admin] users`"
            ))),
            Err(_) => Err(not_listed(format!("`{user}` is not a user id"))),
        },
        None if admins.is_empty() => Err(not_listed(
            "nobody is on the list `[admin] users`".to_owned(),
        )),
        None => Ok(None),
    }
}

/// The bridge runs and holds the lock of the store: it is verified from a client instead.
fn running(config: &Config, error: &StoreError) -> Diagnostic {
    let mut diagnostic = diagnostics::from_store_error(error);
    diagnostic.help = Some(format!(
        "leave it running: open the profile of {} in your client and choose Verify; the bridge asks and shows its emoji \
         in your direct room and in its log. Or stop it and run this again",
        config.matrix.user
    ));
    diagnostic
}

async fn talk(matrix: &Matrix, user: Option<&UserId>) -> CommandResult {
    let all = matrix.device().verifications();
    let mut changes = all.changes();
    if let Some(user) = user {
        console::say(&format!("Asking {user}. Accept it in your client."));
        matrix.device().ask_to_verify(user).await?;
    } else {
        console::say(
            "In your client, open the profile of the bridge's account and choose Verify. Waiting.",
        );
    }
    let Ok(ended) = timeout(REQUEST_WAIT, follow(all, &mut changes)).await else {
        return Err(failed("nobody answered"));
    };
    ended
}

/// Asks the person what each stage needs, until one verification is over.
async fn follow(all: &Verifications, changes: &mut watch::Receiver<u64>) -> CommandResult {
    let mut answered = None;
    loop {
        for (user, stage) in all.all() {
            let seen = Some((user.clone(), stage.clone()));
            if seen == answered {
                continue;
            }
            match &stage {
                VerificationStage::Requested => {
                    let yes =
                        ask(format!("{user} asks to verify the bridge. Start?"), changes).await?;
                    let _taken = all.answer(
                        &user,
                        if yes {
                            VerificationAnswer::Begin
                        } else {
                            VerificationAnswer::Different
                        },
                    );
                }
                VerificationStage::Compare(emoji) => {
                    console::say(&shown(emoji));
                    let yes = ask("Do they match?".to_owned(), changes).await?;
                    let _taken = all.answer(
                        &user,
                        if yes {
                            VerificationAnswer::Same
                        } else {
                            VerificationAnswer::Different
                        },
                    );
                }
                VerificationStage::Done => {
                    console::say(&format!("Verified with {user}."));
                    return Ok(Exit::Fine);
                }
                VerificationStage::Cancelled(why) => return Err(failed(why)),
                VerificationStage::Waiting | VerificationStage::Confirmed => {}
            }
            answered = seen;
        }
        if changes.changed().await.is_err() {
            return Err(MatrixError::NoAccount.into());
        }
    }
}

/// One line per emoji: symbol and name.
fn shown(emoji: &[Emoji]) -> String {
    let lines = emoji
        .iter()
        .map(|one| format!("    {}  {}", one.symbol, one.name));
    format!(
        "\nCompare with the other screen:\n\n{}\n",
        lines.collect::<Vec<_>>().join("\n")
    )
}

/// Asks on the terminal. Other tasks continue meanwhile, and the question is dropped when the verification changes.
async fn ask(question: String, changes: &mut watch::Receiver<u64>) -> Result<bool, Report> {
    changes.mark_unchanged();
    let asking = tokio::task::spawn_blocking(move || yes_or_no(&question));
    tokio::select! {
        answer = asking => answer
            .map_err(|_| failed("the question was not answered"))?
            .map_err(|error| Report::of(login::unanswered(&dialoguer::Error::IO(error)))),
        // The other side cancelled it.
        _ = changes.changed() => Ok(false),
    }
}

fn yes_or_no(question: &str) -> std::io::Result<bool> {
    let mut terminal = std::io::stderr();
    loop {
        write!(terminal, "{question} [yes/no] ")?;
        terminal.flush()?;
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim().to_lowercase().as_str() {
            "yes" | "y" => return Ok(true),
            "no" | "n" => return Ok(false),
            _ => {}
        }
    }
}

fn failed(why: &str) -> Report {
    Report::of(
        Diagnostic::new("B21", format!("the bridge was not verified: {why}"))
            .exit(Exit::Failed)
            .help(
                "start again; if the emoji differed, somebody may be intercepting the connection",
            ),
    )
}
