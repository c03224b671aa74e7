//! The Gitter simulator as a program: prints its addresses as one line of JSON and runs until interrupted.

use std::io::Write;

use footbridge_simulators::gitter::{GitterSim, Options, RoomOptions};
use footbridge_testbed::arguments::GitterSim as Arguments;

pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let options = Options {
        api_port: arguments.api_port,
        stream_port: arguments.stream_port,
        realtime_port: arguments.realtime_port,
        control_port: arguments.control_port,
        rate_limit: arguments.rate_limit,
        seed: arguments.seed,
        ..Options::default()
    };
    let sim = GitterSim::start(options).await?;
    let users: Vec<_> = arguments
        .user
        .iter()
        .map(|name| sim.add_user(name, name))
        .collect();
    let members: Vec<String> = users.iter().map(|user| user.id.clone()).collect();
    let rooms: Vec<_> = arguments
        .room
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
    Ok(true)
}
