//! `footbridge check`: one line per checked thing, with the next step where it is wrong. It changes nothing: it creates
//! no directory, takes no lock and logs nobody in.

mod homeserver;
mod portals;

use std::{collections::HashSet, ops::Range};

use footbridge_core::{clock::Clock, http_client};
use footbridge_silo::{Silo, SiloConfig, SiloError};
use footbridge_store::{AccountInfo, Error as StoreError, PortalSpec, Store, StoreKey};
use url::Url;

use super::{
    CommandResult,
    args::CheckScope,
    console, diagnostics, preflight,
    running_bridge::{self, RunningBridge},
};
use crate::config::{Config, Diagnostic, Exit, diagnostic::Severity};

/// The result of one check.
enum CheckResult {
    Good(String),
    Uncertain(String),
    Bad(Box<Diagnostic>),
    /// A warning, reported in full.
    Warned(Box<Diagnostic>),
}

/// The diagnostics so far.
#[derive(Default)]
struct CheckResults {
    diagnostics: Vec<Diagnostic>,
}

impl CheckResults {
    fn add(&mut self, subject: &str, result: CheckResult) {
        let (word, text) = match result {
            CheckResult::Good(text) => ("ok", text),
            CheckResult::Uncertain(text) => ("warn", text),
            CheckResult::Bad(diagnostic) => {
                let text = diagnostic.what.clone();
                self.diagnostics.push(*diagnostic);
                ("fail", text)
            }
            CheckResult::Warned(diagnostic) => {
                let text = diagnostic.what.clone();
                self.diagnostics.push(*diagnostic);
                ("warn", text)
            }
        };
        console::say(&format!("{word:<4}  {subject:<13}  {text}"));
    }
}

fn bad(diagnostic: Diagnostic) -> CheckResult {
    CheckResult::Bad(Box::new(diagnostic))
}

/// Checks everything and shows the results. The exit code is that of the first error: later errors often follow from
/// it.
pub async fn run(config: &Config, reach: CheckScope) -> CommandResult {
    let mut findings = CheckResults::default();
    findings.add("configuration", configuration(config));
    if let Some(root) = preflight::root() {
        findings.add("user", CheckResult::Uncertain(root.what));
    }
    let wanted = check_store(config, &mut findings).await;
    check_admin(config, &mut findings).await;
    if reach == CheckScope::Network {
        let ends = ends(config, &wanted);
        match homeserver::probe(&config.matrix).await {
            Ok((base, text)) => {
                findings.add("homeserver", CheckResult::Good(text));
                check_rooms(&base, &ends, &mut findings).await;
            }
            Err(fault) => findings.add("homeserver", bad(fault)),
        }
        for silo in &config.silos {
            check_silo(&ends, silo.as_ref(), &mut findings).await;
        }
    }
    let mut errors = findings.diagnostics.iter();
    let first = errors.find(|fault| fault.severity == Severity::Error);
    let exit = first.map_or(Exit::Fine, |fault| fault.exit);
    if findings.diagnostics.is_empty() {
        return Ok(exit);
    }
    console::print_report(&config.report(findings.diagnostics));
    Ok(exit)
}

