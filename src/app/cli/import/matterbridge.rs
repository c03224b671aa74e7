//! Converts Matterbridge's configuration to the bridge's (pure). Of its networks only Matrix is taken over; the others
//! stay with Matterbridge, which the bridge reaches through its API. Its keys are read without regard to case, as
//! Matterbridge does.

use std::fmt::Write as _;

use footbridge_core::secret::Secret;
use toml::{Table, Value};

use crate::config::values;

/// The name that the silo gets in the configuration.
const SILO: &str = "matterbridge";
/// The API account that Matterbridge should get where it has none.
const ACCOUNT: &str = "api.footbridge";
/// The address that this API account listens on.
const BIND: &str = "127.0.0.1:4242";
/// The format in which this API account names people: `[account] RemoteNickFormat`, or that of `[general]`.
const NICK: &str = "{NICK}";
/// Matterbridge's default limit for files, and the bridge's, in bytes.
const SMALL_FILES: i64 = 1_000_000;
const BIG_FILES: i64 = 52_428_800;
/// A smaller buffer loses messages in a short outage. In messages.
const MIN_BUFFER: i64 = 100;

/// The parts of Matterbridge's configuration that matter here.
pub struct MatterbridgeFile {
    accounts: Vec<ImportedAccount>,
    gateways: Vec<ImportedGateway>,
    /// The settings of `[general]`, which hold for all accounts that do not override them.
    general: Table,
    /// Sections without a counterpart.
    others: Vec<String>,
}

/// A Matrix account, or one of the API.
struct ImportedAccount {
    /// `matrix.NAME` or `api.NAME`.
    name: String,
    keys: Table,
}

struct ImportedGateway {
    name: String,
    enabled: bool,
    /// Set for a `[[samechannelgateway]]`: how many channels it has; it links each to the channels of the same name
    /// only.
    same_channels: Option<usize>,
    ends: Vec<GatewayChannel>,
}

/// A channel in a gateway.
struct GatewayChannel {
    account: String,
    channel: String,
    way: &'static str,
}

/// The result of the conversion.
pub struct Imported {
    /// The configuration, without its first line.
    pub file: String,
    /// The token of the API account.
    pub token: Option<Secret>,
    /// How many gateways there are, how many Matrix rooms they have, and how many of those rooms have a portal now.
    pub gateways: usize,
    pub rooms: usize,
    pub portals: usize,
    /// What was not converted, and what is a guess.
    pub remarks: Vec<String>,
    /// What must be changed in Matterbridge's own file.
    pub changes: Vec<String>,
}

/// Reads Matterbridge's file. An error does not quote the file, because it is full of secrets.
pub fn read(text: &str) -> Result<MatterbridgeFile, String> {
    let root: Table = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        format!("{} in line {line}", error.message())
    })?;
    let mut file = MatterbridgeFile {
        accounts: Vec::new(),
        gateways: Vec::new(),
        general: Table::new(),
        others: Vec::new(),
    };
    for (key, value) in &root {
        match key.to_lowercase().as_str() {
            kind @ ("matrix" | "api") => file.accounts.extend(accounts(kind, value)),
            "gateway" => file.gateways.extend(tables(value).map(gateway)),
            "samechannelgateway" => file.gateways.extend(tables(value).map(same_channels)),
            "general" => file
                .general
                .extend(value.as_table().cloned().unwrap_or_default()),
            other => file.others.push(other.to_owned()),
        }
    }
    Ok(file)
}

fn accounts(kind: &str, value: &Value) -> Vec<ImportedAccount> {
    let named = value.as_table().into_iter().flatten();
    named
        .filter_map(|(name, keys)| {
            Some(ImportedAccount {
                name: format!("{kind}.{}", name.to_lowercase()),
                keys: keys.as_table()?.clone(),
            })
        })
        .collect()
}

fn tables(value: &Value) -> impl Iterator<Item = &Table> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_table)
}

fn key<'t>(table: &'t Table, name: &str) -> Option<&'t Value> {
    let found = table.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

fn text<'t>(table: &'t Table, name: &str) -> &'t str {
    let found = key(table, name).and_then(Value::as_str);
    found.unwrap_or_default()
}

