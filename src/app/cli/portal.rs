//! `footbridge portal add|list|remove`: portals beside those of the configuration, in the same store that chat commands
//! use. While the bridge runs it holds the lock of the store, and the command says what to do instead.

use footbridge_core::clock::Clock;
use footbridge_store::{
    Consent, Error as StoreError, Portal, PortalHold, PortalSource, PortalSpec, Side, Snapshot,
    Store, StoreKey,
};

use super::{CommandResult, args, console, preflight};
use crate::{
    config::{Config, Diagnostic, Exit, PortalConfig, Report, values},
    control::{TEXT_VERSION, messages, unlinked_notice},
};

/// Who has given consent where the command line gives it.
const OPERATOR: &str = "the operator";

/// Runs the subcommand.
pub async fn run(config: &Config, what: args::Portal) -> CommandResult {
    match what {
        args::Portal::Add {
            room,
            silo,
            channel,
        } => {
            let spec = PortalSpec {
                room,
                silo,
                channel,
            };
            add(config, spec).await
        }
        args::Portal::List => list(config).await,
        args::Portal::Remove {
            room,
            silo,
            channel,
        } => remove(config, &room, silo.zip(channel)).await,
    }
}

fn usage(error: values::ValueError) -> Diagnostic {
    Diagnostic::new(error.code, error.what)
        .exit(Exit::Usage)
        .help(error.help)
}

/// The errors in the names of a portal.
fn name_errors(config: &Config, spec: &PortalSpec) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    diagnostics.extend(values::room(&spec.room).err().map(usage));
    let silo = config.silos.iter().find(|silo| silo.name() == spec.silo);
    let channel = match silo {
        Some(silo) => values::channel_of(silo.kind(), &spec.channel),
        None => values::channel(&spec.channel),
    };
    diagnostics.extend(channel.err().map(usage));
    if silo.is_none() {
        let names: Vec<&str> = config.silos.iter().map(|silo| silo.name()).collect();
        let help = match values::nearest(&spec.silo, names.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!(
                "the silos in {} are: {}",
                config.source.path(),
                names.join(", ")
            ),
        };
        diagnostics.push(
            Diagnostic::new("B03", format!("there is no silo `{}`", spec.silo))
                .exit(Exit::Usage)
                .help(help),
        );
    }
    diagnostics
}

/// Opens the store. Where the bridge runs and holds it, `instead` says what can be done; in a chat only those can who
/// are named in `[admin] users`.
async fn open(config: &Config, instead: &str) -> Result<Store, Report> {
    preflight::before_opening(config)?;
    let key = StoreKey::read(&config.store.key_file)?;
    match Store::open(&config.store.path, &key).await {
        Ok(store) => Ok(store),
        Err(StoreError::Locked { pid, since, .. }) => Err(Report::of(
            Diagnostic::new("B19", "the bridge runs and holds the store")
                .exit(Exit::Locked)
                .note(format!("process {pid}, started {since}"))
                .help(format!(
                    "{instead}stop the bridge (kill {pid}), run this command again, and start the bridge"
                )),
        )),
        Err(error) => Err(error.into()),
    }
}

