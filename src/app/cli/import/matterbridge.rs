//! Pure: Matterbridge's configuration → ours. Of its networks only Matrix becomes ours; the others stay with
//! Matterbridge, which we reach through its API. Its keys are read without regard to case, as it does.

use std::fmt::Write as _;

use footbridge_core::secret::Secret;
use toml::{Table, Value};

use crate::config::values;

/// The name that the silo gets.
const SILO: &str = "matterbridge";
/// The API account that Matterbridge is told to get, where it has none.
const ACCOUNT: &str = "api.footbridge";
/// Where its API listens then.
const BIND: &str = "127.0.0.1:4242";
/// How it names people then: `[account] RemoteNickFormat`, or that of `[general]`.
const NICK: &str = "{NICK}";
/// Its own limit for files, and ours, in bytes.
const SMALL_FILES: i64 = 1_000_000;
const BIG_FILES: i64 = 52_428_800;
/// A buffer smaller than this loses what is said in a short outage.
const MIN_BUFFER: i64 = 100;

/// What was found.
pub struct MatterbridgeFile {
    accounts: Vec<ImportedAccount>,
    gateways: Vec<ImportedGateway>,
    /// What holds for all accounts that do not say otherwise.
    general: Table,
    /// What is there and has no counterpart.
    others: Vec<String>,
}

/// An account of ours, or of the API.
struct ImportedAccount {
    /// `matrix.name`, `api.name`.
    name: String,
    keys: Table,
}

struct ImportedGateway {
    name: String,
    enabled: bool,
    /// Of a `[[samechannelgateway]]`: how many channels it joins, each with its like of the same name only.
    same_channels: Option<usize>,
    ends: Vec<GatewayChannel>,
}

/// A channel in a gateway.
struct GatewayChannel {
    account: String,
    channel: String,
    way: &'static str,
}

/// What became of it.
pub struct Imported {
    /// Our file, without its first line.
    pub file: String,
    /// The token of the API account.
    pub token: Option<Secret>,
    /// How many gateways there are, how many Matrix rooms in them, and how many of those have a portal now.
    pub gateways: usize,
    pub rooms: usize,
    pub portals: usize,
    /// What was not carried over, and what is a guess.
    pub remarks: Vec<String>,
    /// What Matterbridge's own file needs.
    pub changes: Vec<String>,
}

/// Reads Matterbridge's file. What is wrong with it is told without quoting it: it is full of secrets.
pub fn read(text: &str) -> Result<MatterbridgeFile, String> {
    let root: Table = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        format!("{} in line {line}", error.message())
    })?;
    let mut found = MatterbridgeFile {
        accounts: Vec::new(),
        gateways: Vec::new(),
        general: Table::new(),
        others: Vec::new(),
    };
    for (key, value) in &root {
        match key.to_lowercase().as_str() {
            kind @ ("matrix" | "api") => found.accounts.extend(accounts(kind, value)),
            "gateway" => found.gateways.extend(tables(value).map(gateway)),
            "samechannelgateway" => found.gateways.extend(tables(value).map(same_channels)),
            "general" => found
                .general
                .extend(value.as_table().cloned().unwrap_or_default()),
            other => found.others.push(other.to_owned()),
        }
    }
    Ok(found)
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
    // Without the line Matterbridge leaves a gateway out.
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

/// Channels of the same name in several networks: one gateway for all of them, under the one name.
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

/// Makes ours of it.
pub fn convert(found: &MatterbridgeFile, token_file: &str) -> Imported {
    let mut carried = Imported {
        file: String::new(),
        token: None,
        gateways: found.gateways.len(),
        rooms: 0,
        portals: 0,
        remarks: Vec::new(),
        changes: Vec::new(),
    };
    carried.account(found);
    let api = carried.silo(found, token_file);
    for gateway in &found.gateways {
        carried.portals_of(gateway, &api);
    }
    if !found.others.is_empty() {
        let names = found.others.join(", ");
        carried.remarks.push(format!(
            "These stay with Matterbridge, which goes on serving them: {names}"
        ));
    }
    carried
}

impl Imported {
    fn line(&mut self, key: &str, value: &str) {
        let quoted = Value::String(value.to_owned());
        // Writing into a String cannot fail.
        let _whole = writeln!(self.file, "{key} = {quoted}");
    }

