//! One program for all that the testbed does: `cargo run -p footbridge-testbed -- --help` names the subcommands.

#![recursion_limit = "512"]

mod programs;

use std::process::ExitCode;

use footbridge_testbed::arguments::{Arguments, Program};
use footbridge_testbed::console::Console;

use programs::{bench, burst, crossing, demo, faults, gitter_sim, kills, many, mattermost_sim};

#[tokio::main]
async fn main() -> ExitCode {
    let console = Console::new();
    let outcome = match Arguments::from_command_line().program {
        Program::Bench(arguments) => Box::pin(bench::run(&arguments, &console)).await,
        Program::Burst(arguments) => Box::pin(burst::run(&arguments, &console)).await,
        Program::Crossing(arguments) => Box::pin(crossing::run(&arguments, &console)).await,
        Program::Demo(arguments) => Box::pin(demo::run(&arguments, &console)).await,
        Program::Faults(arguments) => Box::pin(faults::run(&arguments, &console)).await,
        Program::GitterSim(arguments) => Box::pin(gitter_sim::run(&arguments)).await,
        Program::Kills(arguments) => Box::pin(kills::run(&arguments, &console)).await,
        Program::Many(arguments) => Box::pin(many::run(&arguments, &console)).await,
        Program::MattermostSim(arguments) => Box::pin(mattermost_sim::run(&arguments)).await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            console.line(&format!("\n  The run ended early: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
