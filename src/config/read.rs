//! From the bytes of the file to a [`Config`]: reading, syntax, then one table after the other.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use toml::de::{DeTable, DeValue};
use url::Url;

use super::{
    AdminConfig, Config, PortalConfig, StoreConfig,
    fault::{Exit, Fault, Report, Source},
    mask, secret_file, values,
    walk::{Extent, Section, Walk},
};
use crate::{
    matrix::{Homeserver, MatrixConfig, Trust},
    secret::Secret,
    silo::{
        SiloConfig,
        gitter::{Feed, GitterConfig},
    },
};

/// What Gitter's own API allows in a minute.
const GITTER_LIMIT: u32 = 100;
const GITTER_HOST: &str = "api.gitter.im";

pub(super) fn load(path: &Path) -> Result<Config, Report> {
    let (bytes, facts) = read_file(path).map_err(Report::of)?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(not_utf8(path, &error)),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if text.trim().is_empty() {
        return Err(Report::of(no_file(
            format!("{} is empty", path.display()),
            path,
        )));
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    let root = root.get_ref();
    let broken = errors
        .iter()
        .any(|error| error.message() != "duplicate key");
    let extent = if errors.is_empty() {
        Extent::Whole
    } else {
        Extent::Part
    };
    let masked = mask::secret_ranges(
        text,
        root,
        if broken { Extent::Part } else { Extent::Whole },
    );
    let source = Arc::new(Source::new(path, text, &masked));

    let syntax: Vec<Fault> = errors
        .iter()
        .map(|error| syntax_fault(error, root))
        .collect();
    let mut reader = Reader {
        walk: Walk::new(extent),
        base: path.parent().unwrap_or(Path::new("")),
        file: path,
        open_to_others: secret_file::open_to_others(path, &facts, "the token in it"),
    };
    let config = reader.config(root, &source);
    let mut faults = reader.walk.faults;
    // What the parser guessed about a broken line is not worth a second complaint.
    faults.retain(|fault| {
        !fault
            .marks
            .first()
            .is_some_and(|mark| on_a_line_of(text, &mark.span, &syntax))
    });
    faults.extend(syntax);
    faults.sort_by_key(|fault| fault.marks.first().map_or(0, |mark| mark.span.start));
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Report {
            source: Some(source),
            faults,
        }),
    }
}

