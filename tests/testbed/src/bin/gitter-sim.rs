//! The Gitter simulator on its own: prints its addresses as one line of JSON and runs until interrupted.

use std::io::Write;

use clap::ArgMatches;
use footbridge_testbed::arguments;
use footbridge_testbed::gitter::{GitterSim, Options, RoomOptions};

fn options(matches: &ArgMatches) -> Options {
    let port = |name: &str| matches.get_one(name).copied().unwrap_or(0_u16);
    let number = |name: &str| matches.get_one(name).copied().unwrap_or(1_u64);
    Options {
        api_port: port("api-port"),
        stream_port: port("stream-port"),
        realtime_port: port("realtime-port"),
        control_port: port("control-port"),
        rate_limit: number("rate-limit"),
        seed: number("seed"),
        ..Options::default()
    }
}

fn named(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches
        .get_many(name)
        .unwrap_or_default()
        .cloned()
        .collect()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let matches = arguments::gitter_sim().get_matches();
    let sim = GitterSim::start(options(&matches)).await?;
    let users: Vec<_> = named(&matches, "user")
        .iter()
        .map(|name| sim.add_user(name, name))
        .collect();
    let members: Vec<String> = users.iter().map(|user| user.id.clone()).collect();
    let rooms: Vec<_> = named(&matches, "room")
        .iter()
        .map(|uri| {
            let options = RoomOptions {
                members: members.clone(),
                ..RoomOptions::default()
            };
            sim.add_room(uri, options)
        })
        .collect();
    let line = serde_json::json!({
        "api": sim.api_url(),
        "stream": sim.stream_url(),
        "realtime": sim.realtime_url(),
        "control": sim.control_url(),
        "users": users
            .iter()
            .map(|user| serde_json::json!({"id": user.id, "username": user.username, "token": user.token}))
            .collect::<Vec<_>>(),
        "rooms": rooms
            .iter()
            .map(|room| serde_json::json!({"id": room.id, "uri": room.uri}))
            .collect::<Vec<_>>(),
    });
    writeln!(std::io::stdout(), "{line}")?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
