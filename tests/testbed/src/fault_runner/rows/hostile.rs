//! A homeserver that lies to the bridge: whatever it sends, nothing forged is relayed, nothing is sent unencrypted, and
//! each attempt is counted.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::{Identity, TestClient};
use anyhow::{Context as _, ensure};
use axum::http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::{Context, FaultScenario, Outcome, Row, ScenarioOptions};
use crate::proxy::{Fault, KeyView, Matcher, Page, Rewrite, Rule};
use crate::scenario::{PASSWORD, RoomAndChannel};

/// How long anything may take to become visible.
const TIMEOUT: Duration = Duration::from_mins(2);

pub(super) fn rows() -> Vec<Row> {
    vec![Row {
        id: "F38",
        title: "a homeserver that lies",
        help: "Forged, repeated, moved and unencrypted events, encryption that is denied or redacted, unsigned \
               devices, withheld keys: for each attack what was relayed, what was sent unencrypted, and which counter \
               rose.",
        run: |context| Box::pin(lying_homeserver(context)),
    }]
}

async fn lying_homeserver(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let scenario = HostileScenario::open(context).await?;
    let mut lines = vec![
        scenario.honest().await?,
        scenario.plaintext().await?,
        scenario.repeated().await?,
        scenario
            .replayed("replayed under a new event id", |event| {
                set(event, "event_id", forged_id().into());
            })
            .await?,
        scenario
            .replayed("replayed with another time", |event| {
                let sent_at = event.get("origin_server_ts").and_then(Value::as_i64);
                set(event, "origin_server_ts", json!(sent_at.unwrap_or(0) + 1));
            })
            .await?,
        scenario.wrong_sender().await?,
        scenario.moved().await?,
        scenario.forged_relation().await?,
        scenario.ghost_device().await?,
    ];
    if context.pick(false, true, true) {
        lines.push(scenario.no_device_lists().await?);
    }
    lines.push(scenario.switched_identity().await?);
    // These come last: they concern the bridge's knowledge that the room is encrypted.
    lines.extend([
        scenario.no_one_time_keys().await?,
        scenario.redacted_encryption().await?,
        scenario.denied_encryption().await?,
        scenario.forgotten_encryption().await?,
    ]);
    let mut outcome = scenario.rig.finish("F38").await?;
    outcome.injections = lines.len().try_into()?;
    for line in &lines {
        if !line.is_good() {
            outcome.object(&format!("{}: {}", line.attack, line.words()));
        }
    }
    outcome.heading = HEADING.map(str::to_owned).to_vec();
    outcome.lines = lines.iter().map(AttackResult::cells).collect();
    Ok(outcome)
}

const HEADING: [&str; 6] = [
    "attack",
    "relayed",
    "unencrypted",
    "counter",
    "rose by",
    "verdict",
];

/// Whether this is the bridge's 🔒 reaction to an event of an unsigned device, without other content: reactions are
/// never encrypted.
fn is_lock(event_type: &str, content: &Value) -> bool {
    let relation = &content["m.relates_to"];
    let sign = json!({
        "rel_type": "m.annotation", "event_id": relation["event_id"], "key": "🔒",
    });
    let fields = content.as_object().into_iter().flatten();
    let mut others = fields.filter(|(name, _)| *name != "m.relates_to");
    event_type == "m.reaction"
        && *relation == sign
        && others.all(|(name, _)| name == "org.footbridge.delivery")
}

/// The result of one attack.
struct AttackResult {
    attack: &'static str,
    /// Whether the homeserver lied as often as it should.
    reported: bool,
    /// Copies that should not be there.
    relayed: usize,
    /// Unencrypted events of the bridge in an encrypted room.
    clear: usize,
    /// The counter that must rise, if any.
    counter: Option<&'static str>,
    /// Every counter that rose.
    rose: BTreeMap<String, u64>,
    /// What else failed.
    objection: Option<&'static str>,
}

