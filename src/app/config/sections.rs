//! One table of the file after the other becomes its part of the [`Config`].

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use footbridge_core::persons::Person;
use footbridge_matrix::{Homeserver, MatrixConfig, Timeouts, Trust};
use footbridge_silo::matterbridge;
use toml::de::DeTable;

use super::{
    AdminConfig, Config, ConsentConfig, DeliveryConfig, GatewayConfig, MediaConfig, StoreConfig,
    diagnostic::{Diagnostic, Source},
    schema::{Schema, Section},
    values,
};

/// Reads the tables.
pub(super) struct ConfigReader<'f> {
    pub(super) schema: Schema,
    /// The directory that relative paths are relative to.
    pub(super) base: &'f Path,
    /// The file itself.
    pub(super) file: &'f Path,
    /// What is wrong when the file holds a secret and others may read it.
    pub(super) open_to_others: Option<Diagnostic>,
}

impl ConfigReader<'_> {
    pub(super) fn config(&mut self, root: &DeTable<'_>, source: &Arc<Source>) -> Option<Config> {
        let sections = self.schema.sections(root);
        let of = |name: &'static str| {
            sections
                .iter()
                .filter(move |section| section.name() == name)
        };
        let store = self.store(of("store").next());
        let matrix = of("matrix").next().and_then(|section| self.matrix(section));
        let silos: Vec<_> = of("silo").map(|section| self.silo(section)).collect();
        self.refuse_duplicates(
            of("silo"),
            &["name"],
            "two silos have the same name",
            "give each silo a name of its own",
        );
        // Where a silo's own name cannot be read, nobody knows which names are wrong.
        let unread = root.contains_key("silo") && of("silo").next().is_none();
        let names: Option<Vec<String>> = of("silo")
            .map(|section| self.quiet_text(section, "name"))
            .collect::<Option<_>>()
            .filter(|_| !unread);
        let matterbridges: Vec<String> = of("silo")
            .filter_map(|section| {
                let kind = self.quiet_text(section, "kind")?;
                let name = self.quiet_text(section, "name");
                name.filter(|_| kind == matterbridge::KIND.word)
            })
            .collect();
        let portals: Vec<_> = of("portal")
            .map(|section| self.portal(section, names.as_deref(), &matterbridges))
            .collect();
        self.refuse_duplicates(
            of("portal"),
            &["room", "silo", "channel"],
            "two portals join the same room and channel",
            "remove one of them",
        );
        self.refuse_mixed_trust(of("portal"));
        let people: Vec<_> = of("person")
            .map(|section| self.person(section, names.as_deref()))
            .collect();
        self.refuse_duplicates(
            of("person"),
            &["silo", "account"],
            "two people have the same account",
            "remove one of them",
        );
        let delivery = of("delivery")
            .next()
            .map_or_else(DeliveryConfig::default, |section| self.delivery(section));
        let media = self.media(of("media").next());
        let consent = of("consent")
            .next()
            .map_or_else(ConsentConfig::default, |section| self.consent(section));
        let admin = self.admin(of("admin").next());
        let mut matrix = matrix?;
        matrix.inviters.clone_from(&admin.users);
        let named = admin.users.iter();
        matrix.admins = named
            .filter_map(|user| user.as_str().try_into().ok())
            .collect();
        matrix.timeouts = Timeouts {
            notice_after: delivery.notice_after,
            key_limit: delivery.key_limit,
            unknown_after: delivery.unknown_after,
            ..matrix.timeouts
        };
        Some(Config {
            store,
            matrix,
            silos: silos.into_iter().collect::<Option<_>>()?,
            portals: portals.into_iter().collect::<Option<_>>()?,
            people: people.into_iter().collect::<Option<_>>()?,
            delivery,
            media,
            consent,
            admin,
            source: Arc::clone(source),
        })
    }

    fn store(&mut self, section: Option<&Section<'_>>) -> StoreConfig {
        let mut path = |key, default: &str| {
            let given = section.and_then(|section| self.path(section, key));
            given.unwrap_or_else(|| self.base.join(default))
        };
        let (directory, key_file) = (path("path", "data"), path("key_file", "footbridge.key"));
        let min_free = section
            .and_then(|section| self.schema.number(section, "min_free_mib", 0..=1_048_576))
            .map_or(64, toml::Spanned::into_inner);
        StoreConfig {
            path: directory,
            key_file,
            min_free: u64::from(min_free) << 20,
        }
    }

    fn matrix(&mut self, section: &Section<'_>) -> Option<MatrixConfig> {
        let walk = &mut self.schema;
        let homeserver: Option<Homeserver> = walk.required(
            section,
            "homeserver",
            "\"https://matrix.example.org\"",
            values::homeserver,
        );
        let user = walk.required(section, "user", "\"@bridge:example.org\"", values::user);
        let device_name = walk.read(section, "device_name", |text| {
            values::line("device name", text)
        });
        let key_wait = span_of(walk, section, "key_wait", 0..=300, 5);
        let audit = span_of(walk, section, "audit", 10..=3600, 300);
        let password_file = self.path(section, "password_file");
        let recovery_key_file = self.path(section, "recovery_key_file");
        Some(MatrixConfig {
            homeserver: homeserver?,
            user: user?,
            password_file,
            recovery_key_file,
            device_name: device_name.unwrap_or_else(|| "Footbridge".to_owned()),
            key_wait,
            admins: Vec::new(),
            inviters: Vec::new(),
            greeting: crate::control::greeting(),
            timeouts: Timeouts {
                audit,
                ..Timeouts::default()
            },
        })
    }

    fn person(&mut self, section: &Section<'_>, silos: Option<&[String]>) -> Option<Person> {
        let example = "\"@ann:example.org\"";
        let user = self.schema.required(section, "user", example, values::user);
        let silo = self.silo_name(section, silos);
        let account = self
            .schema
            .required(section, "account", "\"ann\"", values::account);
        Some(Person {
            user: user?.to_string(),
            silo: silo?,
            account: account?,
        })
    }

    fn delivery(&mut self, section: &Section<'_>) -> DeliveryConfig {
        const DAY: u64 = 24 * 3_600;
        let walk = &mut self.schema;
        let default = DeliveryConfig::default();
        let mut span =
            |key, bounds, default: Duration| span_of(walk, section, key, bounds, default.as_secs());
        DeliveryConfig {
            notice_after: span("notice_after", 1..=DAY, default.notice_after),
            key_limit: span("key_limit", 1..=90 * DAY, default.key_limit),
            unknown_after: span("unknown_after", 1..=DAY, default.unknown_after),
            give_up: span("give_up", 1..=30 * DAY, default.give_up),
            coalesce: walk.flag(section, "coalesce").unwrap_or(default.coalesce),
            attempts: walk
                .number(section, "attempts", 1..=100)
                .map_or(default.attempts, toml::Spanned::into_inner),
        }
    }

    fn media(&mut self, section: Option<&Section<'_>>) -> MediaConfig {
        let most = section
            .and_then(|section| self.schema.number(section, "max_mib", 0..=4_096))
            .map_or(100, toml::Spanned::into_inner);
        MediaConfig {
            most: u64::from(most) << 20,
            gateway: section.and_then(|section| self.gateway(section)),
        }
    }

    fn gateway(&mut self, section: &Section<'_>) -> Option<GatewayConfig> {
        const DAY: u64 = 24 * 3_600;
        let walk = &mut self.schema;
        let url = |text: &str| values::base_url("public_url", text, &["https", "http"]);
        let public_url = walk.read(section, "public_url", url);
        let listen = walk.read(section, "gateway_listen", values::address);
        let good_for = span_of(walk, section, "links_last", 60..=365 * DAY, 30 * DAY);
        Some(GatewayConfig {
            public_url: public_url?,
            listen: listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 29_321))),
            good_for,
        })
    }

    fn consent(&mut self, section: &Section<'_>) -> ConsentConfig {
        let default = ConsentConfig::default();
        let walk = &mut self.schema;
        ConsentConfig {
            delay: span_of(walk, section, "delay", 0..=86_400, default.delay.as_secs()),
            operator: walk.read(section, "operator", |text| values::line("operator", text)),
            disclose_joins: walk
                .flag(section, "disclose_joins")
                .unwrap_or(default.disclose_joins),
        }
    }

    fn admin(&mut self, section: Option<&Section<'_>>) -> AdminConfig {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 29_320));
        let Some(section) = section else {
            return AdminConfig {
                listen: default,
                users: Vec::new(),
            };
        };
        let allowed = self
            .schema
            .flag(section, "allow_remote")
            .unwrap_or_default();
        let listen = self
            .schema
            .read(section, "listen", values::address)
            .unwrap_or(default);
        if !listen.ip().is_loopback() && !allowed {
            self.schema.diagnostics.push(
                Diagnostic::new("B31", format!("`listen` is {listen}: others than this machine could read health and metrics"))
                    .at(section.span("listen"))
                    .help("write a loopback address such as \"127.0.0.1:29320\", or add `allow_remote = true`"),
            );
        }
        let users = self.schema.texts(section, "users", values::admin);
        AdminConfig { listen, users }
    }

    fn path(&mut self, section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
        self.schema
            .read(section, key, |text| values::line("path", text))
            .map(|text| self.base.join(text))
    }

    // The text of a key without complaints: its own reader has made them.
    fn quiet_text(&mut self, section: &Section<'_>, key: &'static str) -> Option<String> {
        let known = self.schema.diagnostics.len();
        let text = self
            .schema
            .text(section, key)
            .map(|text| (*text.get_ref()).to_owned());
        self.schema.diagnostics.truncate(known);
        text
    }

    fn refuse_duplicates<'s, 't: 's>(
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
                self.schema.diagnostics.push(
                    Diagnostic::new("B03", what)
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
            self.schema.diagnostics.push(
                Diagnostic::new("B28", "the portals differ in `trust`")
                    .labelled(here.clone(), "this one differs")
                    .labelled(there.clone(), "from this one")
                    .note("an account shares its keys by one rule, so all portals of the account must agree")
                    .help("write the same `trust` in every `[[portal]]`; the default is \"cross-signed\""),
            );
        }
    }
}

pub(super) fn unknown_silo(text: &str, silos: &[String]) -> values::ValueError {
    let help = match values::nearest(text, silos.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None if silos.is_empty() => "add a `[[silo]]` with this name".to_owned(),
        None => format!("the silos in this file are {}", silos.join(", ")),
    };
    values::ValueError {
        code: "B03",
        what: format!("there is no silo `{text}`"),
        help,
    }
}

// Bounds and default in seconds.
pub(super) fn span_of(
    walk: &mut Schema,
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
