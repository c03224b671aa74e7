//! People who give the bridge a device on their own account, with the whole program: what they write in the channel appears in
//! the room as theirs, encrypted by their own device, and nothing of it is doubled, whatever is killed or removed when.

use std::{collections::BTreeSet, os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration};

use footbridge_testbed::{
    scenario::{Options, PASSWORD, Scenario, until},
    synapse::Synapse,
};

const PATIENCE: Duration = Duration::from_secs(90);

/// A scenario in which Ann is an admin. The bridge has logged in and does not run.
async fn scenario(encrypted: bool) -> (&'static Synapse, Scenario) {
    let synapse = Synapse::shared().await.unwrap();
    let mut options =
        Options::new(PathBuf::from(env!("CARGO_BIN_EXE_footbridge"))).with_budget(6_000);
    "users = [\"{ann}\"]".clone_into(&mut options.admin_options);
    options.encrypted = encrypted;
    let scene = Scenario::set_up(synapse, options, &|_| ()).await.unwrap();
    (synapse, scene)
}

/// Logs Ann in with this password. Returns the device, or what the program says where it fails.
async fn log_in(scene: &Scenario, password: &str) -> Result<String, String> {
    let path = scene.bridge.directory().join("ann.password");
    let mut file = std::fs::OpenOptions::new();
    let file = file.create(true).truncate(true).write(true).mode(0o600);
    std::io::Write::write_all(&mut file.open(&path).unwrap(), password.as_bytes()).unwrap();
    let (user, path) = (scene.ann.user_id(), path.to_str().unwrap().to_owned());
    let words = ["login", "--person", &user, "--password-file", &path];
    let told = scene.bridge.run_words(&words).await;
    let told = told.map_err(|error| format!("{error:#}"))?;
    let device = told.split("on device ").nth(1).unwrap();
    let device = device.split('.').next().unwrap().to_owned();
    assert!(told.contains(&format!("/verify {device} ")), "{told}");
    Ok(device)
}

/// How many accounts have keys on this machine.
fn key_directories(scene: &Scenario) -> usize {
    let devices = scene.bridge.data_directory().join("devices");
    std::fs::read_dir(devices).unwrap().count()
}

/// A scenario in which Ann, who is Mary in the channel, has given the bridge a device that she has signed, and has linked her
/// account on the silo. The bridge runs.
struct Linked {
    scene: Scenario,
    synapse: &'static Synapse,
    /// The bridge's device on Ann's account.
    device: String,
    /// The room of Ann and the bridge.
    direct: String,
}

impl Linked {
    async fn open(encrypted: bool) -> Self {
        let linked = Self::logged_in(encrypted).await;
        linked
            .scene
            .ann
            .sign_own_device(&linked.device)
            .await
            .unwrap();
        linked.wait_speaking().await;
        linked
    }

    /// The same before Ann has signed the device.
    async fn logged_in(encrypted: bool) -> Self {
        let (synapse, scene) = scenario(encrypted).await;
        let device = log_in(&scene, PASSWORD).await.unwrap();
        scene.open().await.unwrap();
        let invited = [scene.bridge_user.clone()];
        let direct = scene
            .ann
            .create_room("Direct", true, &invited)
            .await
            .unwrap();
        let linked = Self {
            scene,
            synapse,
            device,
            direct,
        };
        linked.hear("Hello").await;
        linked.ask("!bridge silo login gitter").await;
        let told = linked.hear("footbridge-me-").await;
        let code = told.lines().find(|line| line.starts_with("footbridge-me-"));
        linked.say_as(&linked.scene.mary.id, code.unwrap());
        linked.hear("Mary on gitter has posted the code").await;
        linked
    }

    fn say_as(&self, user: &str, text: &str) -> String {
        let channel = &self.scene.stage.channel.id;
        self.scene.sim.say(channel, user, text).id
    }

    async fn ask(&self, words: &str) {
        self.scene.ann.say(&self.direct, words).await.unwrap();
    }

