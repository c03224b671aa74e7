//! The command line of the testbed. It is part of the library so that a test can check every command line that a page shows.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{
    Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};

use crate::fault_runner::rows;

/// A throwaway Synapse, simulators of the silos, the bridge, and people who talk.
#[derive(Parser)]
#[command(name = "testbed", disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub program: Program,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Program {
    /// Measures the bridge.
    Bench(Bench),
    /// Sends many messages in a minute while the bridge's account may send twelve events a minute.
    Burst(Burst),
    /// Sends numbered messages each way between two encrypted rooms, through Matterbridge and Mattermost.
    Crossing(Crossing),
    /// Shows an encrypted Matrix room and a Gitter channel that are bridged.
    Demo(Demo),
    /// Injects faults while people talk, and counts what happened to the messages.
    Faults(Faults),
    /// Runs a simulated Gitter on the loopback interface.
    GitterSim(GitterSim),
    /// Kills the bridge under traffic and counts what happened to the messages.
    Kills(Kills),
    /// Measures how one slow silo affects many portals.
    Many(Many),
    /// Runs a simulated Mattermost on the loopback interface: a team, a channel, a bot and two people.
    MattermostSim(MattermostSim),
}

impl Arguments {
    /// Reads the command line, or ends the program with what is wrong with it.
    #[must_use]
    pub fn from_command_line() -> Self {
        let line = without_second_dashes(std::env::args_os());
        let read = Self::from_arg_matches(&command().get_matches_from(line));
        read.unwrap_or_else(|error| error.exit())
    }
}

/// The command line. The help of `faults` names the rows.
#[must_use]
pub fn command() -> Command {
    let mut help = String::from("Rows:\n");
    for row in rows::all() {
        help.extend(["  ", row.id, "  ", row.title, "\n       ", row.help, "\n"]);
    }
    help.push_str(
        "  soak Traffic both ways with mild random faults, broken feeds and occasional kills; prints every five\n       \
         minutes messages, memory and its growth, open files, write-ahead logs.\n",
    );
    Arguments::command().mut_subcommand("faults", |faults| faults.after_help(help))
}

/// A command line without the `--` behind the subcommand: people type `cargo demo -- --stay` as they would for `cargo run`.
#[must_use]
pub fn without_second_dashes(line: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut line: Vec<OsString> = line.into_iter().collect();
    if line.get(2).is_some_and(|word| word == "--") {
        line.remove(2);
    }
    line
}

/// Measures the bridge.
#[derive(Args)]
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
    /// Seconds without messages over which CPU is measured.
    #[arg(long, default_value_t = 30)]
    pub rest: u64,
    /// Megabytes of the file that is sent each way.
    #[arg(long, default_value_t = 100)]
    pub megabytes: usize,
    /// Members of the large encrypted rooms, which are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 3000])]
    pub members: Vec<usize>,
    /// Measure only this part.
    #[arg(long)]
    pub only: Option<Part>,
    /// An existing `footbridge` program; built when missing.
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
    /// Large encrypted rooms. Takes minutes to set up, so it is measured only on request.
    Crowd,
}