impl AttackResult {
    fn is_good(&self) -> bool {
        let right = match self.counter {
            Some(counter) => self.rose.len() == 1 && self.rose.contains_key(counter),
            None => self.rose.is_empty(),
        };
        self.reported && right && self.relayed == 0 && self.clear == 0 && self.objection.is_none()
    }

    fn words(&self) -> &'static str {
        match self.objection {
            Some(objection) => objection,
            None if self.is_good() => "resisted",
            None if !self.reported => "the homeserver did not lie",
            None if self.relayed + self.clear > 0 => "LEAKED",
            None => "another counter",
        }
    }

    fn cells(&self) -> Vec<String> {
        let rose: Vec<_> = self
            .rose
            .iter()
            .map(|(class, by)| {
                if Some(class.as_str()) == self.counter {
                    by.to_string()
                } else {
                    format!("{class} {by}")
                }
            })
            .collect();
        vec![
            self.attack.to_owned(),
            self.relayed.to_string(),
            self.clear.to_string(),
            self.counter.unwrap_or("-").to_owned(),
            if rose.is_empty() {
                "0".to_owned()
            } else {
                rose.join(", ")
            },
            self.words().to_owned(),
        ]
    }
}

/// The counts before and after an attack.
struct SecurityCounts {
    counters: BTreeMap<String, u64>,
    clear: usize,
}

/// Two encrypted rooms with a channel each, Ann and Bob in both, and a proxy that lies to the bridge.
struct HostileScenario<'a> {
    context: &'a Context<'a>,
    rig: FaultScenario,
    bob: TestClient,
    files: TempDir,
}

impl<'a> HostileScenario<'a> {
    async fn open(context: &'a Context<'a>) -> anyhow::Result<Self> {
        let rig = FaultScenario::open(
            context,
            ScenarioOptions {
                portals: 2,
                matrix: "key_wait = \"1s\"",
                ..ScenarioOptions::default()
            },
        )
        .await?;
        let files = tempfile::tempdir()?;
        let name = format!("bob{:08x}", rand::random::<u32>());
        let user = context.synapse.register(&name, PASSWORD).await?;
        let home = files.path().join("bob");
        let bob = TestClient::login(&context.synapse.url(), &name, PASSWORD, &home).await?;
        for pair in &rig.scene.pairs {
            rig.scene.ann.invite(&pair.room, &user).await?;
            bob.join(&pair.room).await?;
        }
        bob.sync(Duration::ZERO).await?;
        let scenario = Self {
            context,
            rig,
            bob,
            files,
        };
        scenario.carry().await?;
        Ok(scenario)
    }

    /// Sends a message each way in every portal. When they have arrived, the bridge has processed everything before
    /// them.
    async fn carry(&self) -> anyhow::Result<()> {
        for turn in 0..self.rig.traffic.portals() {
            self.rig.traffic.say_in_room(&self.rig.scene, turn).await?;
            self.rig.traffic.say_in_channel(&self.rig.scene, turn);
        }
        self.rig.arrive(TIMEOUT).await;
        let missing = self.rig.traffic.missing(&self.rig.scene);
        ensure!(
            missing == 0,
            "{missing} messages did not arrive\n{}",
            self.rig.scene.bridge.logs_end()
        );
        Ok(())
    }

    /// Ann sends a unique text; returns it and its event as the homeserver stores it.
    async fn marked_message(&self) -> anyhow::Result<(String, Value)> {
        let text = format!("canary{:016x}", rand::random::<u64>());
        let room = &self.rig.scene.stage.room;
        let id = self.rig.scene.ann.say(room, &text).await?;
        self.wait("the marked message arrives", async || {
            Ok(self.copies(&text) == 1)
        })
        .await?;
        let events = self.context.synapse.events(room).await?;
        let event = events.iter().find(|event| event.event_id == id);
        let event = event.context("the homeserver has not stored the event")?;
        let ciphertext = json!({
            "type": event.event_type,
            "event_id": id,
            "sender": event.sender,
            "origin_server_ts": event.json.get("origin_server_ts"),
            "content": event.json.get("content"),
        });
        Ok((text, ciphertext))
    }