fn enabled(table: &Table) -> bool {
    // Matterbridge ignores a gateway without this line.
    key(table, "enable")
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

fn gateway(table: &Table) -> ImportedGateway {
    let mut ends = Vec::new();
    for way in ["inout", "in", "out"] {
        let list = key(table, way).into_iter().flat_map(tables);
        ends.extend(list.map(|end| GatewayChannel {
            account: text(end, "account").to_lowercase(),
            channel: text(end, "channel").to_owned(),
            way,
        }));
    }
    ImportedGateway {
        name: text(table, "name").to_owned(),
        enabled: enabled(table),
        same_channels: None,
        ends,
    }
}

/// Channels of the same name in several networks: one gateway for all of them, named after the section.
fn same_channels(table: &Table) -> ImportedGateway {
    let words = |name: &str| -> Vec<String> {
        let list = key(table, name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (accounts, channels) = (words("accounts"), words("channels"));
    let ends = accounts.iter().flat_map(|account| {
        channels.iter().map(|channel| GatewayChannel {
            account: account.to_lowercase(),
            channel: channel.clone(),
            way: "inout",
        })
    });
    ImportedGateway {
        name: text(table, "name").to_owned(),
        enabled: enabled(table),
        same_channels: Some(channels.len()),
        ends: ends.collect(),
    }
}

/// Converts the file.
pub fn convert(file: &MatterbridgeFile, token_file: &str) -> Imported {
    let mut imported = Imported {
        file: String::new(),
        token: None,
        gateways: file.gateways.len(),
        rooms: 0,
        portals: 0,
        remarks: Vec::new(),
        changes: Vec::new(),
    };
    imported.account(file);
    let api = imported.silo(file, token_file);
    for gateway in &file.gateways {
        imported.portals_of(gateway, &api);
    }
    if !file.others.is_empty() {
        let names = file.others.join(", ");
        imported
            .remarks
            .push(format!("Matterbridge keeps serving these: {names}"));
    }
    imported
}

impl Imported {
    fn line(&mut self, key: &str, value: &str) {
        let quoted = Value::String(value.to_owned());
        // Writing into a String cannot fail.
        let _infallible = writeln!(self.file, "{key} = {quoted}");
    }

    /// A commented line for a value that could not be read: the configuration check then reports the missing key.
    fn blank(&mut self, key: &str, example: &str) {
        let _infallible = writeln!(self.file, "# {key} = \"{example}\"");
        self.remarks
            .push(format!("Fill in `[matrix] {key}`: it could not be read"));
    }

    /// Writes `[matrix]`: the account that Matterbridge itself used, the first of several.
    fn account(&mut self, file: &MatterbridgeFile) {
        let mut own = file
            .accounts
            .iter()
            .filter(|account| account.name.starts_with("matrix."));
        let first = own.next();
        let rest: Vec<&str> = own.map(|account| account.name.as_str()).collect();
        let empty = Table::new();
        let keys = first.map_or(&empty, |account| &account.keys);
        let server = text(keys, "Server").trim_end_matches('/');
        self.file.push_str("[matrix]\n");
        match values::homeserver(server) {
            Ok(_) => self.line("homeserver", server),
            Err(_) => self.blank("homeserver", "https://matrix.example.org"),
        }
        let (login, user_id) = (text(keys, "Login"), text(keys, "MxID"));
        if let Some(user) = [user_id, login]
            .into_iter()
            .find(|id| values::user(id).is_ok())
        {
            self.line("user", user);
        } else if let Some(guess) = guessed(login, server) {
            self.remarks.push(format!(
                "The bridge's user is assumed to be {guess}: Matterbridge's file does not name the server of `{login}`"
            ));
            self.line("user", &guess);
        } else {
            self.blank("user", "@bridge:example.org");
        }
        if let Some(first) = first {
            self.remarks.push(format!(
                "The password of {} is not copied: `footbridge login` asks for it and creates a new device; log out \
                 Matterbridge's afterwards",
                first.name
            ));
        }
        if !rest.is_empty() {
            self.remarks.push(format!(
                "One account serves all rooms, so invite it into those of {}",
                rest.join(", ")
            ));
        }
    }

    /// Writes `[[silo]]`: Matterbridge's API account. Returns the name that Matterbridge's file has for it.
    fn silo(&mut self, file: &MatterbridgeFile, token_file: &str) -> String {
        let mut all = file.accounts.iter();
        let api = all.find(|account| account.name.starts_with("api."));
        let empty = Table::new();
        let keys = api.map_or(&empty, |account| &account.keys);
        let bind = match text(keys, "BindAddress") {
            "" => BIND,
            bind => bind,
        };
        let port = bind.rsplit(':').next().unwrap_or_default();
        self.file.push_str("\n[[silo]]\n");
        self.line("name", SILO);
        self.line("kind", SILO);
        self.line("api", &format!("http://127.0.0.1:{port}"));
        let token = text(keys, "Token");
        if !token.is_empty() {
            self.token = Some(Secret::new(token.to_owned()));
            self.line("token_file", token_file);
        }
        let name = api.map_or(ACCOUNT, |account| &account.name).to_owned();
        self.line("account", &name);
        if api.is_none() {
            self.changes.push(format!(
                "add an API account: [{ACCOUNT}] with BindAddress=\"{BIND}\", a Token, Buffer=1000 and \
                 RemoteNickFormat=\"{{NICK}}\"; put the token into {token_file} (mode 0600) and add \
                 token_file = \"{token_file}\" to our `[[silo]]`"
            ));
        } else {
            if token.is_empty() {
                self.changes.push(format!(
                    "[{name}] has no Token: everybody who can reach its port can read and write everything"
                ));
            }
            let buffer = key(keys, "Buffer").and_then(Value::as_integer);
            if buffer.unwrap_or_default() < MIN_BUFFER {
                self.changes.push(format!(
                    "[{name}] Buffer=1000: messages that do not fit in are lost while the bridge is down"
                ));
            }
            let format = key(keys, "RemoteNickFormat").or(key(&file.general, "RemoteNickFormat"));
            if format.and_then(Value::as_str) != Some(NICK) {
                self.changes.push(format!(
                    "[{name}] RemoteNickFormat=\"{NICK}\": the room shows the names that Matterbridge generates"
                ));
            }
        }
        let limit = key(&file.general, "MediaDownloadSize").and_then(Value::as_integer);
        if limit.unwrap_or_default() <= SMALL_FILES {
            self.changes.push(format!(
                "[general] MediaDownloadSize={BIG_FILES}: files above this size (default: 1 MB) are not relayed"
            ));
        }
        name
    }

    fn portals_of(&mut self, gateway: &ImportedGateway, api: &str) {
        let ends = gateway.ends.iter();
        let rooms: Vec<&GatewayChannel> = ends
            .filter(|end| end.account.starts_with("matrix."))
            .collect();
        self.rooms += rooms.len();
        let name = gateway.name.escape_debug().to_string();
        if rooms.is_empty() {
            return;
        }
        if !gateway.enabled {
            self.remarks
                .push(format!("Gateway \"{name}\" is not enabled"));
            return;
        }
        if let Err(error) = values::gateway(&gateway.name) {
            self.remarks.push(format!(
                "Gateway \"{name}\": {}; give it another name in Matterbridge",
                error.what
            ));
            return;
        }
        // What the API account sends to a `[[samechannelgateway]]` goes to the API's own channel of that name, so to
        // nobody.
        if let Some(channels) = gateway.same_channels {
            if channels > 1 {
                self.remarks.push(format!(
                    "Gateway \"{name}\" is a [[samechannelgateway]] of {channels} channels, in which the API has no \
                     effect: create a separate [[gateway]] with its own name for each channel, and import again"
                ));
                return;
            }
            self.changes.push(format!(
                "gateway \"{name}\": replace this [[samechannelgateway]] with a [[gateway]] that has a \
                 [[gateway.inout]] for each account: the API has no effect in a [[samechannelgateway]]"
            ));
        }
        let before = self.portals;
        for end in rooms {
            self.portal(gateway, end);
        }
        let has_api = gateway.ends.iter().any(|end| end.account == api);
        if self.portals > before && !has_api {
            self.changes.push(format!(
                "gateway \"{name}\": add [[gateway.inout]] with account=\"{api}\" and channel=\"api\""
            ));
        }
    }

    fn portal(&mut self, gateway: &ImportedGateway, end: &GatewayChannel) {
        let (name, room) = (&gateway.name, end.channel.escape_debug().to_string());
        if end.way != "inout" {
            self.remarks.push(format!(
                "Gateway \"{name}\": {room} goes one way only ({}), and portals go both ways",
                end.way
            ));
            return;
        }
        if values::room(&end.channel).is_err() {
            self.remarks.push(format!(
                "Gateway \"{name}\": `{room}` is neither the alias nor the id of a room"
            ));
            return;
        }
        self.file.push_str("\n[[portal]]\n");
        self.line("room", &end.channel);
        self.line("silo", SILO);
        self.line("channel", name);
        self.portals += 1;
        self.changes.push(format!(
            "gateway \"{name}\": remove account=\"{}\" with channel=\"{room}\", or everything comes twice",
            end.account
        ));
    }
}

/// The most likely user id for a login name on this server: servers are often reached under a subdomain of the name
/// that user ids contain.
fn guessed(login: &str, server: &str) -> Option<String> {
    let address = url::Url::parse(server);
    let host = match &address {
        Ok(address) => address.host_str()?,
        Err(_) => server,
    };
    let below = ["matrix.", "matrix-client.", "synapse."];
    let name = below.iter().find_map(|label| host.strip_prefix(label));
    // `matrix.org` is a server name itself, and so is `matrix.co.uk`.
    let host = name.filter(|name| !is_registry(name)).unwrap_or(host);
    let guess = format!("@{login}:{host}");
    values::user(&guess).is_ok().then_some(guess)
}

/// Whether this is a public suffix, under which others register names: `org`, or `co.uk`, by the words that countries
/// use.
fn is_registry(name: &str) -> bool {
    const SECOND: [&str; 11] = [
        "ac", "co", "com", "edu", "go", "gob", "gov", "ne", "net", "or", "org",
    ];
    match name.split_once('.') {
        None => true,
        Some((second, country)) => country.len() == 2 && SECOND.contains(&second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r##"
[irc.libera]
Server="irc.libera.chat:6697"
[matrix.home]
server="https://matrix.example.org/"
Login="bot"
Password="hush"
[api.Local]
BindAddress="0.0.0.0:4343"
Token="hush"
[[gateway]]
name="one"
enable=true
[[gateway.inout]]
account="irc.libera"
channel="#one"
[[gateway.inout]]
account="matrix.home"
channel="#one:example.org"
[[gateway.inout]]
account="api.local"
channel="api"
[[gateway]]
name="two"
enable=true
[[gateway.in]]
account="matrix.home"
channel="#two:example.org"
[[gateway]]
name="three"
enable=false
[[gateway.inout]]
account="matrix.home"
channel="#three:example.org"
[[gateway]]
name="my gateway: #four"
enable=true
[[gateway.inout]]
account="matrix.home"
channel="#four:example.org"
"##;

    fn import(text: &str) -> Imported {
        let found = read(text).unwrap_or_else(|error| panic!("{error}"));
        convert(&found, "matterbridge.token")
    }

    #[test]
    fn gateways_with_matrix_rooms_become_portals() {
        let imported = import(FILE);
        let expected = r##"[matrix]
homeserver = "https://matrix.example.org"
user = "@bot:example.org"

[[silo]]
name = "matterbridge"
kind = "matterbridge"
api = "http://127.0.0.1:4343"
token_file = "matterbridge.token"
account = "api.local"

[[portal]]
room = "#one:example.org"
silo = "matterbridge"
channel = "one"

[[portal]]
room = "#four:example.org"
silo = "matterbridge"
channel = "my gateway: #four"
"##;
        assert_eq!(imported.file, expected);
        assert_eq!(
            (imported.gateways, imported.rooms, imported.portals),
            (4, 4, 2)
        );
        assert_eq!(
            imported.token.map(|token| token.expose().to_owned()),
            Some("hush".to_owned())
        );
    }

    #[test]
    fn what_is_left_out_is_reported_and_no_secret_is() {
        let imported = import(FILE);
        let remarks = imported.remarks.join("\n");
        for part in [
            "@bot:example.org",
            "\"two\": #two:example.org goes one way only (in)",
            "\"three\" is not enabled",
            "irc",
        ] {
            assert!(remarks.contains(part), "{part}: {remarks}");
        }
        let changes = imported.changes.join("\n");
        assert!(changes.contains("or everything comes twice") && changes.contains("Buffer=1000"));
        assert!(
            !changes.contains("gateway \"one\": add [[gateway.inout]]"),
            "it takes part already"
        );
        assert!(changes.contains("gateway \"my gateway: #four\": add [[gateway.inout]]"));
        assert!(
            !remarks.contains("hush")
                && !changes.contains("hush")
                && !imported.file.contains("hush")
        );
    }

    #[test]
    fn an_api_account_with_another_nick_format_or_a_small_file_limit_is_reported() {
        let warns = |general: &str, own: &str| {
            let text = FILE.replace("Token=\"hush\"\n[[", &format!("Token=\"hush\"\n{own}\n[["));
            let changes = import(&format!("[general]\n{general}\n{text}")).changes;
            ["RemoteNickFormat", "MediaDownloadSize"]
                .map(|what| changes.iter().any(|change| change.contains(what)))
        };
        assert_eq!(warns("", ""), [true, true]);
        let general = "remotenickformat=\"[{PROTOCOL}] @{NICK} \"\nMediaDownloadSize=1000000";
        assert_eq!(warns(general, ""), [true, true]);
        assert_eq!(warns(general, "RemoteNickFormat=\"{NICK}\""), [false, true]);
        let general = "RemoteNickFormat=\"{NICK}\"\nMediaDownloadSize=52428800";
        assert_eq!(warns(general, ""), [false, false]);
    }

    #[test]
    fn a_file_without_an_api_account_needs_one() {
        let text = FILE.replace("[api.Local]", "[slack.local]");
        let imported = import(&text);
        assert!(imported.file.contains("account = \"api.footbridge\"") && imported.token.is_none());
        let changes = imported.changes.join("\n");
        assert!(changes.contains("[api.footbridge]") && changes.contains("gateway \"one\": add"));
    }

    #[test]
    fn broken_files_are_reported_without_quoting_them() {
        let error = read("[api.x]\nToken=\"hush\n").err().unwrap_or_default();
        assert!(
            error.contains("line 2") && !error.contains("hush"),
            "{error}"
        );
        for odd in [
            "",
            "gateway=1",
            "[[gateway]]\ninout=3",
            "[matrix]\nx=1",
            "samechannelgateway=[1]",
        ] {
            assert_eq!(import(odd).portals, 0, "{odd}");
        }
    }

    #[test]
    fn a_server_named_matrix_keeps_its_name() {
        for (server, user) in [
            ("https://matrix.org", "@bot:matrix.org"),
            ("https://matrix.org/", "@bot:matrix.org"),
            ("https://matrix.co.uk", "@bot:matrix.co.uk"),
            ("https://matrix.example.co.uk", "@bot:example.co.uk"),
            ("https://matrix-client.matrix.org", "@bot:matrix.org"),
            ("https://matrix.example.org:8448", "@bot:example.org"),
            ("https://chat.example.org", "@bot:chat.example.org"),
            ("matrix.org", "@bot:matrix.org"),
        ] {
            let text = format!("[matrix.home]\nServer=\"{server}\"\nLogin=\"bot\"\n");
            let imported = import(&text);
            let line = format!("user = \"{user}\"");
            assert!(imported.file.contains(&line), "{server}: {}", imported.file);
            assert!(
                imported.remarks.iter().any(|remark| remark.contains(user)),
                "it is a guess, and said to be one"
            );
        }
    }

    fn same(channels: &str) -> Imported {
        import(&format!(
            "[[samechannelgateway]]\nname=\"same\"\nenable=true\naccounts=[\"matrix.home\",\"irc.b\"]\nchannels=[{channels}]\n"
        ))
    }

    #[test]
    fn channels_of_the_same_name_are_one_gateway_of_the_name_it_has() {
        let one = same("\"#a:b.org\"");
        let portal = "room = \"#a:b.org\"\nsilo = \"matterbridge\"\nchannel = \"same\"\n";
        assert!(one.file.contains(portal), "{}", one.file);
        let changes = one.changes.join("\n");
        assert!(
            changes.contains("\"same\": replace this [[samechannelgateway]]"),
            "{changes}"
        );
    }

    #[test]
    fn several_channels_of_one_gateway_cannot_be_distinguished() {
        let two = same("\"#a:b.org\",\"#c:d.org\"");
        assert_eq!((two.gateways, two.rooms, two.portals), (1, 2, 0));
        let remarks = two.remarks.join("\n");
        assert!(
            remarks.contains("Gateway \"same\" is a [[samechannelgateway]] of 2 channels"),
            "{remarks}"
        );
    }
}
