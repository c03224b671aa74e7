//! What the programs of the testbed can be told on their command lines. It stands here, and not in the programs, so that a test can
//! hold every command line that the pages show against it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{
    Arg, ArgAction, Command, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum,
    value_parser,
};

use crate::fault_runner::rows;

/// Measures the bridge.
#[derive(Parser)]
#[command(name = "bench")]
pub struct Bench {
    /// Messages each way at 8 a second, for the latency.
    #[arg(long, default_value_t = 240)]
    pub latency_messages: usize,
    /// Messages in one block of the throughput comparison; there are four blocks of each kind.
    #[arg(long, default_value_t = 100)]
    pub block: usize,
    /// Encrypted messages that wait for the bridge when it starts.
    #[arg(long, default_value_t = 2000)]
    pub catch_up: usize,
    /// Seconds of rest over which CPU is measured.
    #[arg(long, default_value_t = 30)]
    pub rest: u64,
    /// Megabytes of the file that crosses each way.
    #[arg(long, default_value_t = 100)]
    pub megabytes: usize,
    /// Members of the large encrypted rooms; one room after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 3000])]
    pub members: Vec<usize>,
    /// Only one part.
    #[arg(long)]
    pub only: Option<Part>,
    /// A `footbridge` program that is there already; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Messages: memory, latency, throughput, catching up.
    Messages,
    /// A large file each way.
    Files,
    /// Converting texts.
    Converters,
    /// Large encrypted rooms. Takes minutes before it begins, so only when it is asked for.
    Crowd,
}

/// Says many messages in a minute where the bridge's account may send twelve events in one.
#[derive(Parser)]
#[command(name = "burst")]
pub struct Burst {
    /// How many messages.
    #[arg(long, default_value_t = 300)]
    pub messages: u32,
    /// Seconds in which they are said.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// How many people say them.
    #[arg(long, default_value_t = 5)]
    pub authors: usize,
    /// One event per message, as with `[delivery] coalesce = false`.
    #[arg(long)]
    pub no_coalesce: bool,
    /// Give up after this many minutes.
    #[arg(long, default_value_t = 40)]
    pub patience: u64,
    /// A `footbridge` program that is there already; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

/// Sends numbered messages each way between two encrypted rooms, through Matterbridge and Mattermost.
#[derive(Parser)]
#[command(name = "crossing")]
pub struct Crossing {
    /// How many messages each way.
    #[arg(long, default_value_t = 1_000)]
    pub messages: u32,
    /// How many a second, each way.
    #[arg(long, default_value_t = 6.0)]
    pub rate: f64,
    /// How many messages Matterbridge's buffer holds.
    #[arg(long, default_value_t = 1_000)]
    pub buffer: usize,
    /// The bridge is away for so many seconds in the middle.
    #[arg(long, default_value_t = 0)]
    pub away: u64,
    /// A `footbridge` program that is there already; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

/// Shows an encrypted Matrix room and a Gitter channel talking to each other.
#[derive(Parser)]
#[command(name = "cargo demo --")]
pub struct Demo {
    /// Keep everything running afterwards, and say how to join in.
    #[arg(long)]
    pub stay: bool,
}

/// Does harm to the bridge while people talk, and counts what that did to the messages.
#[derive(Parser)]
#[command(name = "faults")]
pub struct Faults {
    /// Rows of the catalogue below (`F03 F04`), `all`, or `soak`.
    pub rows: Vec<String>,
    /// The kind of silo: `gitter`, which knows all rows, or `matterbridge` or `mattermost`.
    #[arg(long, default_value = "gitter")]
    pub silo: String,
    /// Lists the rows and ends.
    #[arg(long)]
    pub list: bool,
    /// How much harm.
    #[arg(long, value_enum, default_value_t = Sizes::Small)]
    pub size: Sizes,
    /// For all dice; random when missing.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Also prints everything as JSON, one line at the end.
    #[arg(long)]
    pub json: bool,
    /// A `footbridge` program that is there already, built with the feature `testbed`; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Keep the bridge's log and a list of its requests here, per row.
    #[arg(long)]
    pub keep: Option<PathBuf>,
    /// The longest a row may take, in minutes.
    #[arg(long, default_value_t = 30)]
    pub patience: u64,
    /// How long `soak` talks.
    #[arg(long, default_value_t = 60.0)]
    pub minutes: f64,
    /// Messages a second of `soak`, in each direction.
    #[arg(long, default_value_t = 2.0)]
    pub rate: f64,
    /// How many minutes the bridge lives between two kills of `soak`, on average.
    #[arg(long, default_value_t = 12.0)]
    pub kill_every: f64,
}

/// How much harm is done.
#[derive(Clone, Copy, ValueEnum)]
pub enum Sizes {
    /// Half a minute or so each.
    Small,
    /// As much as the release gate asks for.
    Full,
}

/// Kills the bridge under traffic and counts what that did to the messages.
#[derive(Parser)]
#[command(name = "kills")]
pub struct Kills {
    /// How often the bridge is killed.
    #[arg(long, default_value_t = 60)]
    pub kills: u32,
    /// Messages a second in each direction.
    #[arg(long, default_value_t = 4.0)]
    pub messages_per_second: f64,
    /// Requests a minute which the silo allows; Gitter's own 100 would be the narrowest place.
    #[arg(long, default_value_t = 6000)]
    pub requests_per_minute: u32,
    /// Seconds over which the bridge looks for a copy of a message whose sending was interrupted. Longer than most lives
    /// here, and the lane toward the channel would do nothing else; the simulator shows every copy at once.
    #[arg(long, default_value_t = 1)]
    pub settle: u32,
    /// Makes the times of the kills repeatable; random when missing.
    #[arg(long)]
    pub seed: Option<u64>,
    /// A `footbridge` program that is there already; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Copy the bridge's files and logs here at the end.
    #[arg(long)]
    pub keep: Option<PathBuf>,
}

/// Measures what many portals notice of one slow silo.
#[derive(Parser)]
#[command(name = "many")]
pub struct Many {
    /// Portals; one of them leads to the silo that gets slow.
    #[arg(long, default_value_t = 20)]
    pub portals: usize,
    /// Blocks of each kind, in turns.
    #[arg(long, default_value_t = 4)]
    pub blocks: usize,
    /// Messages per portal, block and direction.
    #[arg(long, default_value_t = 3)]
    pub messages: usize,
    /// A `footbridge` program that is there already; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

impl Demo {
    /// Reads the command line. `cargo demo` ends in `--` itself, so of `cargo demo -- --stay` two of them come before what was
    /// meant for the program: one more in front is left out.
    #[must_use]
    pub fn of_command_line() -> Self {
        Self::parse_from(without_second_dashes(std::env::args_os()))
    }
}

/// A command line whose arguments begin with `--`, without that.
#[must_use]
pub fn without_second_dashes(line: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut line: Vec<OsString> = line.into_iter().collect();
    if line.get(1).is_some_and(|first| first == "--") {
        line.remove(1);
    }
    line
}

impl Faults {
    /// Reads the command line, or ends the program with what is wrong with it.
    #[must_use]
    pub fn of_command_line() -> Self {
        let read = Self::from_arg_matches(&Self::with_rows().get_matches());
        read.unwrap_or_else(|error| error.exit())
    }

