//! Reads each table of the file into its part of the [`Config`].

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use footbridge_core::{config_keys::Key, persons::Person};
use footbridge_matrix::{Homeserver, MatrixConfig, Timeouts, Trust};
use footbridge_silo::capabilities::ChannelName;
use toml::de::DeTable;

use super::{
    AdminConfig, Config, ConsentConfig, DeliveryConfig, GatewayConfig, MediaConfig, StoreConfig,
    diagnostic::{Diagnostic, Source},
    keys,
    schema::{Schema, Section},
    values,
};

/// Reads the tables of the file.
pub(super) struct ConfigReader<'f> {
    pub(super) schema: Schema,
    /// The directory that relative paths are relative to.
    pub(super) base: &'f Path,
    /// The file itself.
    pub(super) file: &'f Path,
    /// The diagnostic to report for a secret in the file, where others may read the file.
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
            &[&keys::silo::NAME],
            "two silos have the same name",
            "give each silo a name of its own",
        );
        // Where the name of one silo cannot be read, no reference to a silo can be called wrong.
        let unread = root.contains_key("silo") && of("silo").next().is_none();
        let names: Option<Vec<String>> = of("silo")
            .map(|section| self.quiet_text(section, &keys::silo::NAME))
            .collect::<Option<_>>()
            .filter(|_| !unread);
        let lines: Vec<String> = of("silo")
            .filter_map(|section| {
                let kind = self.quiet_text(section, &keys::silo::KIND)?;
                let name = self.quiet_text(section, &keys::silo::NAME);
                let kind = keys::silo_kind(&kind)?;
                name.filter(|_| kind.channel_name == ChannelName::Line)
            })
            .collect();
        let portals: Vec<_> = of("portal")
            .map(|section| self.portal(section, names.as_deref(), &lines))
            .collect();
        self.refuse_duplicates(
            of("portal"),
            &[
                &keys::portal::ROOM,
                &keys::portal::SILO,
                &keys::portal::CHANNEL,
            ],
            "two portals link the same room and channel",
            "remove one of them",
        );
        self.refuse_mixed_trust(of("portal"));
        let people: Vec<_> = of("person")
            .map(|section| self.person(section, names.as_deref()))
            .collect();
        self.refuse_duplicates(
            of("person"),
            &[&keys::portal::SILO, &keys::person::ACCOUNT],
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
        use keys::store::{KEY_FILE, MIN_FREE, PATH};

        let mut path = |key, default: &str| {
            let given = section.and_then(|section| self.path(section, key));
            given.unwrap_or_else(|| self.base.join(default))
        };
        let (directory, key_file) = (path(&PATH, "data"), path(&KEY_FILE, "footbridge.key"));
        let min_free = section.map_or(MIN_FREE.default_number(), |section| {
            self.schema.number(section, &MIN_FREE)
        });
        StoreConfig {
            path: directory,
            key_file,
            min_free: u64::from(min_free) << 20,
        }
    }

    fn matrix(&mut self, section: &Section<'_>) -> Option<MatrixConfig> {
        use keys::matrix::{
            AUDIT, DEVICE_NAME, HOMESERVER, KEY_WAIT, PASSWORD_FILE, RECOVERY_KEY_FILE, USER,
        };

        let schema = &mut self.schema;
        let homeserver: Option<Homeserver> = schema.read(section, &HOMESERVER, values::homeserver);
        let user = schema.read(section, &USER, values::user);
        let device_name = schema.read(section, &DEVICE_NAME, |text| {
            values::line("device name", text)
        });
        let key_wait = schema.duration(section, &KEY_WAIT);
        let audit = schema.duration(section, &AUDIT);
        let password_file = self.path(section, &PASSWORD_FILE);
        let recovery_key_file = self.path(section, &RECOVERY_KEY_FILE);
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
        use keys::person::{ACCOUNT, USER};

        let user = self.schema.read(section, &USER, values::user);
        let silo = self.silo_name(section, silos);
        let account = self.schema.read(section, &ACCOUNT, values::account);
        Some(Person {
            user: user?.to_string(),
            silo: silo?,
            account: account?,
        })
    }

    fn delivery(&mut self, section: &Section<'_>) -> DeliveryConfig {
        use keys::delivery::{ATTEMPTS, COALESCE, GIVE_UP, KEY_LIMIT, NOTICE_AFTER, UNKNOWN_AFTER};

        let schema = &mut self.schema;
        DeliveryConfig {
            notice_after: schema.duration(section, &NOTICE_AFTER),
            key_limit: schema.duration(section, &KEY_LIMIT),
            unknown_after: schema.duration(section, &UNKNOWN_AFTER),
            give_up: schema.duration(section, &GIVE_UP),
            coalesce: schema.flag(section, &COALESCE),
            attempts: schema.number(section, &ATTEMPTS),
        }
    }

    fn media(&mut self, section: Option<&Section<'_>>) -> MediaConfig {
        use keys::media::MAX_MIB;

        let most = section.map_or(MAX_MIB.default_number(), |section| {
            self.schema.number(section, &MAX_MIB)
        });
        MediaConfig {
            max_file: u64::from(most) << 20,
            gateway: section.and_then(|section| self.gateway(section)),
        }
    }

    fn gateway(&mut self, section: &Section<'_>) -> Option<GatewayConfig> {
        use keys::media::{GATEWAY_LISTEN, LINKS_LAST, PUBLIC_URL};

        let schema = &mut self.schema;
        let public_url = schema.url(section, &PUBLIC_URL);
        let listen = schema.read(section, &GATEWAY_LISTEN, values::address);
        let good_for = schema.duration(section, &LINKS_LAST);
        Some(GatewayConfig {
            public_url: public_url?,
            listen: listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 29_321))),
            good_for,
        })
    }

    fn consent(&mut self, section: &Section<'_>) -> ConsentConfig {
        use keys::consent::{DELAY, DISCLOSE_JOINS, OPERATOR};

        let schema = &mut self.schema;
        ConsentConfig {
            delay: schema.duration(section, &DELAY),
            operator: schema.read(section, &OPERATOR, |text| values::line("operator", text)),
            disclose_joins: schema.flag(section, &DISCLOSE_JOINS),
        }
    }

    fn admin(&mut self, section: Option<&Section<'_>>) -> AdminConfig {
        use keys::admin::{ALLOW_REMOTE, LISTEN, USERS};

        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 29_320));
        let Some(section) = section else {
            return AdminConfig {
                listen: default,
                users: Vec::new(),
            };
        };
        let allowed = self.schema.flag(section, &ALLOW_REMOTE);
        let listen = self.schema.read(section, &LISTEN, values::address);
        let listen = listen.unwrap_or(default);
        if !listen.ip().is_loopback() && !allowed {
            self.schema.diagnostics.push(
                Diagnostic::new("B31", format!("`listen` is {listen}: other machines could read health and metrics"))
                    .at(section.span("listen"))
                    .help("write a loopback address such as \"127.0.0.1:29320\", or add `allow_remote = true`"),
            );
        }
        let users = self.schema.texts(section, &USERS, values::admin);
        AdminConfig { listen, users }
    }

    fn path(&mut self, section: &Section<'_>, key: &'static Key) -> Option<PathBuf> {
        self.schema
            .read(section, key, |text| values::line("path", text))
            .map(|text| self.base.join(text))
    }

    // The text of a key without complaints: its own reader has made them.
    fn quiet_text(&mut self, section: &Section<'_>, key: &'static Key) -> Option<String> {
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
        keys: &[&'static Key],
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
                section.span(only.name)
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

    // Room keys are shared per account, not per room: one portal with weaker trust would weaken all of them.
    fn refuse_mixed_trust<'s, 't: 's>(&mut self, sections: impl Iterator<Item = &'s Section<'t>>) {
        let trusts: Vec<(Trust, Range<usize>)> = sections
            .map(|section| {
                let text = self.quiet_text(section, &keys::portal::TRUST);
                let trust = values::trust(&text.unwrap_or_default());
                (trust, section.span("trust"))
            })
            .collect();
        let Some((first, there)) = trusts.first() else {
            return;
        };
        if let Some((_, here)) = trusts.iter().find(|(trust, _)| trust != first) {
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
