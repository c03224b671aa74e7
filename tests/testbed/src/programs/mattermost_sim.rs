//! The Mattermost simulator as a program: prints its address as one line of JSON and runs until interrupted.

use std::io::Write;

use footbridge_simulators::mattermost::{MattermostSim, Options};
use footbridge_testbed::arguments::MattermostSim as Arguments;

pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let options = Options {
        port: arguments.port,
        ..Options::default()
    };
    let sim = MattermostSim::start(options).await?;
    let (bridge, alice, bob) = (
        sim.add_bot("bridge"),
        sim.add_user("alice"),
        sim.add_user("bob"),
    );
    let team = sim.add_team("team");
    let channel = sim.add_channel(&team, "town", "O", &[&bridge, &alice, &bob]);
    let people = [bridge, alice, bob];
    let people = people.iter().map(
        |user| serde_json::json!({"id": user.id, "username": user.username, "token": user.token}),
    );
    let line = serde_json::json!({
        "url": sim.url(),
        "team": {"id": team.id, "name": team.name},
        "channel": {"id": channel.id, "name": channel.name},
        "users": people.collect::<Vec<_>>(),
    });
    writeln!(std::io::stdout(), "{line}")?;
    tokio::signal::ctrl_c().await?;
    Ok(true)
}