    /// How many messages of the bridge in any channel contain this.
    fn copies(&self, text: &str) -> usize {
        let (sim, bot) = (&self.rig.scene.sim, &self.rig.scene.bot);
        let channels = self.rig.scene.pairs.iter();
        let messages = channels.flat_map(|pair| sim.messages(&pair.channel.id));
        messages
            .filter(|message| message.from_user_id == bot.id && message.text.contains(text))
            .count()
    }

    async fn look(&self) -> anyhow::Result<SecurityCounts> {
        let mut clear = 0;
        for pair in &self.rig.scene.pairs {
            let events = self.context.synapse.events(&pair.room).await?;
            let clear_ones = events.iter().filter(|event| {
                event.sender == self.rig.scene.bridge_user
                    && event.json.get("state_key").is_none()
                    && event.event_type != "m.room.encrypted"
                    && !event
                        .json
                        .get("content")
                        .is_some_and(|content| is_lock(&event.event_type, content))
            });
            clear += clear_ones.count();
        }
        let metrics = self.rig.scene.bridge.metrics().await?;
        Ok(SecurityCounts {
            counters: metrics.by_label("footbridge_security_total", "class"),
            clear,
        })
    }

    /// The result of an attack; `spare` is the number of copies that should not be there.
    async fn line(
        &self,
        attack: &'static str,
        counter: Option<&'static str>,
        before: &SecurityCounts,
        spare: usize,
    ) -> anyhow::Result<AttackResult> {
        self.context.tell(attack);
        let after = self.look().await?;
        let rose = after.counters.into_iter().filter_map(|(class, count)| {
            let was = before.counters.get(&class).copied().unwrap_or(0);
            (count > was).then(|| (class, count - was))
        });
        Ok(AttackResult {
            attack,
            reported: true,
            relayed: spare,
            clear: after.clear - before.clear,
            counter,
            rose: rose.collect(),
            objection: None,
        })
    }

