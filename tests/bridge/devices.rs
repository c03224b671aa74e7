//! `footbridge device verify`, `device reset` and `logout`, with the whole program: what happens to the device, and
//! that no message is lost or duplicated.

use std::{path::PathBuf, process::Stdio, time::Duration};

use footbridge_testbed::client::{EmojiComparison, VerificationScreen};
use footbridge_testbed::{
    scenario::{Options, PASSWORD, Scenario, until},
    synapse::Synapse,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

const PATIENCE: Duration = Duration::from_secs(90);

async fn scene() -> (&'static Synapse, Scenario) {
    let synapse = Synapse::shared().await.unwrap();
    let options = Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    scene.open().await.unwrap();
    (synapse, scene)
}

async fn device(scene: &Scenario) -> String {
    let shown = scene.bridge.output(&["device", "show"]).await.unwrap().1;
    let line = shown.lines().find(|line| line.starts_with("Device"));
    line.unwrap().split_whitespace().last().unwrap().to_owned()
}

/// The ids of the account's devices, requested with a separate session.
async fn devices(synapse: &Synapse, scene: &Scenario) -> Vec<String> {
    let http = footbridge_core::http_client::client().unwrap();
    let address = format!("{}/_matrix/client/v3", synapse.url());
    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": scene.bridge_user},
        "password": PASSWORD,
        "device_id": "OBSERVER",
    });
    let answer = http.post(format!("{address}/login")).json(&login).send();
    let answer: Value = answer.await.unwrap().json().await.unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let list = http.get(format!("{address}/devices")).bearer_auth(token);
    let list: Value = list.send().await.unwrap().json().await.unwrap();
    let list = list["devices"].as_array().unwrap().iter();
    // Devices that are not the bridge's have no name, or another one.
    let ours = list.filter(|device| device["display_name"] == "Footbridge");
    let ids = ours.map(|device| device["device_id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// Logs this device out.
async fn log_out(synapse: &Synapse, scene: &Scenario, device: &str) {
    let http = footbridge_core::http_client::client().unwrap();
    let address = format!("{}/_matrix/client/v3", synapse.url());
    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": scene.bridge_user},
        "password": PASSWORD,
        "device_id": device,
    });
    let answer = http.post(format!("{address}/login")).json(&login).send();
    let answer: Value = answer.await.unwrap().json().await.unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let logout = http.post(format!("{address}/logout")).bearer_auth(token);
    assert!(logout.send().await.unwrap().status().is_success());
}

async fn death(scene: &Scenario) -> Option<i32> {
    let ended = || scene.bridge.ended().unwrap().is_some();
    until(PATIENCE, ended).await.unwrap();
    scene.bridge.reap().await.unwrap().code()
}

