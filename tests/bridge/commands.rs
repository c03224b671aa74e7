//! The commands from an empty directory to a bridge that could run, against a real homeserver and the simulator: what a
//! new operator types, and what the files contain afterwards.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use footbridge_simulators::{
    gitter::{GitterSim, Options, RoomOptions},
    matterbridge::{self, MatterbridgeSim},
};
use footbridge_testbed::{ports::free_port, synapse::Synapse};
use serde_json::Value;

const PASSWORD: &str = "hush-5e1f9-password";

async fn footbridge(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_footbridge"));
    command
        .args(arguments)
        .env_clear()
        .current_dir(directory)
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn init_makes_everything_that_run_needs_and_login_makes_no_second_device() {
    let synapse = Synapse::shared().await.unwrap();
    let sim = GitterSim::start(Options::default()).await.unwrap();
    let bot = sim.add_user("footbridge-bot", "Footbridge");
    sim.add_room("org/room", RoomOptions::default());
    let user = synapse
        .register(&format!("init{}", free_port().unwrap()), PASSWORD)
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    put(&home.join("password.txt"), PASSWORD);
    put(&home.join("my.token"), &bot.token);

    let (hs, api, stream, realtime) = (
        synapse.url(),
        sim.api_url(),
        sim.stream_url(),
        sim.realtime_url(),
    );
    let typed = format!(
        "init --yes --user {user} --homeserver {hs} --password-file password.txt --silo-token-file my.token \
         --silo-api {api} --silo-stream {stream} --silo-realtime {realtime} --channel org/room \
         --room #room:example.org"
    );
    let output = footbridge(home, &typed.split(' ').collect::<Vec<_>>()).await;
    let said = stdout(&output);
    for part in [
        "Recovery key of this account, shown this once",
        &format!("Logged in as {user} on device "),
        "signed in as footbridge-bot",
        "start the bridge: footbridge run",
    ] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    assert!(!said.contains("fail"), "{said}");
    for secret in [PASSWORD, bot.token.as_str()] {
        assert!(
            !said.contains(secret) && !String::from_utf8_lossy(&output.stderr).contains(secret)
        );
        assert!(
            !fs::read_to_string(home.join("config.toml"))
                .unwrap()
                .contains(secret)
        );
    }
    assert_eq!(mode(&home.join("config.toml")), 0o600);
    assert_eq!(mode(&home.join("footbridge.key")), 0o600);
    assert_eq!(mode(&home.join("data")), 0o700);

    let device = device_of(&stdout(&footbridge(home, &["device", "show"]).await));
    let again = stdout(&footbridge(home, &["login"]).await);
    assert_eq!(
        again,
        format!("Already logged in as {user} on device {device}.\n")
    );

    let status: Value =
        serde_json::from_str(&stdout(&footbridge(home, &["status", "--json"]).await)).unwrap();
    assert_eq!(status["account"]["user_id"], user.as_str());
    assert_eq!(status["account"]["finished"], true);
    assert_eq!(
        status["never_opened"][0],
        "#room:example.org - gitter org/room"
    );
    assert_eq!(status["bridge"], Value::Null);

    // Neither end of this portal exists, and `check` reports both.
    let nowhere = format!("#nowhere:{}", synapse.server_name());
    let add = ["portal", "add", &nowhere, "gitter", "org/nope"];
    assert!(stdout(&footbridge(home, &add).await).contains("Added"));
    let checked = footbridge(home, &["check"]).await;
    assert_eq!(checked.status.code(), Some(69));
    let faults = String::from_utf8_lossy(&checked.stderr);
    for part in [
        format!("error[B30]: no room has the alias {nowhere}"),
        "error[B14]: silo `gitter` has no such channel for the bridge's account".to_owned(),
        format!("`footbridge portal add` has linked {nowhere} to it"),
    ] {
        assert!(faults.contains(&part), "{part} is missing: {faults}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn init_writes_a_configuration_for_a_silo_of_another_kind() {
    let synapse = Synapse::shared().await.unwrap();
    let sim = MatterbridgeSim::start(matterbridge::Options {
        token: Some("matterbridge-token".to_owned()),
        ..matterbridge::Options::default()
    });
    let sim = sim.await.unwrap();
    let name = format!("init{}", free_port().unwrap());
    let user = synapse.register(&name, PASSWORD).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    put(&home.join("password.txt"), PASSWORD);
    put(&home.join("my.token"), "matterbridge-token");
    let (hs, api) = (synapse.url(), sim.url());
    let typed = format!(
        "init --yes --user {user} --homeserver {hs} --password-file password.txt --silo-kind matterbridge \
         --silo-token-file my.token --silo-api {api} --channel gateway1 --room #room:example.org"
    );
    let output = footbridge(home, &typed.split(' ').collect::<Vec<_>>()).await;
    let said = stdout(&output);
    assert!(said.contains("start the bridge: footbridge run"), "{said}");
    assert!(!said.contains("fail"), "{said}");
    let written = fs::read_to_string(home.join("config.toml")).unwrap();
    assert!(written.contains("kind = \"matterbridge\""), "{written}");
    assert!(
        sim.calls().values().sum::<u64>() > 0,
        "the silo was contacted"
    );
}

/// The device id in the output of `device show`, which must have both keys in groups of four.
fn device_of(shown: &str) -> String {
    let line = |name: &str| {
        let found = shown.lines().find_map(|line| line.strip_prefix(name));
        found
            .unwrap_or_else(|| panic!("no {name} in {shown}"))
            .trim()
            .to_owned()
    };
    for key in [line("Fingerprint"), line("Master key")] {
        let groups: Vec<&str> = key.split(' ').collect();
        assert_eq!(groups.len(), 11, "{key}");
        assert!(
            groups.iter().all(|group| (3..=4).contains(&group.len())),
            "{key}"
        );
    }
    line("Device")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_reported_and_leaves_nothing_that_blocks_the_right_one() {
    let synapse = Synapse::shared().await.unwrap();
    let user = synapse
        .register(&format!("wrong{}", free_port().unwrap()), PASSWORD)
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    let config = format!(
        "[matrix]\nhomeserver = \"{}\"\nuser = \"{user}\"\npassword_file = \"password.txt\"\n",
        synapse.url()
    );
    put(&home.join("config.toml"), &config);
    put(&home.join("password.txt"), "not-the-password-canary");
    let output = footbridge(home, &["login"]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{stderr}");
    assert!(
        stderr.contains("error[B20]: the homeserver refuses the login"),
        "{stderr}"
    );
    assert!(!stderr.contains("canary"), "{stderr}");
    put(&home.join("password.txt"), PASSWORD);
    let said = stdout(&footbridge(home, &["login"]).await);
    assert!(said.contains("Logged in as"), "{said}");
}