    /// Waits for a message of the bridge in the direct room.
    async fn hear(&self, words: &str) -> String {
        let said = || {
            let said = self.scene.room_observer.pick(&self.direct, |heard| {
                let text = heard.text()?;
                let is_it = heard.seen.sender == self.scene.bridge_user && text.contains(words);
                is_it.then(|| text.to_owned())
            });
            said.into_iter().next_back()
        };
        let waited = until(PATIENCE, || said().is_some()).await;
        waited
            .unwrap_or_else(|_| panic!("nothing says {words:?}\n{}", self.scene.bridge.logs_end()));
        said().unwrap()
    }

    async fn wait_speaking(&self) {
        let speaks = || {
            self.scene
                .bridge
                .logs()
                .contains("A person's account speaks for its person")
        };
        let waited = until(PATIENCE, speaks).await;
        waited.unwrap_or_else(|_| panic!("{}", self.scene.bridge.logs_end()));
    }

    /// Who has written what in the room, in order, each event once.
    fn room(&self) -> Vec<(String, String)> {
        let mut known = BTreeSet::new();
        self.scene
            .room_observer
            .pick(&self.scene.stage.room, |heard| {
                let text = heard.text()?;
                known
                    .insert(heard.seen.event_id.clone())
                    .then(|| (heard.seen.sender.clone(), text.to_owned()))
            })
    }

    async fn wait_in_room(&self, words: &str) -> (String, String) {
        let found = || {
            self.room()
                .into_iter()
                .find(|(_, text)| text.contains(words))
        };
        let waited = until(PATIENCE, || found().is_some()).await;
        waited.unwrap_or_else(|_| {
            panic!(
                "{words:?} is not in {:#?}\n{}",
                self.room(),
                self.scene.bridge.logs_end()
            )
        });
        found().unwrap()
    }

    fn ann(&self) -> String {
        self.scene.ann.user_id()
    }

    /// The texts in the channel that contain these words.
    fn in_channel(&self, words: &str) -> Vec<String> {
        let messages = self.scene.sim.messages(&self.scene.stage.channel.id);
        let texts = messages.into_iter().map(|message| message.text);
        texts.filter(|text| text.contains(words)).collect()
    }