fn read_file(path: &Path) -> Result<(Vec<u8>, std::fs::Metadata), Fault> {
    let shown = path.display();
    let facts = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if facts.is_dir() {
        return Err(no_file(format!("{shown} is a directory, not a file"), path));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    Ok((bytes, facts))
}

fn no_file(what: String, path: &Path) -> Fault {
    Fault::new("B06", what).exit(Exit::NoInput).help(format!(
        "let `footbridge --config {} init` write one, or copy config.toml.example",
        path.display()
    ))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    let shown = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => no_file(format!("{shown} does not exist"), path),
        std::io::ErrorKind::PermissionDenied => {
            let found = std::fs::metadata(path).map_or_else(
                |_| "its directory may not be searched".to_owned(),
                |facts| {
                    format!(
                        "it belongs to user {} and has mode {:04o}",
                        facts.uid(),
                        facts.mode() & 0o777
                    )
                },
            );
            Fault::new("B07", format!("{shown} may not be read"))
                .exit(Exit::Permission)
                .note(found)
                .help(format!("give the file to the user that runs footbridge, with mode 0600: chmod 600 {shown}"))
        }
        _ => Fault::new("B07", format!("{shown} cannot be read: {error}"))
            .exit(Exit::Io)
            .help("check the file system"),
    }
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Report {
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let masked = mask::secret_ranges(&text, &DeTable::new(), Extent::Part);
    let fault = Fault::new("B05", "the file is not UTF-8")
        .labelled(at..at + 1, "this byte is no character")
        .help("save the file as UTF-8");
    Report {
        source: Some(Arc::new(Source::new(path, &text, &masked))),
        faults: vec![fault],
    }
}

fn syntax_fault(error: &toml::de::Error, root: &DeTable<'_>) -> Fault {
    let span = error.span().unwrap_or(0..0);
    if error.message() == "duplicate key" {
        let fault =
            Fault::new("B03", "this is here twice").labelled(span.clone(), "the second one");
        let fault = match earlier(root, &span) {
            Some(first) => fault.labelled(first, "the first one"),
            None => fault,
        };
        return fault.help("keep one of them");
    }
    let help = if error.message().contains("quote") || error.message().contains("string") {
        "write texts in double quotes, all on one line: key = \"value\""
    } else {
        "write `key = value` lines below a `[table]` line; texts stand in double quotes"
    };
    Fault::new("B05", format!("this is not TOML: {}", error.message()))
        .at(span)
        .help(help)
}

// The last key before `span` that spans as much and stands in the same table: where the first of two stands.
fn earlier(root: &DeTable<'_>, span: &Range<usize>) -> Option<Range<usize>> {
    fn keys(table: &DeTable<'_>, found: &mut Vec<Range<usize>>, length: usize) {
        for (key, value) in table {
            if key.span().len() == length {
                found.push(key.span());
            }
            match value.get_ref() {
                DeValue::Table(inner) => keys(inner, found, length),
                DeValue::Array(items) => items
                    .iter()
                    .filter_map(|item| item.get_ref().as_table())
                    .for_each(|inner| keys(inner, found, length)),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    keys(root, &mut found, span.len());
    found
        .into_iter()
        .filter(|key| key.start < span.start)
        .max_by_key(|key| key.start)
}

fn on_a_line_of(text: &str, span: &Range<usize>, faults: &[Fault]) -> bool {
    let line = |at: usize| {
        text.get(..at.min(text.len()))
            .map_or(0, |before| before.matches('\n').count())
    };
    faults
        .iter()
        .filter_map(|fault| fault.marks.first())
        .any(|mark| (line(mark.span.start)..=line(mark.span.end)).contains(&line(span.start)))
}

struct Reader<'f> {
    walk: Walk,
    base: &'f Path,
    file: &'f Path,
    open_to_others: Option<Fault>,
}

impl Reader<'_> {
    fn config(&mut self, root: &DeTable<'_>, source: &Arc<Source>) -> Option<Config> {
        let sections = self.walk.sections(root);
        let of = |name: &'static str| {
            sections
                .iter()
                .filter(move |section| section.name() == name)
        };
        let store = self.store(of("store").next());
        let matrix = of("matrix").next().and_then(|section| self.matrix(section));
        let silos: Vec<_> = of("silo").map(|section| self.silo(section)).collect();
        self.refuse_twins(
            of("silo"),
            &["name"],
            "two silos have the same name",
            "give each silo a name of its own",
        );
        let names = of("silo")
            .filter_map(|section| self.quiet_text(section, "name"))
            .collect::<Vec<_>>();
        let portals: Vec<_> = of("portal")
            .map(|section| self.portal(section, &names))
            .collect();
        self.refuse_twins(
            of("portal"),
            &["room", "silo", "channel"],
            "two portals join the same room and channel",
            "remove one of them",
        );
        self.refuse_mixed_trust(of("portal"));
        let admin = self.admin(of("admin").next());
        Some(Config {
            store,
            matrix: matrix?,
            silos: silos.into_iter().collect::<Option<_>>()?,
            portals: portals.into_iter().collect::<Option<_>>()?,
            admin: admin?,
            source: Arc::clone(source),
        })
    }

    fn store(&mut self, section: Option<&Section<'_>>) -> StoreConfig {
        let mut path = |key, default: &str| {
            let given = section.and_then(|section| self.path(section, key));
            given.unwrap_or_else(|| self.base.join(default))
        };
        StoreConfig {
            path: path("path", "data"),
            key_file: path("key_file", "footbridge.key"),
        }
    }

    fn matrix(&mut self, section: &Section<'_>) -> Option<MatrixConfig> {
        let walk = &mut self.walk;
        let homeserver: Option<Homeserver> = walk.need(
            section,
            "homeserver",
            "\"https://matrix.example.org\"",
            values::homeserver,
        );
        let user = walk.need(section, "user", "\"@bridge:example.org\"", values::user);
        let device_name = walk.read(section, "device_name", |text| {
            values::line("device name", text)
        });
        let key_wait = span_of(walk, section, "key_wait", 0..=300, 5);
        let password_file = self.path(section, "password_file");
        let recovery_key_file = self.path(section, "recovery_key_file");
        Some(MatrixConfig {
            homeserver: homeserver?,
            user: user?,
            password_file,
            recovery_key_file,
            device_name: device_name.unwrap_or_else(|| "Footbridge".to_owned()),
            key_wait,
        })
    }

    fn silo(&mut self, section: &Section<'_>) -> Option<SiloConfig> {
        let name = self
            .walk
            .need(section, "name", "\"gitter\"", values::silo_name);
        let kind = self.walk.need(section, "kind", "\"gitter\"", |text| {
            if text == "gitter" {
                Ok(())
            } else {
                values::one_of(text, &["gitter"])
            }
        });
        let token = self.token(section);
        let walk = &mut self.walk;
        let api = url_of(
            walk,
            section,
            "api",
            "https://api.gitter.im/v1",
            &["https", "http"],
        );
        let stream = url_of(
            walk,
            section,
            "stream",
            "https://stream.gitter.im/v1",
            &["https", "http"],
        );
        let realtime = url_of(
            walk,
            section,
            "realtime",
            "wss://ws.gitter.im/bayeux",
            &["wss", "ws", "https", "http"],
        );
        let feed = walk.read(section, "feed", |text| match text {
            "realtime" => Ok(Feed::Realtime),
            "stream" => Ok(Feed::Stream),
            _ => values::one_of(text, &["realtime", "stream"]),
        });
        let settle = span_of(walk, section, "settle", 1..=300, 20);
        let overlap = span_of(walk, section, "overlap", 0..=3600, 10);
        let requests_per_minute = self.requests_per_minute(section, api.as_ref());
        kind?;
        Some(SiloConfig::Gitter(GitterConfig {
            name: name?,
            token: token?,
            api: api?,
            stream: stream?,
            realtime: realtime?,
            feed: feed.unwrap_or_default(),
            requests_per_minute,
            settle,
            overlap,
        }))
    }

    fn requests_per_minute(&mut self, section: &Section<'_>, api: Option<&Url>) -> u32 {
        const DEFAULT: u32 = 95;
        let Some(given) = self.walk.number(section, "requests_per_minute", 1..=60_000) else {
            return DEFAULT;
        };
        let theirs = api.is_some_and(|api| api.host_str() == Some(GITTER_HOST));
        if theirs && *given.get_ref() > GITTER_LIMIT {
            self.walk.faults.push(
                Fault::new(
                    "B28",
                    format!(
                        "`requests_per_minute` is more than the {GITTER_LIMIT} that `api` allows"
                    ),
                )
                .at(given.span())
                .note(format!(
                    "`api` is https://{GITTER_HOST}, which refuses what goes beyond its limit"
                ))
                .help(format!(
                    "write at most {GITTER_LIMIT}, better {DEFAULT}, or remove the line"
                )),
            );
        }
        *given.get_ref()
    }

    fn token(&mut self, section: &Section<'_>) -> Option<Secret> {
        match (section.key_span("token"), section.key_span("token_file")) {
            (Some(inline), Some(file)) => {
                self.walk.faults.push(
                    Fault::new("B09", "the token is given twice")
                        .exit(Exit::Usage)
                        .labelled(file, "here by a file")
                        .labelled(inline, "and here in words")
                        .help("keep `token_file` and remove `token`"),
                );
                None
            }
            (Some(key), None) => self.inline_token(section, key),
            (None, Some(_)) => self.token_from_file(section),
            (None, None) => {
                self.walk.missing(section, "token_file", "\"gitter.token\"");
                None
            }
        }
    }

    fn inline_token(&mut self, section: &Section<'_>, key: Range<usize>) -> Option<Secret> {
        if let Some(fault) = &self.open_to_others {
            let help = format!(
                "chmod 600 {}, or move the token into a file of its own: token_file = \"gitter.token\"",
                self.file.display()
            );
            self.walk
                .faults
                .push(fault.clone().labelled(key, "a secret").help(help));
        }
        self.walk.read(section, "token", |text| {
            if text.is_empty()
                || text.len() > 4096
                || text.contains(|c: char| c.is_whitespace() || c.is_control())
            {
                return Err(values::Flaw {
                    code: "B10",
                    what: "the token is empty, too long, or has spaces in it".to_owned(),
                    help: "paste the token alone, between the quotes".to_owned(),
                });
            }
            Ok(Secret::new(text.to_owned()))
        })
    }

    fn token_from_file(&mut self, section: &Section<'_>) -> Option<Secret> {
        let text = self.walk.text(section, "token_file")?;
        let path = self.base.join(text.get_ref());
        if mask::looks_like_token(text.get_ref()) && !path.exists() {
            self.walk.faults.push(
                Fault::new(
                    "B18",
                    "`token_file` names no file; it looks like the token itself",
                )
                .exit(Exit::NoInput)
                .at(text.span())
                .help("put the token into a file of mode 0600 and name the file here"),
            );
            return None;
        }
        match secret_file::read("token_file", &path) {
            Ok(token) => Some(token),
            Err(fault) => {
                self.walk.faults.push(fault.at(text.span()));
                None
            }
        }
    }

    fn portal(&mut self, section: &Section<'_>, silos: &[String]) -> Option<PortalConfig> {
        let room = self
            .walk
            .need(section, "room", "\"#room:example.org\"", values::room);
        let silo = self.walk.need(section, "silo", "\"gitter\"", |text| {
            if silos.iter().any(|silo| silo == text) {
                return Ok(text.to_owned());
            }
            Err(unknown_silo(text, silos))
        });
        let channel = self
            .walk
            .need(section, "channel", "\"org/room\"", values::channel);
        let trust = self.walk.read(section, "trust", values::trust);
        Some(PortalConfig {
            room: room?,
            silo: silo?,
            channel: channel?,
            trust: trust.unwrap_or_default(),
            channel_span: section.span("channel"),
            room_span: section.span("room"),
        })
    }

    fn admin(&mut self, section: Option<&Section<'_>>) -> Option<AdminConfig> {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 29_320));
        let Some(section) = section else {
            return Some(AdminConfig { listen: default });
        };
        let allowed = self.walk.flag(section, "allow_remote").unwrap_or_default();
        let listen = self
            .walk
            .read(section, "listen", values::address)
            .unwrap_or(default);
        if !listen.ip().is_loopback() && !allowed {
            self.walk.faults.push(
                Fault::new("B31", format!("`listen` is {listen}: others than this machine could read health and metrics"))
                    .at(section.span("listen"))
                    .help("write a loopback address such as \"127.0.0.1:29320\", or add `allow_remote = true`"),
            );
        }
        Some(AdminConfig { listen })
    }

    fn path(&mut self, section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
        self.walk
            .read(section, key, |text| values::line("path", text))
            .map(|text| self.base.join(text))
    }

    // The text of a key without complaints: its own reader has made them.
    fn quiet_text(&mut self, section: &Section<'_>, key: &'static str) -> Option<String> {
        let known = self.walk.faults.len();
        let text = self
            .walk
            .text(section, key)
            .map(|text| (*text.get_ref()).to_owned());
        self.walk.faults.truncate(known);
        text
    }

    fn refuse_twins<'s, 't: 's>(
        &mut self,
        sections: impl Iterator<Item = &'s Section<'t>>,
        keys: &[&'static str],
        what: &str,
        help: &str,
    ) {
        let mut first: HashMap<Vec<String>, Range<usize>> = HashMap::new();
        for section in sections {
            let texts: Option<Vec<String>> = keys
                .iter()
                .map(|key| {
                    self.quiet_text(section, key)
                        .map(|text| text.to_lowercase())
                })
                .collect();
            let Some(texts) = texts else { continue };
            let here = if let [only] = keys {
                section.span(only)
            } else {
                section.header.clone()
            };
            if let Some(there) = first.get(&texts) {
                self.walk.faults.push(
                    Fault::new("B03", what)
                        .labelled(here, "the second one")
                        .labelled(there.clone(), "the first one")
                        .help(help),
                );
            } else {
                first.insert(texts, here);
            }
        }
    }

    // Room keys are shared per account, not per room: one trusting portal would make all of them trusting.
    fn refuse_mixed_trust<'s, 't: 's>(&mut self, sections: impl Iterator<Item = &'s Section<'t>>) {
        let said: Vec<(Trust, Range<usize>)> = sections
            .map(|section| {
                let text = self.quiet_text(section, "trust");
                let trust = text
                    .and_then(|text| values::trust(&text).ok())
                    .unwrap_or_default();
                (trust, section.span("trust"))
            })
            .collect();
        let Some((first, there)) = said.first() else {
            return;
        };
        if let Some((_, here)) = said.iter().find(|(trust, _)| trust != first) {
            self.walk.faults.push(
                Fault::new("B28", "the portals differ in `trust`")
                    .labelled(here.clone(), "this one differs")
                    .labelled(there.clone(), "from this one")
                    .note("an account shares its keys by one rule, so all portals of the account must agree")
                    .help("write the same `trust` in every `[[portal]]`; the default is \"cross-signed\""),
            );
        }
    }
}

fn unknown_silo(text: &str, silos: &[String]) -> values::Flaw {
    let help = match values::nearest(text, silos.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None if silos.is_empty() => "add a `[[silo]]` with this name".to_owned(),
        None => format!("the silos in this file are {}", silos.join(", ")),
    };
    values::Flaw {
        code: "B03",
        what: format!("there is no silo `{text}`"),
        help,
    }
}

// Bounds and default in seconds.
fn span_of(
    walk: &mut Walk,
    section: &Section<'_>,
    key: &'static str,
    bounds: std::ops::RangeInclusive<u64>,
    default: u64,
) -> Duration {
    let (least, most) = (
        Duration::from_secs(*bounds.start()),
        Duration::from_secs(*bounds.end()),
    );
    walk.read(section, key, |text| values::duration(text, least, most))
        .unwrap_or(Duration::from_secs(default))
}

fn url_of(
    walk: &mut Walk,
    section: &Section<'_>,
    key: &'static str,
    default: &str,
    schemes: &[&str],
) -> Option<Url> {
    let read = |text: &str| values::base_url("B11", key, text, schemes);
    if section.key_span(key).is_some() {
        walk.read(section, key, read)
    } else {
        read(default).ok()
    }
}