/// Sends many messages in a minute while the bridge's account may send twelve events a minute.
#[derive(Args)]
pub struct Burst {
    /// How many messages.
    #[arg(long, default_value_t = 300)]
    pub messages: u32,
    /// Seconds in which they are sent.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// How many people send them.
    #[arg(long, default_value_t = 5)]
    pub authors: usize,
    /// One event per message, as with `[delivery] coalesce = false`.
    #[arg(long)]
    pub no_coalesce: bool,
    /// Give up after this many minutes.
    #[arg(long, default_value_t = 40)]
    pub patience: u64,
    /// An existing `footbridge` program; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

/// Sends numbered messages each way between two encrypted rooms, through Matterbridge and Mattermost.
#[derive(Args)]
pub struct Crossing {
    /// How many messages each way.
    #[arg(long, default_value_t = 1_000)]
    pub messages: u32,
    /// Messages a second, each way.
    #[arg(long, default_value_t = 6.0)]
    pub rate: f64,
    /// How many messages Matterbridge's buffer holds.
    #[arg(long, default_value_t = 1_000)]
    pub buffer: usize,
    /// Seconds for which the bridge is stopped in the middle.
    #[arg(long, default_value_t = 0)]
    pub away: u64,
    /// An existing `footbridge` program; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

/// Shows an encrypted Matrix room and a Gitter channel that are bridged.
#[derive(Args)]
pub struct Demo {
    /// Keep everything running afterwards, and print how to join in.
    #[arg(long)]
    pub stay: bool,
}

/// Injects faults while people talk, and counts what happened to the messages.
#[derive(Args)]
pub struct Faults {
    /// Rows of the catalogue below (`F03 F04`), `all`, or `soak`.
    pub rows: Vec<String>,
    /// The kind of silo: `gitter`, which has all rows, or `matterbridge` or `mattermost`.
    #[arg(long, default_value = "gitter")]
    pub silo: String,
    /// List the rows and exit.
    #[arg(long)]
    pub list: bool,
    /// How many faults are injected.
    #[arg(long, value_enum, default_value_t = Sizes::Small)]
    pub size: Sizes,
    /// Seed of all random choices; random when missing.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Also print everything as JSON, as one line at the end.
    #[arg(long)]
    pub json: bool,
    /// An existing `footbridge` program, built with the feature `testbed`; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Keep the bridge's log and a list of its requests in this directory, per row.
    #[arg(long)]
    pub keep: Option<PathBuf>,
    /// The longest time a row may take, in minutes.
    #[arg(long, default_value_t = 30)]
    pub patience: u64,
    /// Minutes of traffic in `soak`.
    #[arg(long, default_value_t = 60.0)]
    pub minutes: f64,
    /// Messages a second of `soak`, in each direction.
    #[arg(long, default_value_t = 2.0)]
    pub rate: f64,
    /// Average minutes between two kills of the bridge in `soak`.
    #[arg(long, default_value_t = 12.0)]
    pub kill_every: f64,
}

/// How many faults are injected.
#[derive(Clone, Copy, ValueEnum)]
pub enum Sizes {
    /// About half a minute per row.
    Small,
    /// As many as the release gate requires.
    Full,
}

/// Kills the bridge under traffic and counts what happened to the messages.
#[derive(Args)]
pub struct Kills {
    /// How often the bridge is killed.
    #[arg(long, default_value_t = 60)]
    pub kills: u32,
    /// Messages a second in each direction.
    #[arg(long, default_value_t = 4.0)]
    pub messages_per_second: f64,
    /// Requests a minute that the silo allows; Gitter's own 100 would be the bottleneck.
    #[arg(long, default_value_t = 6000)]
    pub requests_per_minute: u32,
    /// Seconds for which the bridge looks for a copy of a message whose sending was interrupted. If longer than most
    /// lives of the bridge here, the lane toward the channel would do nothing else; the simulator shows every copy at
    /// once.
    #[arg(long, default_value_t = 1)]
    pub settle: u32,
    /// Seed of the times of the kills; random when missing.
    #[arg(long)]
    pub seed: Option<u64>,
    /// An existing `footbridge` program; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Copy the bridge's files and logs to this directory at the end.
    #[arg(long)]
    pub keep: Option<PathBuf>,
}

/// Measures how one slow silo affects many portals.
#[derive(Args)]
pub struct Many {
    /// Portals; one of them links a channel of the silo that gets slow.
    #[arg(long, default_value_t = 20)]
    pub portals: usize,
    /// Blocks of each kind, in turn.
    #[arg(long, default_value_t = 4)]
    pub blocks: usize,
    /// Messages per portal, block and direction.
    #[arg(long, default_value_t = 3)]
    pub messages: usize,
    /// An existing `footbridge` program; built when missing.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

/// Runs a simulated Gitter.
#[derive(Args)]
pub struct GitterSim {
    /// Port of the REST API; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    pub api_port: u16,
    /// Port of the HTTP stream.
    #[arg(long, default_value_t = 0)]
    pub stream_port: u16,
    /// Port of the realtime API.
    #[arg(long, default_value_t = 0)]
    pub realtime_port: u16,
    /// Port of the control API and its page.
    #[arg(long, default_value_t = 0)]
    pub control_port: u16,
    /// Calls per minute.
    #[arg(long, default_value_t = 100)]
    pub rate_limit: u64,
    /// Seed of ids, tokens and random faults.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Adds a user and prints their token; may be repeated.
    #[arg(long)]
    pub user: Vec<String>,
    /// Adds a public room with all those users; may be repeated.
    #[arg(long)]
    pub room: Vec<String>,
}

/// Runs a simulated Mattermost.
#[derive(Args)]
pub struct MattermostSim {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
}