    async fn wait_in_channel(&self, words: &str) {
        let waited = until(PATIENCE, || !self.in_channel(words).is_empty()).await;
        waited.unwrap_or_else(|_| panic!("{words:?}\n{}", self.scene.bridge.logs_end()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_person_speaks_as_themselves_and_everybody_else_through_the_relay() {
    let linked = Linked::open(true).await;
    let (ann, bridge) = (linked.ann(), linked.scene.bridge_user.clone());
    let first = linked.say_as(&linked.scene.mary.id, "hello from Mary");
    let tom = linked.say_as(&linked.scene.tom.id, "hello from Tom");
    assert_eq!(
        linked.wait_in_room("hello from Mary").await,
        (ann.clone(), "hello from Mary".to_owned())
    );
    assert_eq!(linked.wait_in_room("hello from Tom").await.0, bridge);
    // By the device that encrypted it.
    let events = linked
        .synapse
        .events(&linked.scene.stage.room)
        .await
        .unwrap();
    let devices: Vec<&str> = events
        .iter()
        .filter(|event| event.json["sender"] == ann.as_str())
        .filter_map(|event| event.json["content"]["device_id"].as_str())
        .collect();
    assert_eq!(devices, [linked.device.as_str()]);
    // What she writes by hand reaches the channel through the relay's account there, once; what the device sent does not.
    linked
        .scene
        .ann
        .say(&linked.scene.stage.room, "by hand")
        .await
        .unwrap();
    linked.wait_in_channel("by hand").await;
    assert_eq!(linked.in_channel("hello from Mary").len(), 1);
    // Edits and deletions are her own events.
    let channel = &linked.scene.stage.channel.id;
    linked
        .scene
        .sim
        .edit(channel, &first, "edited by Mary")
        .unwrap();
    let edited = || {
        let edits = linked
            .scene
            .room_observer
            .pick(&linked.scene.stage.room, |heard| {
                heard.edits()?;
                Some(heard.seen.sender.clone())
            });
        edits.into_iter().next()
    };
    until(PATIENCE, || edited().is_some()).await.unwrap();
    assert_eq!(edited(), Some(ann.clone()));
    for message in [&first, &tom] {
        linked.scene.sim.delete(channel, message).unwrap();
    }
    let redactions = || {
        linked
            .scene
            .room_observer
            .pick(&linked.scene.stage.room, |heard| {
                let is_it = heard.seen.event_type == "m.room.redaction";
                is_it.then(|| heard.seen.sender.clone())
            })
    };
    // The message and its edit, and Tom's message.
    until(PATIENCE, || {
        redactions().iter().filter(|by| **by == bridge).count() == 1
    })
    .await
    .unwrap();
    until(PATIENCE, || redactions().contains(&ann))
        .await
        .unwrap();
    linked.scene.bridge.settle(PATIENCE).await.unwrap();
    assert_eq!(linked.in_channel("by hand").len(), 1);
    linked.scene.all_encrypted(linked.synapse).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_what_a_device_sends_into_an_unencrypted_room_is_not_relayed_back() {
    let linked = Linked::open(false).await;
    for number in 0..10 {
        linked.say_as(&linked.scene.mary.id, &format!("line {number}."));
    }
    let (by, _) = linked.wait_in_room("line 9.").await;
    assert_eq!(by, linked.ann());
    linked
        .scene
        .ann
        .say(&linked.scene.stage.room, "by hand")
        .await
        .unwrap();
    linked.wait_in_channel("by hand").await;
    linked.scene.bridge.settle(PATIENCE).await.unwrap();
    assert_eq!(linked.in_channel("line ").len(), 10);
    let lines: Vec<String> = linked.room().into_iter().map(|(_, text)| text).collect();
    let expected: Vec<String> = (0..10).map(|number| format!("line {number}.")).collect();
    let lines: Vec<String> = lines
        .into_iter()
        .filter(|text| text.starts_with("line"))
        .collect();
    assert_eq!(lines, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_an_unsigned_device_does_not_speak_and_a_removed_one_is_noticed() {
    let linked = Linked::logged_in(true).await;
    linked.say_as(&linked.scene.mary.id, "not signed yet");
    let (by, _) = linked.wait_in_room("not signed yet").await;
    assert_eq!(by, linked.scene.bridge_user);
    linked.ask("!bridge devices").await;
    linked.hear("not signed by you yet").await;
    linked
        .scene
        .ann
        .sign_own_device(&linked.device)
        .await
        .unwrap();
    linked.wait_speaking().await;
    linked.say_as(&linked.scene.mary.id, "signed now");
    assert_eq!(linked.wait_in_room("signed now").await.0, linked.ann());
    linked
        .scene
        .ann
        .remove_device(&linked.device, PASSWORD)
        .await
        .unwrap();
    linked.say_as(&linked.scene.mary.id, "removed again");
    let (by, _) = linked.wait_in_room("removed again").await;
    assert_eq!(by, linked.scene.bridge_user);
    until(PATIENCE, || key_directories(&linked.scene) == 1)
        .await
        .unwrap();
    linked.hear("was removed from your account").await;
    linked.ask("!bridge devices").await;
    linked.hear("no device on your account").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_person_takes_the_device_back_in_the_chat() {
    let linked = Linked::open(true).await;
    linked.ask("!bridge devices").await;
    linked.hear("signed by you; I speak through it").await;
    linked.say_as(&linked.scene.mary.id, "as myself");
    assert_eq!(linked.wait_in_room("as myself").await.0, linked.ann());
    linked.ask("!bridge logout").await;
    linked.hear("no longer accepts its token").await;
    linked.say_as(&linked.scene.mary.id, "through the relay");
    let (by, _) = linked.wait_in_room("through the relay").await;
    assert_eq!(by, linked.scene.bridge_user);
    linked.ask("!bridge silo logout gitter").await;
    linked
        .hear("Mary on gitter is no longer linked to you")
        .await;
    assert!(linked.scene.bridge.is_ready().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_logout_revokes_the_device_and_the_relay_speaks_again() {
    let linked = Linked::open(true).await;
    linked.say_as(&linked.scene.mary.id, "as myself");
    assert_eq!(linked.wait_in_room("as myself").await.0, linked.ann());
    linked.scene.bridge.terminate().await.unwrap();
    linked.say_as(&linked.scene.mary.id, "meanwhile");
    let ann = linked.ann();
    let told = linked
        .scene
        .bridge
        .run_words(&["logout", "--person", &ann])
        .await
        .unwrap();
    assert!(told.contains("no longer accepts its token"), "{told}");
    assert_eq!(key_directories(&linked.scene), 1);
    // The homeserver no longer lists the device.
    assert!(
        linked
            .scene
            .ann
            .sign_own_device(&linked.device)
            .await
            .is_err()
    );
    linked.scene.bridge.start().await.unwrap();
    let (by, _) = linked.wait_in_room("meanwhile").await;
    assert_eq!(by, linked.scene.bridge_user);
}

#[tokio::test(flavor = "multi_thread")]
async fn f01_a_person_and_others_speak_in_turn_while_the_bridge_is_killed() {
    let linked = Linked::open(true).await;
    let (ann, bridge) = (linked.ann(), linked.scene.bridge_user.clone());
    let mut expected = Vec::new();
    for number in 0..24 {
        let (user, by) = match number % 3 {
            0 => (&linked.scene.tom, &bridge),
            _ => (&linked.scene.mary, &ann),
        };
        linked.say_as(&user.id, &format!("line {number}."));
        expected.push((by.clone(), number));
        if number % 3 == 2 {
            // Anywhere between the arrival of a message and its delivery.
            tokio::time::sleep(Duration::from_millis(40 * (number % 7))).await;
            linked.scene.bridge.kill().await.unwrap();
            linked.scene.bridge.launch().unwrap();
        }
    }
    linked.wait_in_room("line 23.").await;
    linked.scene.bridge.settle(PATIENCE).await.unwrap();
    let heard: Vec<(String, u64)> = linked
        .room()
        .into_iter()
        .filter_map(|(by, text)| {
            let number = text.split("line ").nth(1)?.split('.').next()?;
            Some((by, number.parse().ok()?))
        })
        .collect();
    let numbers: Vec<u64> = heard.iter().map(|(_, number)| *number).collect();
    assert_eq!(
        numbers,
        (0..24).collect::<Vec<_>>(),
        "lost, doubled or reordered"
    );
    // Tom never speaks as Ann; where her device was not up yet, the relay speaks for her.
    for ((by, number), (wanted, _)) in heard.iter().zip(&expected) {
        assert!(by == wanted || *by == bridge, "{number} by {by}");
    }
    assert!(heard.iter().any(|(by, _)| *by == ann));
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_a_login_of_a_person_is_made_once_and_changes_nothing_of_the_account() {
    let (_, scene) = scenario(true).await;
    let refused = log_in(&scene, "not the password").await.unwrap_err();
    assert!(
        refused.contains("does not accept this user name and password"),
        "{refused}"
    );
    assert_eq!(key_directories(&scene), 1);
    let ann = scene.ann.user_id();
    let words = ["logout", "--person", &ann];
    let nobody = format!("{:#}", scene.bridge.run_words(&words).await.unwrap_err());
    assert!(nobody.contains("is not logged in"), "{nobody}");
    let device = log_in(&scene, PASSWORD).await.unwrap();
    // No second device, whatever the password.
    assert_eq!(log_in(&scene, "not the password").await.unwrap(), device);
    assert_eq!(key_directories(&scene), 2);
    // Ann's client still has the account's identity, and signs with it.
    let own = scene.ann.device_id();
    assert!(!scene.ann.knows_signed(&ann, &device).await.unwrap());
    scene.ann.sign_own_device(&device).await.unwrap();
    assert!(scene.ann.knows_signed(&ann, &own).await.unwrap());
    // The relay's own device is logged out by another command.
    let words = ["logout", "--person", &scene.bridge_user];
    assert!(scene.bridge.run_words(&words).await.is_err());
}