fn configuration(config: &Config) -> CheckResult {
    let text = format!(
        "{}: {}, {}",
        config.source.path(),
        counted(config.silos.len(), "silo"),
        counted(config.portals.len(), "portal")
    );
    if config.portals.is_empty() {
        return CheckResult::Uncertain(format!(
            "{text}; nothing is bridged until there is a [[portal]]"
        ));
    }
    CheckResult::Good(text)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The room and the channel of a portal, and their positions in the configuration if it names the portal.
struct PortalEnds {
    spec: PortalSpec,
    named: Option<(Range<usize>, Range<usize>)>,
}

/// The ends of all portals that `run` opens.
fn ends(config: &Config, wanted: &[PortalSpec]) -> Vec<PortalEnds> {
    let named = config.portals.iter().map(|portal| PortalEnds {
        spec: portal.spec(),
        named: Some((portal.room_span.clone(), portal.channel_span.clone())),
    });
    let mut ends: Vec<PortalEnds> = named.collect();
    for spec in wanted {
        if !ends.iter().any(|known| known.spec == *spec) {
            ends.push(PortalEnds {
                spec: spec.clone(),
                named: None,
            });
        }
    }
    ends
}

/// Checks whether the aliases of rooms resolve. Only the running bridge learns who is in a room.
async fn check_rooms(base: &Url, ends: &[PortalEnds], findings: &mut CheckResults) {
    let mut seen = HashSet::new();
    for end in ends {
        let room = &end.spec.room;
        if !room.starts_with('#') || !seen.insert(room) {
            continue;
        }
        let result = match homeserver::alias_exists(base, room).await {
            Ok(true) => CheckResult::Good(format!("room {room} exists")),
            Ok(false) => {
                let diagnostic = Diagnostic::new("B30", format!("no room has the alias {room}"))
                    .exit(Exit::Unavailable)
                    .help("correct `room`, or give the room this alias");
                bad(match &end.named {
                    Some((room, _)) => diagnostic.at(room.clone()),
                    None => diagnostic,
                })
            }
            Err(why) => {
                CheckResult::Uncertain(format!("cannot check whether {room} exists: {why}"))
            }
        };
        findings.add("room", result);
    }
}

/// Checks the store. Returns the portals that the operator has added on the command line.
async fn check_store(config: &Config, findings: &mut CheckResults) -> Vec<PortalSpec> {
    let store = &config.store;
    let shown = store.path.display();
    let faults = preflight::store(store);
    if !faults.is_empty() {
        for fault in faults {
            findings.add("store", bad(fault));
        }
        return Vec::new();
    }
    if !store.path.exists() {
        findings.add(
            "store",
            CheckResult::Uncertain(format!("{shown} does not exist yet: footbridge login")),
        );
        return Vec::new();
    }
    if let Some(fault) = preflight::key(store) {
        findings.add("key", bad(fault));
        return Vec::new();
    }
    // Any other error of the store is reported by the check of the store below.
    let fits = match StoreKey::read(&store.key_file) {
        Ok(key) => match Store::verify_key(&store.path, &key).await {
            Err(error @ StoreError::WrongKey) => Err(error),
            _ => Ok(()),
        },
        Err(error) => Err(error),
    };
    let key = match fits {
        Ok(()) => CheckResult::Good(format!(
            "{} is readable by this user only",
            store.key_file.display()
        )),
        Err(error) => bad(diagnostics::from_store_error(&error)),
    };
    findings.add("key", key);
    match Store::snapshot(&store.path).await {
        Ok(snapshot) => {
            findings.add("store", CheckResult::Good(format!("{shown} is readable")));
            findings.add("account", account(config, snapshot.account.as_ref()));
            portals::look(config, &snapshot, findings);
            snapshot.operator_portals
        }
        Err(error) => {
            findings.add("store", bad(diagnostics::from_store_error(&error)));
            Vec::new()
        }
    }
}

fn account(config: &Config, account: Option<&AccountInfo>) -> CheckResult {
    let Some(account) = account else {
        return CheckResult::Uncertain("nobody is logged in: footbridge login".to_owned());
    };
    if account.user_id != config.matrix.user.as_str() {
        return bad(Diagnostic::new(
            "B16",
            format!(
                "the store belongs to {}, the configuration names {}",
                account.user_id, config.matrix.user
            ),
        )
        .help("give each account a `[store] path` of its own"));
    }
    let text = format!("{} on device {}", account.user_id, account.device_id);
    if account.master_key.is_none() {
        return CheckResult::Uncertain(format!(
            "{text}; its login is not finished: footbridge login"
        ));
    }
    CheckResult::Good(text)
}

async fn check_admin(config: &Config, findings: &mut CheckResults) {
    let listen = config.admin.listen;
    let result = match preflight::admin(&config.admin) {
        Ok(()) => CheckResult::Good(format!("{listen} is free")),
        Err(fault) => match running_bridge::live(config).await {
            RunningBridge::Ours(_) => {
                CheckResult::Good(format!("a running Footbridge answers on {listen}"))
            }
            RunningBridge::Another => bad(diagnostics::address_in_use(&running_bridge::another(
                config,
            ))),
            RunningBridge::Nobody => bad(fault),
        },
    };
    findings.add("admin", result);
}

async fn check_silo(ends: &[PortalEnds], silo: &dyn SiloConfig, findings: &mut CheckResults) {
    let name = silo.name();
    let built = http_client::client().and_then(|http| silo.build(&http, Clock::start()));
    let running = match built {
        Ok(running) => running,
        Err(error) => {
            let fault = diagnostics::from_silo_error(Some(name), &SiloError::Unavailable(error));
            return findings.add(name, bad(fault));
        }
    };
    match running.whoami().await {
        Ok(who) => findings.add(name, CheckResult::Good(format!("signed in as {who}"))),
        Err(error) => {
            return findings.add(name, bad(diagnostics::from_silo_error(Some(name), &error)));
        }
    }
    for end in ends.iter().filter(|end| end.spec.silo == name) {
        let result = match resolve(running.as_ref(), &end.spec.channel).await {
            Ok(result) => result,
            Err(error) => {
                let fault = diagnostics::from_silo_error(Some(name), &error);
                bad(match &end.named {
                    Some((_, channel)) => fault.at(channel.clone()),
                    None => fault.note(format!(
                        "`footbridge portal add` has linked {} to it",
                        end.spec.room
                    )),
                })
            }
        };
        findings.add(name, result);
    }
}

async fn resolve(silo: &dyn Silo, channel: &str) -> Result<CheckResult, SiloError> {
    let name = silo.look_up(channel).await?.name;
    Ok(if silo.knows_channels() {
        CheckResult::Good(format!("channel {name} can be read and written"))
    } else {
        CheckResult::Uncertain(format!(
            "cannot check whether channel {name} exists: the other side accepts messages for any name, so compare it \
             with the other side's configuration"
        ))
    })
}