async fn add(config: &Config, spec: PortalSpec) -> CommandResult {
    let diagnostics = name_errors(config, &spec);
    if !diagnostics.is_empty() {
        return Err(Report {
            source: None,
            diagnostics,
        });
    }
    let (silo, channel) = (&spec.silo, &spec.channel);
    let say = if config.admin.users.is_empty() {
        String::new()
    } else {
        format!(
            "invite the bridge's account into the room and send `!bridge portal add {silo} {channel}` there; or "
        )
    };
    let store = open(config, &say).await?;
    let now = Clock::start().now();
    let in_file = config.portals.iter().any(|portal| portal.spec() == spec);
    // Naming the portal here is the operator's consent, as its entry in the configuration is.
    let mut agreed = None;
    for portal in store.lacking_consent().await? {
        if portal.spec == spec {
            let consent = Consent {
                by: OPERATOR.to_owned(),
                text_version: TEXT_VERSION,
                effective_at: now,
            };
            store.record_consent(portal.id, consent, now).await?;
            agreed = Some(store.waiting_to_leave(portal.id).await?);
        }
    }
    let new = !in_file && store.add_operator_portal(&spec, now).await?;
    console::say(&match (agreed, new, in_file) {
        (Some(0), ..) => {
            "Consent recorded: messages of the encrypted room are relayed to the channel."
                .to_owned()
        }
        (Some(waiting), ..) => format!(
            "Consent recorded: messages of the encrypted room are relayed to the channel, including those that wait ({}).",
            messages(waiting)
        ),
        (None, true, _) => format!(
            "Added: {} - {silo} {channel}. `footbridge check` checks that both ends exist, and `footbridge run` \
             opens it; invite the bridge's account into the room.",
            spec.room
        ),
        (None, false, true) => {
            format!("This portal is in {} already.", config.source.path())
        }
        (None, false, false) => "This portal was added already.".to_owned(),
    });
    Ok(Exit::Fine)
}

fn is_meant(portal: &Portal, room: &str, end: Option<&(String, String)>) -> bool {
    portal.active
        && portal.source != PortalSource::Management
        && (portal.spec.room == room || portal.room.address() == room)
        && end.is_none_or(|(silo, channel)| {
            portal.spec.silo == *silo && portal.spec.channel == *channel
        })
}

async fn remove(config: &Config, room: &str, end: Option<(String, String)>) -> CommandResult {
    values::room(room).map_err(|error| Report::of(usage(error)))?;
    let end = end.as_ref();
    let is_wanted = |spec: &PortalSpec| {
        spec.room == room
            && end.is_none_or(|(silo, channel)| spec.silo == *silo && spec.channel == *channel)
    };
    // What can be reported without stopping the bridge is reported at once.
    if let Some(named) = config.portals.iter().find(|named| is_wanted(&named.spec())) {
        return Err(in_file(config, named));
    }
    let snapshot = Store::snapshot(&config.store.path).await?;
    let is_known = snapshot
        .portals
        .iter()
        .any(|portal| is_meant(portal, room, end))
        || snapshot.operator_portals.iter().any(is_wanted);
    if !is_known {
        return Err(Report::of(nothing(room, end)));
    }
    let store = open(config, "send `!bridge portal remove` in the room; or ").await?;
    let mut portals = store.portals().await?;
    portals.retain(|portal| is_meant(portal, room, end));
    let named = portals.iter().find_map(|portal| {
        let mut named = config.portals.iter();
        named.find(|wanted| wanted.spec() == portal.spec)
    });
    if let Some(named) = named {
        return Err(in_file(config, named));
    }
    let mut unopened = store.operator_portals().await?;
    unopened.retain(is_wanted);
    let mut specs: Vec<PortalSpec> = portals.iter().map(|portal| portal.spec.clone()).collect();
    specs.extend(
        unopened
            .iter()
            .filter(|spec| !portals.iter().any(|portal| portal.spec == **spec))
            .cloned(),
    );
    match specs.as_slice() {
        [] => return Err(Report::of(nothing(room, end))),
        [_] => {}
        several => return Err(Report::of(ambiguous(room, several))),
    }
    for spec in specs.iter().chain(&unopened) {
        store.remove_operator_portal(spec).await?;
    }
    let names: Vec<String> = specs
        .iter()
        .map(|spec| format!("{} {}", spec.silo, spec.channel))
        .collect();
    let (names, now) = (names.join(" and "), Clock::start().now());
    let ids: Vec<_> = portals.iter().map(|portal| portal.id).collect();
    let notice_names = names.clone();
    let notice = move |dropped| unlinked_notice(&notice_names, dropped, now);
    let removed = store.remove_portals(&ids, None, notice, now).await?;
    store.checkpoint().await?;
    console::say(&format!(
        "{room} is no longer linked to {names}. Waiting messages that were erased: {}.",
        removed.dropped
    ));
    Ok(Exit::Fine)
}