/// Waits until Ann's client knows the bridge's new device with its signature.
async fn is_known(scene: &Scenario) {
    let new = device(scene).await;
    let began = tokio::time::Instant::now();
    while !scene
        .ann
        .knows_signed(&scene.bridge_user, &new)
        .await
        .unwrap()
    {
        assert!(began.elapsed() < PATIENCE, "{new} is not known");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn judge(scene: &Scenario) {
    scene.settle(PATIENCE).await.unwrap();
    let (toward_channel, toward_room) = (scene.toward_channel(), scene.toward_room());
    let end = scene.bridge.logs();
    assert!(toward_channel.is_clean(), "{toward_channel:?}\n{end}");
    assert!(toward_room.is_clean(), "{toward_room:?}\n{end}");
    scene.bridge.settle(PATIENCE).await.unwrap();
    let tally = scene.bridge.conservation().await.unwrap();
    assert_eq!(tally.failed, 0);
}

#[tokio::test]
async fn p13_a_reset_makes_another_device_and_loses_and_doubles_nothing() {
    let (synapse, scene) = scene().await;
    let first = device(&scene).await;
    // A send that happened, but is not recorded as done.
    scene.bridge.kill().await.unwrap();
    scene.say_in_channel();
    scene.bridge.launch_armed("perform.after:1").unwrap();
    death(&scene).await;
    // Messages pending on both sides: the room keys of the room's messages go to the old device only.
    for _ in 0..3 {
        scene.say_in_room().await.unwrap();
        scene.say_in_channel();
    }
    // A kill in the middle, which a login completes.
    let died = scene
        .bridge
        .output_armed(&["device", "reset"], "device.replaced")
        .await
        .unwrap();
    assert_eq!(died, None, "{}", scene.bridge.logs_end());
    let refused = scene.bridge.attempt("run", PATIENCE).await.unwrap();
    assert_eq!(refused, Some(78), "{}", scene.bridge.logs_end());
    scene.bridge.login().await.unwrap();
    let second = device(&scene).await;
    assert_ne!(second, first);
    assert_eq!(
        devices(synapse, &scene).await,
        std::slice::from_ref(&second)
    );
    scene.bridge.start().await.unwrap();
    judge(&scene).await;

    // And once more without a kill, with messages under way.
    scene.bridge.terminate().await.unwrap();
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    let (code, said) = scene.bridge.output(&["device", "reset"]).await.unwrap();
    assert_eq!(code, Some(0), "{}", scene.bridge.logs_end());
    assert!(
        said.contains(&format!("Device {second} was replaced")),
        "{said}"
    );
    assert_eq!(devices(synapse, &scene).await, [device(&scene).await]);
    scene.bridge.start().await.unwrap();
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    judge(&scene).await;
}

#[tokio::test]
async fn b20_a_device_that_was_logged_out_is_replaced_and_the_queue_is_kept() {
    let (synapse, scene) = scene().await;
    let first = device(&scene).await;
    log_out(synapse, &scene, &first).await;
    scene.say_in_channel();
    assert_eq!(death(&scene).await, Some(77), "{}", scene.bridge.logs_end());
    assert!(scene.bridge.logs().contains("error[B20]"));
    for _ in 0..3 {
        scene.say_in_channel();
    }
    let again = scene.bridge.attempt("login", PATIENCE).await.unwrap();
    assert_eq!(again, Some(77));
    assert!(scene.bridge.logs().contains("footbridge device reset"));
    let (code, _) = scene.bridge.output(&["device", "reset"]).await.unwrap();
    assert_eq!(code, Some(0), "{}", scene.bridge.logs_end());
    scene.bridge.start().await.unwrap();
    is_known(&scene).await;
    scene.say_in_room().await.unwrap();
    judge(&scene).await;
}

#[tokio::test]
async fn logout_lists_what_is_kept_and_a_login_continues() {
    let (synapse, scene) = scene().await;
    scene.bridge.kill().await.unwrap();
    scene.say_in_channel();
    scene.bridge.launch_armed("perform.after:1").unwrap();
    death(&scene).await;
    let (code, said) = scene.bridge.output(&["logout"]).await.unwrap();
    assert_eq!(code, Some(0), "{}", scene.bridge.logs_end());
    assert!(said.contains("(1 messages are pending)"), "{said}");
    assert!(devices(synapse, &scene).await.is_empty());
    assert!(!scene.bridge.data_directory().join("devices/1").exists());
    let refused = scene.bridge.attempt("run", PATIENCE).await.unwrap();
    assert_eq!(refused, Some(77));
    scene.say_in_channel();
    scene.bridge.login().await.unwrap();
    scene.bridge.start().await.unwrap();
    is_known(&scene).await;
    scene.say_in_room().await.unwrap();
    judge(&scene).await;
}

/// `device verify` on its own terminal.
struct Terminal {
    child: tokio::process::Child,
    read: String,
}

impl Terminal {
    fn open(scene: &Scenario, words: &[&str]) -> Self {
        let inner = scene.bridge.prepare_command(words).unwrap();
        let inner = inner.as_std();
        // Python's pty copies between its own streams and a new terminal.
        let spawn =
            "import pty, os, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let mut command = Command::new("python3");
        command
            .args(["-c", spawn])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env("FOOTBRIDGE_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        Self {
            child: command.spawn().unwrap(),
            read: String::new(),
        }
    }

    /// Reads what arrives within a short time.
    async fn read(&mut self) -> &str {
        let mut bytes = [0; 4096];
        let stdout = self.child.stdout.as_mut().unwrap();
        let read = tokio::time::timeout(Duration::from_millis(100), stdout.read(&mut bytes));
        if let Ok(Ok(count)) = read.await {
            self.read
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        &self.read
    }

    async fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
        stdin.flush().await.unwrap();
    }
}

#[tokio::test]
async fn p08_device_verify_asks_a_person_at_the_terminal() {
    let (_, scene) = scene().await;
    let ann = scene.ann.user_id();
    scene
        .bridge
        .configure_admin(&format!("users = [\"{ann}\"]"))
        .unwrap();
    // While the bridge runs the command says what to do instead; without a terminal nobody could compare.
    let (code, _) = scene
        .bridge
        .output(&["device", "verify", &ann])
        .await
        .unwrap();
    assert_eq!(code, Some(66), "{}", scene.bridge.logs_end());
    scene.bridge.terminate().await.unwrap();
    for (word, wanted) in [("no", 1), ("yes", 0)] {
        let known = scene
            .room_observer
            .pick(&any_room(&scene), |_| Some(()))
            .len();
        let mut terminal = Terminal::open(&scene, &["device", "verify", &ann]);
        let flow = asked(&scene, &mut terminal, known).await;
        let bridge = scene.bridge_user.clone();
        scene.ann.accept_verification(&bridge, &flow).await.unwrap();
        let names = loop {
            terminal.read().await;
            if let Ok(VerificationScreen::Compare(names)) = scene.ann.screen(&bridge, &flow).await
                && terminal.read.contains("Do they match?")
            {
                break names;
            }
        };
        for name in &names {
            assert!(terminal.read.contains(name), "{}", terminal.read);
        }
        scene
            .ann
            .compared(&bridge, &flow, EmojiComparison::Same)
            .await
            .unwrap();
        terminal.say(word).await;
        let ended = async {
            while terminal.child.try_wait().unwrap().is_none() {
                terminal.read().await;
            }
            terminal.child.wait().await.unwrap().code()
        };
        let code = tokio::time::timeout(PATIENCE, ended).await.unwrap();
        assert_eq!(code, Some(wanted), "{}", terminal.read);
        let is_verified = async || scene.ann.has_verified(&bridge).await.unwrap();
        if word == "yes" {
            // The last message of the verification may still be on its way to her client.
            let told = async {
                while !is_verified().await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::time::timeout(PATIENCE, told).await.unwrap();
        }
        assert_eq!(is_verified().await, word == "yes");
    }
    scene.bridge.start().await.unwrap();
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    judge(&scene).await;
}

/// The messages of the bridge to Ann in the direct room.
fn notices_of(scene: &Scenario) -> Vec<String> {
    let said = scene.room_observer.pick(&any_room(scene), |heard| {
        let seen = &heard.seen;
        let text = seen.content["body"].as_str().unwrap_or_default().to_owned();
        (seen.sender == scene.bridge_user).then_some(text)
    });
    said.into_iter().collect()
}

/// Waits until the bridge says so, after this many other messages.
async fn until_told(scene: &Scenario, known: usize, wanted: impl Fn(&str) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if notices_of(scene)
            .iter()
            .skip(known)
            .any(|text| wanted(text))
        {
            return;
        }
        let late = tokio::time::Instant::now() > deadline;
        assert!(
            !late,
            "{:?}\n{}",
            notices_of(scene),
            scene.bridge.logs_end()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn p08_a_client_asks_while_the_bridge_runs_and_its_admin_answers_in_the_chat() {
    let synapse = Synapse::shared().await.unwrap();
    let mut options =
        Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    options.admin_options = "users = [\"{ann}\"]\n".to_owned();
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    scene.open().await.unwrap();
    let bridge = scene.bridge_user.clone();
    for (word, verified) in [("no", false), ("yes", true)] {
        let known = notices_of(&scene).len();
        let flow = scene.ann.ask_to_verify(&bridge).await.unwrap();
        let room = any_room(&scene);
        // Nothing begins before Ann confirms it.
        until_told(&scene, known, |text| {
            text.contains("`!bridge verify` here to begin")
        })
        .await;
        let screen = scene.ann.screen(&bridge, &flow).await;
        assert!(
            !matches!(screen, Ok(VerificationScreen::Compare(_))),
            "{screen:?}"
        );
        scene.ann.say(&room, "!bridge verify").await.unwrap();
        let compared = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if let Ok(VerificationScreen::Compare(names)) =
                    scene.ann.screen(&bridge, &flow).await
                {
                    break names;
                }
            }
        };
        let names = tokio::time::timeout(PATIENCE, compared).await.unwrap();
        until_told(&scene, known, |text| {
            names.iter().all(|name| text.contains(name))
        })
        .await;
        if verified {
            // Another word is no answer.
            scene.ann.say(&room, "!bridge verify maybe").await.unwrap();
            until_told(&scene, known, |text| text.contains("verify yes` or")).await;
            assert!(!scene.ann.has_verified(&bridge).await.unwrap());
        }
        let on_screen = if verified {
            EmojiComparison::Same
        } else {
            EmojiComparison::Different
        };
        scene.ann.compared(&bridge, &flow, on_screen).await.unwrap();
        let said = format!("!bridge verify {word}");
        scene.ann.say(&room, &said).await.unwrap();
        let end = if verified {
            "Verified"
        } else {
            "was cancelled"
        };
        until_told(&scene, known, |text| text.contains(end)).await;
        assert_eq!(scene.ann.has_verified(&bridge).await.unwrap(), verified);
    }
    scene.say_in_room().await.unwrap();
    scene.say_in_channel();
    judge(&scene).await;
}

fn any_room(scene: &Scenario) -> String {
    scene
        .ann
        .direct_room(&scene.bridge_user)
        .unwrap_or_default()
}

/// Waits until Ann is asked; her room observer syncs.
async fn asked(scene: &Scenario, terminal: &mut Terminal, known: usize) -> String {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "{}", terminal.read);
        terminal.read().await;
        scene.ann.join_invites().await.unwrap();
        let room = any_room(scene);
        let found = scene
            .room_observer
            .pick(&room, |heard| Some(heard.seen.clone()));
        let asked = found
            .into_iter()
            .skip(known)
            .find(|seen| seen.content["msgtype"] == "m.key.verification.request");
        if let Some(asked) = asked {
            return asked.event_id;
        }
    }
}