    /// Its help names the rows.
    fn with_rows() -> Command {
        let mut help = String::from("Rows:\n");
        for row in rows::all() {
            help.extend(["  ", row.id, "  ", row.title, "\n       ", row.help, "\n"]);
        }
        help.push_str(
            "  soak Both directions with mild random faults, feeds that break and a kill now and then; prints every five\n       \
             minutes what arrived, memory and its slope, open files, write-ahead logs.\n",
        );
        Self::command().after_help(help)
    }
}

/// Of the Gitter simulator on its own.
#[must_use]
pub fn gitter_sim() -> Command {
    let port = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .value_parser(value_parser!(u16))
            .default_value("0")
    };
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .value_parser(value_parser!(u64))
            .default_value(default)
    };
    let names = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .action(ArgAction::Append)
    };
    Command::new("gitter-sim")
        .about("A simulated Gitter on the loopback interface")
        .arg(port("api-port", "Port of the REST API; 0 takes a free one"))
        .arg(port("stream-port", "Port of the HTTP stream"))
        .arg(port("realtime-port", "Port of the realtime API"))
        .arg(port("control-port", "Port of the control API and its page"))
        .arg(number("rate-limit", "100", "Calls per minute"))
        .arg(number(
            "seed",
            "1",
            "Decides ids, tokens and which calls fail",
        ))
        .arg(names(
            "user",
            "Adds a user and prints their token; may be repeated",
        ))
        .arg(names(
            "room",
            "Adds a public room with all those users; may be repeated",
        ))
}

/// Of the Mattermost simulator on its own.
#[must_use]
pub fn mattermost_sim() -> Command {
    let port = Arg::new("port")
        .long("port")
        .help("Where to listen; 0 takes a free port")
        .value_parser(value_parser!(u16))
        .default_value("0");
    Command::new("mattermost-sim")
        .about("A simulated Mattermost on the loopback interface: a team, a channel, a bot and two people")
        .arg(port)
}

/// All programs, under the names of their files.
#[must_use]
pub fn programs() -> Vec<(&'static str, Command)> {
    vec![
        ("bench", Bench::command()),
        ("burst", Burst::command()),
        ("crossing", Crossing::command()),
        ("demo", Demo::command()),
        ("faults", Faults::with_rows()),
        ("gitter-sim", gitter_sim()),
        ("kills", Kills::command()),
        ("many", Many::command()),
        ("mattermost-sim", mattermost_sim()),
    ]
}