fn in_file(config: &Config, named: &PortalConfig) -> Report {
    config.report(vec![
        Diagnostic::new("B03", "this portal is in the configuration")
            .exit(Exit::Usage)
            .at(named.room_span.clone())
            .help("remove its [[portal]] here, and start the bridge again"),
    ])
}

fn nothing(room: &str, end: Option<&(String, String)>) -> Diagnostic {
    let what = match end {
        Some((silo, channel)) => format!("no portal links {room} to {silo} {channel}"),
        None => format!("nothing is linked to {room}"),
    };
    Diagnostic::new("B03", what)
        .exit(Exit::Usage)
        .help("footbridge portal list")
}

fn ambiguous(room: &str, specs: &[PortalSpec]) -> Diagnostic {
    let first = specs.first().map_or_else(String::new, |spec| {
        format!(
            "footbridge portal remove '{room}' {} {}",
            spec.silo, spec.channel
        )
    });
    Diagnostic::new(
        "B26",
        format!("{} portals have the room {room}", specs.len()),
    )
    .exit(Exit::Usage)
    .help(format!("name one, for example: {first}"))
}

async fn list(config: &Config) -> CommandResult {
    let snapshot = Store::snapshot(&config.store.path).await?;
    let mut lines: Vec<String> = Vec::new();
    for portal in &snapshot.portals {
        if portal.active && portal.source != PortalSource::Management {
            lines.push(line(&snapshot, portal));
        }
    }
    let named = config
        .portals
        .iter()
        .map(|portal| (portal.spec(), "the configuration"));
    let wanted = snapshot
        .operator_portals
        .iter()
        .cloned()
        .map(|spec| (spec, "the command line"));
    for (spec, by) in named.chain(wanted) {
        let open = snapshot
            .portals
            .iter()
            .any(|portal| portal.active && portal.spec == spec);
        if !open {
            let PortalSpec {
                room,
                silo,
                channel,
            } = spec;
            lines.push(format!(
                "{room} - {silo} {channel}  by {by}, never opened yet"
            ));
        }
    }
    if lines.is_empty() {
        lines.push("no portals".to_owned());
    }
    console::say(&lines.join("\n"));
    Ok(Exit::Fine)
}

fn line(snapshot: &Snapshot, portal: &Portal) -> String {
    let spec = &portal.spec;
    let by = match portal.source {
        PortalSource::Config => "the configuration",
        PortalSource::Operator => "the command line",
        PortalSource::Chat => "people in the room",
        PortalSource::Management => "nobody",
    };
    let now = Clock::start().now();
    let holds = snapshot.holds.iter().filter(|(id, _)| *id == portal.id);
    let holds: String = holds
        .filter_map(|(_, hold)| match hold {
            PortalHold::Paused { .. } => Some(", paused"),
            PortalHold::Upgraded { .. } => Some(", its room was upgraded"),
            PortalHold::Consent => Some(", waiting for consent"),
            PortalHold::Delay { until } => (*until > now).then_some(", starting soon"),
        })
        .collect();
    let all_counters = snapshot.all_counters.iter();
    let closed = all_counters.filter(|counters| portal.active && counters.lane.portal == portal.id);
    let closed: String = closed
        .filter_map(|counters| {
            let why = counters.closed_reason.as_ref()?;
            let place = match counters.lane.toward {
                Side::Matrix => "room",
                Side::Silo => "channel",
            };
            Some(format!(", no access to its {place}: {why}"))
        })
        .collect();
    let moved = portal.moved_from();
    let moved = moved.map_or_else(String::new, |old| format!(", moved from {old}"));
    format!(
        "{} - {} {}  by {by}{moved}{holds}{closed}",
        portal.room_name(),
        spec.silo,
        spec.channel
    )
}