    async fn wait(
        &self,
        what: &str,
        is_so: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !is_so().await? {
            ensure!(
                Instant::now() < deadline,
                "waited in vain: {what}\n{}",
                self.rig.scene.bridge.logs_end()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Applies one rewrite and sends messages after it. Returns whether it was applied exactly once.
    async fn told(&self, name: &'static str, rewrite: Rewrite) -> anyhow::Result<bool> {
        let proxy = self.rig.homeserver()?;
        let count = || proxy.injected().get(name).copied().unwrap_or(0);
        let before = count();
        proxy.set_rewrite(rewrite);
        self.carry().await?;
        Ok(count() == before + 1)
    }

    fn room(&self) -> &str {
        &self.rig.scene.stage.room
    }

    fn other(&self) -> anyhow::Result<&RoomAndChannel> {
        self.rig
            .scene
            .pairs
            .get(1)
            .context("there is only one room")
    }

    async fn honest(&self) -> anyhow::Result<AttackResult> {
        let before = self.look().await?;
        let (text, _) = self.marked_message().await?;
        self.carry().await?;
        let spare = self.copies(&text) - 1;
        self.line("none, to compare with", None, &before, spare)
            .await
    }

    async fn plaintext(&self) -> anyhow::Result<AttackResult> {
        let before = self.look().await?;
        let text = format!("canary{:016x}", rand::random::<u64>());
        let event = json!({
            "type": "m.room.message",
            "event_id": forged_id(),
            "sender": self.rig.scene.ann.user_id(),
            "origin_server_ts": now_ms(),
            "content": {"msgtype": "m.text", "body": text},
        });
        let rewrite = Rewrite::event_in("plaintext", self.room(), event);
        let told = self.told("plaintext", rewrite).await?;
        let counter = Some("plaintext-in-encrypted-room");
        let spare = self.copies(&text);
        let line = self.line("an unencrypted event", counter, &before, spare);
        Ok(AttackResult {
            reported: told,
            ..line.await?
        })
    }

    /// The same event several times is no attack, and results in one message.
    async fn repeated(&self) -> anyhow::Result<AttackResult> {
        let (text, event) = self.marked_message().await?;
        // So that the event is no longer the newest one, which the bridge recognises by its id alone.
        self.carry().await?;
        let before = self.look().await?;
        let mut told = true;
        for _ in 0..self.context.pick(1, 3, 10) {
            let rewrite = Rewrite::event_in("repeated", self.room(), event.clone());
            told &= self.told("repeated", rewrite).await?;
        }
        let spare = self.copies(&text) - 1;
        let line = self.line("the same event again and again", None, &before, spare);
        Ok(AttackResult {
            reported: told,
            ..line.await?
        })
    }

    async fn replayed(
        &self,
        attack: &'static str,
        change: impl Fn(&mut Value),
    ) -> anyhow::Result<AttackResult> {
        let (text, mut event) = self.marked_message().await?;
        self.carry().await?;
        change(&mut event);
        let before = self.look().await?;
        let rewrite = Rewrite::event_in("replayed", self.room(), event);
        let told = self.told("replayed", rewrite).await?;
        let spare = self.copies(&text) - 1;
        let line = self.line(attack, Some("replayed"), &before, spare);
        Ok(AttackResult {
            reported: told,
            ..line.await?
        })
    }

    async fn wrong_sender(&self) -> anyhow::Result<AttackResult> {
        let (text, mut event) = self.marked_message().await?;
        set(&mut event, "event_id", forged_id().into());
        set(&mut event, "sender", self.bob.user_id().into());
        let before = self.look().await?;
        let rewrite = Rewrite::event_in("wrong sender", self.room(), event);
        let told = self.told("wrong sender", rewrite).await?;
        let spare = self.copies(&text) - 1;
        let counter = Some("sender-mismatch");
        let line = self.line("somebody else as the sender", counter, &before, spare);
        Ok(AttackResult {
            reported: told,
            ..line.await?
        })
    }

    async fn moved(&self) -> anyhow::Result<AttackResult> {
        let (text, mut event) = self.marked_message().await?;
        set(&mut event, "event_id", forged_id().into());
        let before = self.look().await?;
        let rewrite = Rewrite::event_in("moved", &self.other()?.room, event);
        let told = self.told("moved", rewrite).await?;
        let spare = self.copies(&text) - 1;
        let line = self.line(
            "moved to another room",
            Some("foreign-room"),
            &before,
            spare,
        );
        Ok(AttackResult {
            reported: told,
            ..line.await?
        })
    }

    /// Relations are outside of the ciphertext: the homeserver makes Ann's message an edit of Bob's.
    async fn forged_relation(&self) -> anyhow::Result<AttackResult> {
        let target = format!("canary{:016x}", rand::random::<u64>());
        let id = self.bob.say(self.room(), &target).await?;
        self.wait("Bob's words arrive", async || Ok(self.copies(&target) == 1))
            .await?;
        let before = self.look().await?;
        let (room, ann) = (self.room().to_owned(), self.rig.scene.ann.user_id());
        let syncs = Matcher::of(Method::GET).with("/sync");
        self.rig.homeserver()?.set_rewrite(Rewrite::once(
            "forged relation",
            syncs,
            move |answer| {
                let events = answer
                    .get_mut("rooms")
                    .and_then(|rooms| rooms.get_mut("join")?.get_mut(&room))
                    .and_then(|room| room.pointer_mut("/timeline/events")?.as_array_mut());
                let forged = events.into_iter().flatten().find(|event| {
                    event.get("type") == Some(&json!("m.room.encrypted"))
                        && event.get("sender") == Some(&json!(ann))
                });
                let Some(event) = forged else { return false };
                let relation = json!({"rel_type": "m.replace", "event_id": id});
                let Some(content) = event.get_mut("content") else {
                    return false;
                };
                set(content, "m.relates_to", relation);
                true
            },
        ));
        let text = format!("canary{:016x}", rand::random::<u64>());
        self.rig.scene.ann.say(self.room(), &text).await?;
        self.carry().await?;
        let told = self
            .rig
            .homeserver()?
            .injected()
            .contains_key("forged relation");
        let gone = self.copies(&target) != 1;
        let spare = self.copies(&text);
        let line = self.line("a forged relation", None, &before, spare);
        Ok(AttackResult {
            reported: told,
            objection: gone.then_some("it edited another sender's message"),
            ..line.await?
        })
    }

    /// A device of Ann's account that she did not sign: anybody with her password can add one, and so can her
    /// homeserver.
    async fn unsigned_device(&self, name: &str) -> anyhow::Result<TestClient> {
        let user = self.rig.scene.ann.user_id();
        let localpart = user.trim_start_matches('@').split(':').next();
        let home = self.files.path().join(name);
        let device = TestClient::login_as(
            &self.context.synapse.url(),
            localpart.unwrap_or_default(),
            PASSWORD,
            &home,
            Identity::None,
        )
        .await?;
        device.sync(Duration::ZERO).await?;
        Ok(device)
    }

    /// A message of the unsigned device is not relayed, and the device cannot decrypt the bridge's messages.
    async fn check_unsigned_device(
        &self,
        attack: &'static str,
        device: &TestClient,
    ) -> anyhow::Result<AttackResult> {
        let before = self.look().await?;
        let counter = "untrusted-device";
        let was = before.counters.get(counter).copied().unwrap_or(0);
        let text = format!("canary{:016x}", rand::random::<u64>());
        device.say(self.room(), &text).await?;
        self.carry().await?;
        self.wait("the unsigned device's message is refused", async || {
            let now = self.look().await?.counters.get(counter).copied();
            Ok(now.unwrap_or(0) > was)
        })
        .await?;
        let objection = self.read_by(device).await?;
        let spare = self.copies(&text);
        let line = self.line(attack, Some(counter), &before, spare);
        Ok(AttackResult {
            objection,
            ..line.await?
        })
    }

    /// An objection, unless this client received events of the bridge and could decrypt none of them.
    async fn read_by(&self, device: &TestClient) -> anyhow::Result<Option<&'static str>> {
        let (mut closed, mut open) = (0, 0);
        for seen in device.sync(Duration::ZERO).await? {
            if seen.sender == self.rig.scene.bridge_user && seen.encrypted {
                if seen.undecryptable {
                    closed += 1;
                } else {
                    open += 1;
                }
            }
        }
        Ok(match (closed, open) {
            (_, 1..) => Some("the device received room keys"),
            (0, _) => Some("the device received no encrypted events"),
            _ => None,
        })
    }

    async fn ghost_device(&self) -> anyhow::Result<AttackResult> {
        let device = self.unsigned_device("ghost").await?;
        self.check_unsigned_device("a device that its owner never signed", &device)
            .await
    }

    /// The homeserver adds a device for Bob that is signed by a forged identity, waits until it has shared a room key,
    /// and reports Bob's own identity again. Bob may pause the portal, and the forged device tries to.
    async fn switched_identity(&self) -> anyhow::Result<AttackResult> {
        let proxy = self.rig.homeserver()?;
        let bobs = self.bob.user_id();
        self.empower(&bobs).await?;
        let text = format!("canary{:016x}", rand::random::<u64>());
        self.bob.say(self.room(), &text).await?;
        self.wait("Bob's message is relayed", async || {
            Ok(self.copies(&text) == 1)
        })
        .await?;
        let keys = KeyView::of(&bobs, proxy);
        keys.turn(proxy, false);
        self.carry().await?;
        keys.looked().await?;

        let before = self.look().await?;
        let counter = "identity-changed";
        let held = async |wanted: u64| {
            self.wait("the message is held", async || {
                let now = self.look().await?.counters.get(counter).copied();
                let was = before.counters.get(counter).copied();
                Ok(now.unwrap_or(0) >= was.unwrap_or(0) + wanted)
            })
            .await
        };
        let localpart = bobs.trim_start_matches('@').split(':').next();
        let home = self.files.path().join("mallory");
        let url = self.context.synapse.url();
        let mallory =
            TestClient::login(&url, localpart.unwrap_or_default(), PASSWORD, &home).await?;
        let forged = format!("canary{:016x}", rand::random::<u64>());
        mallory.say(self.room(), &forged).await?;
        held(1).await?;
        keys.turn(proxy, true);
        self.carry().await?;
        keys.looked().await?;
        mallory.say(self.room(), &forged).await?;
        mallory.say(self.room(), "!bridge pause").await?;
        // If the bridge had obeyed, nothing would arrive any more.
        self.carry().await?;
        held(3).await?;
        self.carry().await?;
        let told = proxy.injected().contains_key("old keys");
        proxy.clear();
        self.rig.held.fetch_add(3, Ordering::Relaxed);
        let objection = self.read_by(&mallory).await?;
        let spare = self.copies(&forged);
        let attack = "a forged identity with its own device, and back";
        let line = self.line(attack, Some(counter), &before, spare);
        Ok(AttackResult {
            reported: told,
            objection,
            ..line.await?
        })
    }

    /// Gives a user the same power level as Ann in the room.
    async fn empower(&self, user: &str) -> anyhow::Result<()> {
        let kind = "m.room.power_levels";
        let events = self.context.synapse.events(self.room()).await?;
        let levels = events.iter().rfind(|event| event.event_type == kind);
        let levels = levels.and_then(|event| event.json.get("content"));
        let mut levels = levels.context("the room has no power levels")?.clone();
        let mut users = levels.get("users").cloned().unwrap_or_else(|| json!({}));
        set(&mut users, user, json!(100));
        set(&mut levels, "users", users);
        let ann = &self.rig.scene.ann;
        ann.send_state(self.room(), (kind, ""), levels).await?;
        Ok(())
    }

    async fn no_device_lists(&self) -> anyhow::Result<AttackResult> {
        let syncs = Matcher::of(Method::GET).with("/sync");
        let proxy = self.rig.homeserver()?;
        proxy.set_rewrite(Rewrite::always("device lists", syncs, |answer| {
            answer
                .as_object_mut()
                .is_some_and(|answer| answer.remove("device_lists").is_some())
        }));
        let device = self.unsigned_device("unlisted").await?;
        let line = self
            .check_unsigned_device("device lists held back", &device)
            .await?;
        let told = proxy.injected().contains_key("device lists");
        proxy.clear();
        Ok(AttackResult {
            reported: told,
            ..line
        })
    }

    /// Carol joins the room, and the homeserver has no one-time keys of hers for the bridge.
    async fn no_one_time_keys(&self) -> anyhow::Result<AttackResult> {
        let before = self.look().await?;
        let proxy = self.rig.homeserver()?;
        let claims = Matcher::of(Method::POST).with("/keys/claim");
        proxy.set_rewrite(Rewrite::always("one-time keys", claims, |answer| {
            set(answer, "one_time_keys", json!({}));
            true
        }));
        let name = format!("carol{:08x}", rand::random::<u32>());
        let user = self.context.synapse.register(&name, PASSWORD).await?;
        let home = self.files.path().join("carol");
        let carol = TestClient::login(&self.context.synapse.url(), &name, PASSWORD, &home).await?;
        self.rig.scene.ann.invite(self.room(), &user).await?;
        carol.join(self.room()).await?;
        self.carry().await?;
        let told = proxy.injected().contains_key("one-time keys");
        proxy.clear();
        let seen = carol.sync(Duration::ZERO).await?;
        let of_bridge = |seen: &&crate::client::SeenEvent| {
            seen.sender == self.rig.scene.bridge_user
                && seen.event_type != "m.room.member"
                && !is_lock(&seen.event_type, &seen.content)
        };
        let readable = seen
            .iter()
            .filter(of_bridge)
            .any(|seen| !seen.undecryptable);
        let line = self.line("one-time keys withheld", None, &before, 0);
        let line = AttackResult {
            reported: told,
            objection: readable.then_some("an event was readable without a key"),
            ..line.await?
        };
        carol.leave(self.room()).await?;
        Ok(line)
    }

    async fn redacted_encryption(&self) -> anyhow::Result<AttackResult> {
        let before = self.look().await?;
        let events = self.context.synapse.events(self.room()).await?;
        let encryption = events
            .iter()
            .find(|event| event.event_type == "m.room.encryption")
            .context("the room has no encryption event")?;
        let ann = &self.rig.scene.ann;
        ann.redact(self.room(), &encryption.event_id).await?;
        self.carry().await?;
        self.rig.kill().await?;
        self.rig.scene.bridge.wait_ready().await?;
        self.carry().await?;
        let before = SecurityCounts {
            counters: BTreeMap::new(),
            ..before
        };
        self.line("the encryption event redacted", None, &before, 0)
            .await
    }

    fn deny(&self) -> anyhow::Result<()> {
        let asks = Matcher::of(Method::GET).with("/state/m.room.encryption");
        let denied = Fault::status(404, Page::Matrix);
        self.rig
            .homeserver()?
            .add(Rule::always("denied", asks, denied));
        Ok(())
    }

    async fn denied_encryption(&self) -> anyhow::Result<AttackResult> {
        self.deny()?;
        self.rig.kill().await?;
        self.rig.scene.bridge.wait_ready().await?;
        let before = self.look().await?;
        self.carry().await?;
        self.rig.homeserver()?.clear();
        self.line("encryption answered by 404", None, &before, 0)
            .await
    }

    /// The SDK has lost its data about rooms, and the homeserver denies that any is encrypted.
    async fn forgotten_encryption(&self) -> anyhow::Result<AttackResult> {
        let bridge = &self.rig.scene.bridge;
        bridge.terminate().await?;
        let state = bridge.data_directory().join("devices/1");
        let aside = self.files.path().join("aside");
        std::fs::create_dir_all(&aside)?;
        let of_state = |from: &std::path::Path| -> anyhow::Result<Vec<std::path::PathBuf>> {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(from)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with("matrix-sdk-state") {
                    found.push(path.clone());
                }
            }
            Ok(found)
        };
        let swap = |from: &std::path::Path, to: &std::path::Path| -> anyhow::Result<()> {
            for path in of_state(to)? {
                std::fs::remove_file(path)?;
            }
            for path in of_state(from)? {
                let name = path.file_name().unwrap_or_default();
                std::fs::copy(&path, to.join(name))?;
                std::fs::remove_file(&path)?;
            }
            Ok(())
        };
        for path in of_state(&state)? {
            let name = path.file_name().unwrap_or_default();
            std::fs::copy(&path, aside.join(name))?;
        }
        forget_rooms(&state.join("matrix-sdk-state.sqlite3"))?;
        self.deny()?;
        self.rig.launch()?;
        bridge.wait_ready().await?;
        let before = self.look().await?;
        // The bridge learns of a room again only when something happens in it.
        self.rig.traffic.say_in_room(&self.rig.scene, 0).await?;
        self.rig.traffic.say_in_channel(&self.rig.scene, 0);
        self.wait("the send is held", async || {
            let counters = self.look().await?.counters;
            Ok(counters.get("downgrade").is_some_and(|count| *count > 0))
        })
        .await?;
        let line = self.line(
            "encryption forgotten, and denied",
            Some("downgrade"),
            &before,
            0,
        );
        let line = line.await?;
        bridge.terminate().await?;
        swap(&aside, &state)?;
        self.rig.homeserver()?.clear();
        self.rig.launch()?;
        bridge.wait_ready().await?;
        self.carry().await?;
        let after = self.look().await?;
        Ok(AttackResult {
            clear: line.clear.max(after.clear - before.clear),
            ..line
        })
    }
}

/// Deletes the SDK's data about rooms from its database: the bridge refuses to start if the file is missing.
fn forget_rooms(database: &std::path::Path) -> anyhow::Result<()> {
    let connection = rusqlite::Connection::open(database)?;
    for table in ["room_info", "state_event", "member", "profile"] {
        connection.execute(&format!("DELETE FROM {table}"), [])?;
    }
    Ok(())
}

/// Sets one field of an object.
fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

/// An event id that no homeserver assigned.
fn forged_id() -> String {
    format!("${:016x}forged", rand::random::<u64>())
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
