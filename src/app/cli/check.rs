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
    Ended,
    args::Reach,
    console, exit,
    live::{self, Live},
    preflight,
};
use crate::config::{Config, Exit, Fault, fault::Weight};

/// What one look found.
enum Found {
    Good(String),
    Doubtful(String),
    Bad(Box<Fault>),
    /// Something that somebody should look at, told in full.
    Warned(Box<Fault>),
}

/// The findings so far.
#[derive(Default)]
struct Findings {
    faults: Vec<Fault>,
}

impl Findings {
    fn add(&mut self, subject: &str, found: Found) {
        let (word, text) = match found {
            Found::Good(text) => ("ok", text),
            Found::Doubtful(text) => ("warn", text),
            Found::Bad(fault) => {
                let text = fault.what.clone();
                self.faults.push(*fault);
                ("fail", text)
            }
            Found::Warned(fault) => {
                let text = fault.what.clone();
                self.faults.push(*fault);
                ("warn", text)
            }
        };
        console::say(&format!("{word:<4}  {subject:<13}  {text}"));
    }
}

fn bad(fault: Fault) -> Found {
    Found::Bad(Box::new(fault))
}

/// Checks everything and shows what it finds. Ends as its first fault says: later ones often follow from it.
pub async fn run(config: &Config, reach: Reach) -> Ended {
    let mut findings = Findings::default();
    findings.add("configuration", configuration(config));
    if let Some(root) = preflight::root() {
        findings.add("user", Found::Doubtful(root.what));
    }
    let wanted = look_at_store(config, &mut findings).await;
    look_at_admin(config, &mut findings).await;
    if reach == Reach::Network {
        let ends = ends(config, &wanted);
        match homeserver::probe(&config.matrix).await {
            Ok((base, text)) => {
                findings.add("homeserver", Found::Good(text));
                look_at_rooms(&base, &ends, &mut findings).await;
            }
            Err(fault) => findings.add("homeserver", bad(fault)),
        }
        for silo in &config.silos {
            look_at_silo(&ends, silo, &mut findings).await;
        }
    }
    let mut errors = findings.faults.iter();
    let first = errors.find(|fault| fault.weight == Weight::Error);
    let exit = first.map_or(Exit::Fine, |fault| fault.exit);
    if findings.faults.is_empty() {
        return Ok(exit);
    }
    console::tell(&config.report(findings.faults));
    Ok(exit)
}

fn configuration(config: &Config) -> Found {
    let text = format!(
        "{}: {}, {}",
        config.source.path(),
        counted(config.silos.len(), "silo"),
        counted(config.portals.len(), "portal")
    );
    if config.portals.is_empty() {
        return Found::Doubtful(format!(
            "{text}; nothing to bridge until there is a [[portal]]"
        ));
    }
    Found::Good(text)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Both ends of a portal, and where they stand in the configuration if they do.
struct Ends {
    spec: PortalSpec,
    named: Option<(Range<usize>, Range<usize>)>,
}

/// Those of all portals that `run` opens.
fn ends(config: &Config, wanted: &[PortalSpec]) -> Vec<Ends> {
    let named = config.portals.iter().map(|portal| Ends {
        spec: portal.spec(),
        named: Some((portal.room_span.clone(), portal.channel_span.clone())),
    });
    let mut ends: Vec<Ends> = named.collect();
    for spec in wanted {
        if !ends.iter().any(|known| known.spec == *spec) {
            ends.push(Ends {
                spec: spec.clone(),
                named: None,
            });
        }
    }
    ends
}

/// Looks whether the aliases of rooms lead anywhere. Who is in a room only the running bridge is told.
async fn look_at_rooms(base: &Url, ends: &[Ends], findings: &mut Findings) {
    let mut seen = HashSet::new();
    for end in ends {
        let room = &end.spec.room;
        if !room.starts_with('#') || !seen.insert(room) {
            continue;
        }
        let found = match homeserver::leads_somewhere(base, room).await {
            Ok(true) => Found::Good(format!("room {room} is there")),
            Ok(false) => {
                let fault = Fault::new("B30", format!("no room has the alias {room}"))
                    .exit(Exit::Unavailable)
                    .help("correct `room`, or give the room this alias");
                bad(match &end.named {
                    Some((room, _)) => fault.at(room.clone()),
                    None => fault,
                })
            }
            Err(why) => Found::Doubtful(format!("nobody can say whether {room} is there: {why}")),
        };
        findings.add("room", found);
    }
}

/// Answers which portals the operator has added on the command line.
async fn look_at_store(config: &Config, findings: &mut Findings) -> Vec<PortalSpec> {
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
            Found::Doubtful(format!("{shown} does not exist yet: footbridge login")),
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
        Ok(()) => Found::Good(format!(
            "{} is readable by this user only",
            store.key_file.display()
        )),
        Err(error) => bad(exit::of_store(&error)),
    };
    findings.add("key", key);
    match Store::snapshot(&store.path).await {
        Ok(snapshot) => {
            findings.add("store", Found::Good(format!("{shown} is readable")));
            findings.add("account", account(config, snapshot.account.as_ref()));
            portals::look(config, &snapshot, findings);
            snapshot.operator_portals
        }
        Err(error) => {
            findings.add("store", bad(exit::of_store(&error)));
            Vec::new()
        }
    }
}

fn account(config: &Config, face: Option<&AccountInfo>) -> Found {
    let Some(face) = face else {
        return Found::Doubtful("nobody is logged in: footbridge login".to_owned());
    };
    if face.user_id != config.matrix.user.as_str() {
        return bad(Fault::new(
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
        return Found::Doubtful(format!(
            "{text}; its login is not finished: footbridge login"
        ));
    }
    Found::Good(text)
}

async fn look_at_admin(config: &Config, findings: &mut Findings) {
    let listen = config.admin.listen;
    let found = match preflight::admin(&config.admin) {
        Ok(()) => Found::Good(format!("{listen} is free")),
        Err(fault) => match live::live(config).await {
            Live::Ours(_) => Found::Good(format!("a running Footbridge answers on {listen}")),
            Live::Another => bad(exit::address_in_use(&live::another(config))),
            Live::Nobody => bad(fault),
        },
    };
    findings.add("admin", found);
}

async fn look_at_silo(ends: &[Ends], silo: &SiloConfig, findings: &mut Findings) {
    let name = silo.name();
    let built = http_client::client().and_then(|http| silo.build(&http, Clock::start()));
    let running = match built {
        Ok(running) => running,
        Err(error) => {
            let fault = exit::of_silo(Some(name), &SiloError::Unavailable(error));
            return findings.add(name, bad(fault));
        }
    };
    match running.whoami().await {
        Ok(who) => findings.add(name, Found::Good(format!("signed in as {who}"))),
        Err(error) => return findings.add(name, bad(exit::of_silo(Some(name), &error))),
    }
    for end in ends.iter().filter(|end| end.spec.silo == name) {
        let found = match resolve(running.as_ref(), &end.spec.channel).await {
            Ok(found) => found,
            Err(error) => {
                let fault = exit::of_silo(Some(name), &error);
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

async fn resolve(silo: &dyn Silo, channel: &str) -> Result<Found, SiloError> {
    let name = silo.resolve(channel).await?.name;
    Ok(if silo.knows_channels() {
        Found::Good(format!("channel {name} can be read and written"))
    } else {
        Found::Doubtful(format!(
            "nobody tells whether channel {name} exists: messages are taken for any name, so compare it with the other \
             side's configuration"
        ))
    })
}
