//! `footbridge check`: one line per thing that must be right, with the next step where it is not. Touches
//! nothing: no directory is made, no lock taken, nobody logged in.

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

/// What one look found.
enum CheckResult {
    Good(String),
    Uncertain(String),
    Bad(Box<Diagnostic>),
    /// Something that somebody should look at, told in full.
    Warned(Box<Diagnostic>),
}

/// The findings so far.
#[derive(Default)]
struct CheckResults {
    diagnostics: Vec<Diagnostic>,
}

impl CheckResults {
    fn add(&mut self, subject: &str, found: CheckResult) {
        let (word, text) = match found {
            CheckResult::Good(text) => ("ok", text),
            CheckResult::Uncertain(text) => ("warn", text),
            CheckResult::Bad(fault) => {
                let text = fault.what.clone();
                self.diagnostics.push(*fault);
                ("fail", text)
            }
            CheckResult::Warned(fault) => {
                let text = fault.what.clone();
                self.diagnostics.push(*fault);
                ("warn", text)
            }
        };
        console::say(&format!("{word:<4}  {subject:<13}  {text}"));
    }
}

fn bad(fault: Diagnostic) -> CheckResult {
    CheckResult::Bad(Box::new(fault))
}

/// Checks everything and shows what it finds. Ends as its first fault says: later ones often follow from it.
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
    console::tell(&config.report(findings.diagnostics));
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
            "{text}; nothing to bridge until there is a [[portal]]"
        ));
    }
    CheckResult::Good(text)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Both ends of a portal, and where they stand in the configuration if they do.
struct PortalEnds {
    spec: PortalSpec,
    named: Option<(Range<usize>, Range<usize>)>,
}

/// Those of all portals that `run` opens.
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

/// Looks whether the aliases of rooms lead anywhere. Who is in a room only the running bridge is told.
async fn check_rooms(base: &Url, ends: &[PortalEnds], findings: &mut CheckResults) {
    let mut seen = HashSet::new();
    for end in ends {
        let room = &end.spec.room;
        if !room.starts_with('#') || !seen.insert(room) {
            continue;
        }
        let found = match homeserver::alias_exists(base, room).await {
            Ok(true) => CheckResult::Good(format!("room {room} is there")),
            Ok(false) => {
                let fault = Diagnostic::new("B30", format!("no room has the alias {room}"))
                    .exit(Exit::Unavailable)
                    .help("correct `room`, or give the room this alias");
                bad(match &end.named {
                    Some((room, _)) => fault.at(room.clone()),
                    None => fault,
                })
            }
            Err(why) => {
                CheckResult::Uncertain(format!("nobody can say whether {room} is there: {why}"))
            }
        };
        findings.add("room", found);
    }
}

/// Answers which portals the operator has added on the command line.
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
    // What else is wrong with the store is said of it.
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

fn account(config: &Config, face: Option<&AccountInfo>) -> CheckResult {
    let Some(face) = face else {
        return CheckResult::Uncertain("nobody is logged in: footbridge login".to_owned());
    };
    if face.user_id != config.matrix.user.as_str() {
        return bad(Diagnostic::new(
            "B16",
            format!(
                "the store belongs to {}, the configuration names {}",
                face.user_id, config.matrix.user
            ),
        )
        .help("give each account a `[store] path` of its own"));
    }
    let text = format!("{} on device {}", face.user_id, face.device_id);
    if face.master_key.is_none() {
        return CheckResult::Uncertain(format!(
            "{text}; its login is not finished: footbridge login"
        ));
    }
    CheckResult::Good(text)
}

async fn check_admin(config: &Config, findings: &mut CheckResults) {
    let listen = config.admin.listen;
    let found = match preflight::admin(&config.admin) {
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
    findings.add("admin", found);
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
        let found = match resolve(running.as_ref(), &end.spec.channel).await {
            Ok(found) => found,
            Err(error) => {
                let fault = diagnostics::from_silo_error(Some(name), &error);
                bad(match &end.named {
                    Some((_, channel)) => fault.at(channel.clone()),
                    None => fault.note(format!(
                        "`footbridge portal add` has joined {} to it",
                        end.spec.room
                    )),
                })
            }
        };
        findings.add(name, found);
    }
}

async fn resolve(silo: &dyn Silo, channel: &str) -> Result<CheckResult, SiloError> {
    let name = silo.resolve(channel).await?.name;
    Ok(if silo.knows_channels() {
        CheckResult::Good(format!("channel {name} can be read and written"))
    } else {
        CheckResult::Uncertain(format!(
            "nobody tells whether channel {name} exists: messages are taken for any name, so compare it with the other \
             side's configuration"
        ))
    })
}