    /// A line for what could not be read: the file says by itself that it is missing.
    fn blank(&mut self, key: &str, example: &str) {
        let _whole = writeln!(self.file, "# {key} = \"{example}\"");
        self.remarks
            .push(format!("Fill in `[matrix] {key}`: it could not be read"));
    }

    /// `[matrix]`: the account that Matterbridge itself used, the first of several.
    fn account(&mut self, found: &MatterbridgeFile) {
        let mut own = found
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
        let (login, whole) = (text(keys, "Login"), text(keys, "MxID"));
        if let Some(user) = [whole, login]
            .into_iter()
            .find(|id| values::user(id).is_ok())
        {
            self.line("user", user);
        } else if let Some(guess) = guessed(login, server) {
            self.remarks.push(format!(
                "The bridge's user is taken to be {guess}: Matterbridge's file does not say on which server `{login}` is"
            ));
            self.line("user", &guess);
        } else {
            self.blank("user", "@bridge:example.org");
        }
        if let Some(first) = first {
            self.remarks.push(format!(
                "The password of {} is not carried over: `footbridge login` asks for it. A device of its own is made; log \
                 out Matterbridge's afterwards",
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

    /// `[[silo]]`: Matterbridge's API account. Answers its name there.
    fn silo(&mut self, found: &MatterbridgeFile, token_file: &str) -> String {
        let mut all = found.accounts.iter();
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
                    "[{name}] has no Token: everybody who reaches its port reads and writes everything"
                ));
            }
            let buffer = key(keys, "Buffer").and_then(Value::as_integer);
            if buffer.unwrap_or_default() < MIN_BUFFER {
                self.changes.push(format!(
                    "[{name}] Buffer=1000: what does not fit in is lost while the bridge is away"
                ));
            }
            let format = key(keys, "RemoteNickFormat").or(key(&found.general, "RemoteNickFormat"));
            if format.and_then(Value::as_str) != Some(NICK) {
                self.changes.push(format!(
                    "[{name}] RemoteNickFormat=\"{NICK}\": the room shows people by what Matterbridge makes of it"
                ));
            }
        }
        let most = key(&found.general, "MediaDownloadSize").and_then(Value::as_integer);
        if most.unwrap_or_default() <= SMALL_FILES {
            self.changes.push(format!(
                "[general] MediaDownloadSize={BIG_FILES}: larger files than it says, or than 1 MB, do not cross"
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
        if let Err(flaw) = values::gateway(&gateway.name) {
            self.remarks.push(format!(
                "Gateway \"{name}\": {}; give it another name in Matterbridge",
                flaw.what
            ));
            return;
        }
        // What the API is given for one of those goes to the API's own channel of that name, so to nobody.
        if let Some(channels) = gateway.same_channels {
            if channels > 1 {
                self.remarks.push(format!(
                    "Gateway \"{name}\" is a [[samechannelgateway]] of {channels} channels, in which the API reaches nobody: \
                     make a [[gateway]] with a name of its own of each channel, and import again"
                ));
                return;
            }
            self.changes.push(format!(
                "gateway \"{name}\": make a [[gateway]] of this [[samechannelgateway]], with a [[gateway.inout]] for each \
                 account: the API reaches nobody in a [[samechannelgateway]]"
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

/// The user that a login name on this server most likely is: servers are often reached below the name that stands in user ids.
fn guessed(login: &str, server: &str) -> Option<String> {
    let address = url::Url::parse(server);
    let host = match &address {
        Ok(address) => address.host_str()?,
        Err(_) => server,
    };
    let below = ["matrix.", "matrix-client.", "synapse."];
    let name = below.iter().find_map(|label| host.strip_prefix(label));
    // `matrix.org` is a name itself, and so is `matrix.co.uk`.
    let host = name.filter(|name| !is_registry(name)).unwrap_or(host);
    let guess = format!("@{login}:{host}");
    values::user(&guess).is_ok().then_some(guess)
}

/// Whether nobody has this name, but what is below it: `org`, or `co.uk` by the words that countries use.
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

    fn carried(text: &str) -> Imported {
        let found = read(text).unwrap_or_else(|flaw| panic!("{flaw}"));
        convert(&found, "matterbridge.token")
    }

    #[test]
    fn gateways_with_matrix_rooms_become_portals() {
        let carried = carried(FILE);
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
        assert_eq!(carried.file, expected);
        assert_eq!(
            (carried.gateways, carried.rooms, carried.portals),
            (4, 4, 2)
        );
        assert_eq!(
            carried.token.map(|token| token.expose().to_owned()),
            Some("hush".to_owned())
        );
    }

    #[test]
    fn what_is_left_out_is_told_and_no_secret_is() {
        let carried = carried(FILE);
        let remarks = carried.remarks.join("\n");
        for part in [
            "@bot:example.org",
            "\"two\": #two:example.org goes one way only (in)",
            "\"three\" is not enabled",
            "irc",
        ] {
            assert!(remarks.contains(part), "{part}: {remarks}");
        }
        let changes = carried.changes.join("\n");
        assert!(changes.contains("or everything comes twice") && changes.contains("Buffer=1000"));
        assert!(
            !changes.contains("gateway \"one\": add [[gateway.inout]]"),
            "it takes part already"
        );
        assert!(changes.contains("gateway \"my gateway: #four\": add [[gateway.inout]]"));
        assert!(
            !remarks.contains("hush")
                && !changes.contains("hush")
                && !carried.file.contains("hush")
        );
    }

    #[test]
    fn an_api_account_that_names_people_in_another_way_or_takes_small_files_is_told_of() {
        let told = |general: &str, own: &str| {
            let text = FILE.replace("Token=\"hush\"\n[[", &format!("Token=\"hush\"\n{own}\n[["));
            let changes = carried(&format!("[general]\n{general}\n{text}")).changes;
            ["RemoteNickFormat", "MediaDownloadSize"]
                .map(|what| changes.iter().any(|change| change.contains(what)))
        };
        assert_eq!(told("", ""), [true, true]);
        let general = "remotenickformat=\"[{PROTOCOL}] @{NICK} \"\nMediaDownloadSize=1000000";
        assert_eq!(told(general, ""), [true, true]);
        assert_eq!(told(general, "RemoteNickFormat=\"{NICK}\""), [false, true]);
        let general = "RemoteNickFormat=\"{NICK}\"\nMediaDownloadSize=52428800";
        assert_eq!(told(general, ""), [false, false]);
    }

    #[test]
    fn a_file_without_an_api_account_is_told_to_get_one() {
        let text = FILE.replace("[api.Local]", "[slack.local]");
        let carried = carried(&text);
        assert!(carried.file.contains("account = \"api.footbridge\"") && carried.token.is_none());
        let changes = carried.changes.join("\n");
        assert!(changes.contains("[api.footbridge]") && changes.contains("gateway \"one\": add"));
    }

    #[test]
    fn broken_files_are_told_of_without_quoting_them() {
        let flaw = read("[api.x]\nToken=\"hush\n").err().unwrap_or_default();
        assert!(flaw.contains("line 2") && !flaw.contains("hush"), "{flaw}");
        for odd in [
            "",
            "gateway=1",
            "[[gateway]]\ninout=3",
            "[matrix]\nx=1",
            "samechannelgateway=[1]",
        ] {
            assert_eq!(carried(odd).portals, 0, "{odd}");
        }
    }

    #[test]
    fn a_server_called_matrix_keeps_its_name() {
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
            let carried = carried(&text);
            let line = format!("user = \"{user}\"");
            assert!(carried.file.contains(&line), "{server}: {}", carried.file);
            assert!(
                carried.remarks.iter().any(|remark| remark.contains(user)),
                "it is a guess, and said to be one"
            );
        }
    }

    fn same(channels: &str) -> Imported {
        carried(&format!(
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
            changes.contains("\"same\": make a [[gateway]]"),
            "{changes}"
        );
    }

    #[test]
    fn several_channels_of_one_name_cannot_be_told_apart() {
        let two = same("\"#a:b.org\",\"#c:d.org\"");
        assert_eq!((two.gateways, two.rooms, two.portals), (1, 2, 0));
        let remarks = two.remarks.join("\n");
        assert!(
            remarks.contains("Gateway \"same\" is a [[samechannelgateway]] of 2 channels"),
            "{remarks}"
        );
    }
}
