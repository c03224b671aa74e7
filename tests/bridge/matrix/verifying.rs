//! P08: the bridge's device is verified by emoji with a real second client, started from either side; whatever is not a
//! confirmation by people on both sides ends without a verification. For answers in chat see `devices`.

use footbridge_matrix::verify::{VerificationAnswer, VerificationStage};
use footbridge_testbed::client::{EmojiComparison, VerificationScreen};

use super::{trusting::first_held, *};

struct Pair {
    bridge: TestBridge,
    ann: TestClient,
    _files: tempfile::TempDir,
}

impl Pair {
    /// A bridge that listens, with Ann as its admin.
    async fn new(patience: Duration) -> Self {
        let synapse = Synapse::shared().await.unwrap();
        let (ann, files) = person(synapse, Identity::New).await;
        let mut bridge = TestBridge::new(synapse).await;
        bridge.config.admins = vec![ann.user_id().as_str().try_into().unwrap()];
        bridge.config.timeouts.verification = patience;
        bridge.login(None).await.unwrap();
        bridge.open(Trust::CrossSigned).await;
        bridge.listen_to(&[]);
        // As every client does that shares a room with the bridge.
        ann.learn(&bridge.user).await.unwrap();
        Self {
            bridge,
            ann,
            _files: files,
        }
    }

    async fn usual() -> Self {
        Self::new(Duration::from_mins(10)).await
    }

    fn stage(&self) -> Option<VerificationStage> {
        let stages = self.bridge.device().verifications();
        stages.stage(&self.ann.user_id())
    }

    fn answer(&self, answer: VerificationAnswer) -> bool {
        let stages = self.bridge.device().verifications();
        stages.answer(&self.ann.user_id(), answer)
    }

    /// Runs Ann's client until the bridge has reached this stage.
    async fn until(
        &self,
        flow: &str,
        wanted: impl Fn(&VerificationStage) -> bool,
    ) -> VerificationStage {
        let waited = timeout(LIMIT, async {
            loop {
                self.ann.sync(Duration::from_millis(200)).await.unwrap();
                let _shown = self.ann.screen(&self.bridge.user, flow).await;
                if let Some(stage) = self.stage().filter(|stage| wanted(stage)) {
                    return stage;
                }
            }
        });
        let stage = waited.await;
        stage.unwrap_or_else(|_| panic!("the bridge stays at {:?}", self.stage()))
    }

    async fn until_screen(
        &self,
        flow: &str,
        wanted: impl Fn(&VerificationScreen) -> bool,
    ) -> VerificationScreen {
        let mut seen = Vec::new();
        let waited = timeout(LIMIT, async {
            loop {
                seen.extend(self.ann.sync(Duration::from_millis(200)).await.unwrap());
                let screen = self.ann.screen(&self.bridge.user, flow).await;
                if let Some(screen) = screen.ok().filter(|screen| wanted(screen)) {
                    return screen;
                }
            }
        });
        let Ok(screen) = waited.await else {
            panic!(
                "Ann's client stays at {:?}, the bridge at {:?}; {seen:#?}",
                self.ann.screen(&self.bridge.user, flow).await,
                self.stage()
            )
        };
        screen
    }

    /// Both sides show the same emoji.
    async fn compare(&self, flow: &str) -> Vec<String> {
        let stage = self
            .until(flow, |stage| matches!(stage, VerificationStage::Compare(_)))
            .await;
        let VerificationStage::Compare(emoji) = stage else {
            unreachable!()
        };
        let here: Vec<String> = emoji.into_iter().map(|one| one.name).collect();
        let screen = self
            .until_screen(flow, |screen| {
                matches!(screen, VerificationScreen::Compare(_))
            })
            .await;
        assert_eq!(screen, VerificationScreen::Compare(here.clone()));
        assert_eq!(here.len(), 7);
        here
    }

    /// Both sides confirm, and both finish.
    async fn confirm(&self, flow: &str) {
        assert!(self.answer(VerificationAnswer::Same));
        let compared = self
            .ann
            .compared(&self.bridge.user, flow, EmojiComparison::Same);
        compared.await.unwrap();
        self.until(flow, |stage| *stage == VerificationStage::Done)
            .await;
        self.until_screen(flow, |screen| *screen == VerificationScreen::Done)
            .await;
    }

    /// Time passes without an answer from either side.
    async fn nobody_moves(&self, flow: &str) {
        let before = self.stage();
        for _ in 0..5 {
            self.ann.sync(Duration::from_millis(200)).await.unwrap();
            let _shown = self.ann.screen(&self.bridge.user, flow).await;
        }
        assert_eq!(self.stage(), before, "no stage passes by itself");
    }

    /// The bridge asks, and Ann accepts.
    async fn asked_by_the_bridge(&self) -> String {
        let ann = self.ann.user_id().as_str().try_into().unwrap();
        let ann: ruma::OwnedUserId = ann;
        self.bridge.device().ask_to_verify(&ann).await.unwrap();
        let asked = timeout(LIMIT, async {
            loop {
                let seen = self.ann.sync(Duration::from_millis(200)).await.unwrap();
                let asked = seen
                    .iter()
                    .find(|seen| seen.content["msgtype"] == "m.key.verification.request");
                if let Some(asked) = asked {
                    return asked.event_id.clone();
                }
                self.ann.join_invites().await.unwrap();
            }
        });
        let flow = asked.await.expect("Ann is asked");
        self.ann
            .accept_verification(&self.bridge.user, &flow)
            .await
            .unwrap();
        flow
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_begun_by_the_bridge_and_confirmed_on_both_sides() {
    let pair = Pair::usual().await;
    let flow = pair.asked_by_the_bridge().await;
    pair.compare(&flow).await;
    pair.nobody_moves(&flow).await;
    pair.confirm(&flow).await;
    assert!(
        !pair.answer(VerificationAnswer::Same),
        "a finished verification accepts no answer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_a_no_on_either_side_ends_it_on_both() {
    let pair = Pair::usual().await;
    let user = pair.bridge.user.clone();
    let flow = pair.asked_by_the_bridge().await;
    pair.compare(&flow).await;
    assert!(pair.answer(VerificationAnswer::Different));
    let cancelled = |stage: &VerificationStage| matches!(stage, VerificationStage::Cancelled(_));
    pair.until(&flow, cancelled).await;
    pair.until_screen(&flow, |screen| {
        matches!(screen, VerificationScreen::Cancelled(_))
    })
    .await;

    let flow = pair.ann.ask_to_verify(&user).await.unwrap();
    pair.until(&flow, |stage| *stage == VerificationStage::Requested)
        .await;
    assert!(pair.answer(VerificationAnswer::Begin));
    pair.compare(&flow).await;
    pair.ann
        .compared(&user, &flow, EmojiComparison::Different)
        .await
        .unwrap();
    pair.until(&flow, cancelled).await;
    pair.until_screen(&flow, |screen| {
        matches!(screen, VerificationScreen::Cancelled(_))
    })
    .await;
    assert!(!pair.ann.has_verified(&user).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_a_user_who_is_not_on_the_list_is_declined() {
    let pair = Pair::usual().await;
    let synapse = Synapse::shared().await.unwrap();
    let (eve, _files) = person(synapse, Identity::New).await;
    let flow = eve.ask_device_to_verify(&pair.bridge.user).await.unwrap();
    let waited = timeout(LIMIT, async {
        loop {
            eve.sync(Duration::from_millis(200)).await.unwrap();
            let screen = eve.screen(&pair.bridge.user, &flow).await.unwrap();
            if matches!(screen, VerificationScreen::Cancelled(_)) {
                return;
            }
        }
    });
    waited.await.expect("it is declined");
    assert!(pair.bridge.device().verifications().all().is_empty());
    let eve: ruma::OwnedUserId = eve.user_id().as_str().try_into().unwrap();
    let refused = pair.bridge.device().ask_to_verify(&eve).await;
    assert!(
        matches!(refused, Err(MatrixError::Identity(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_what_takes_too_long_ends_cleanly_on_both_sides() {
    let pair = Pair::new(Duration::from_secs(4)).await;
    let flow = pair.asked_by_the_bridge().await;
    let stage = pair
        .until(&flow, |stage| {
            matches!(stage, VerificationStage::Cancelled(_))
        })
        .await;
    assert_eq!(
        stage,
        VerificationStage::Cancelled("it took too long".into())
    );
    pair.until_screen(&flow, |screen| {
        matches!(screen, VerificationScreen::Cancelled(_))
    })
    .await;
    // A new verification can follow.
    let flow = pair.ann.ask_to_verify(&pair.bridge.user).await.unwrap();
    pair.until(&flow, |stage| *stage == VerificationStage::Requested)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_the_other_side_may_give_up() {
    let pair = Pair::usual().await;
    let first = pair.asked_by_the_bridge().await;
    assert!(pair.answer(VerificationAnswer::Different));
    // A client that starts a verification while the first one is in progress cancels both.
    pair.until_screen(&first, |screen| {
        matches!(screen, VerificationScreen::Cancelled(_))
    })
    .await;
    let room = pair.ann.direct_room(&pair.bridge.user).unwrap();
    let flow = pair.ann.ask_to_verify(&pair.bridge.user).await.unwrap();
    pair.until(&flow, |stage| *stage == VerificationStage::Requested)
        .await;
    let content = json!({
        "code": "m.timeout",
        "reason": "it took too long",
        "m.relates_to": {"rel_type": "m.reference", "event_id": flow},
    });
    pair.ann
        .send(&room, "m.key.verification.cancel", content)
        .await
        .unwrap();
    pair.until(&flow, |stage| {
        matches!(stage, VerificationStage::Cancelled(_))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p02_a_verified_identity_that_changes_is_held_until_an_admin_accepts_it() {
    let mut pair = Pair::usual().await;
    let flow = pair.asked_by_the_bridge().await;
    pair.compare(&flow).await;
    pair.confirm(&flow).await;
    let user = pair.bridge.user.clone();

    let room = pair
        .ann
        .create_room("A room", true, std::slice::from_ref(&user));
    let room = room.await.unwrap();
    let lane = pair.bridge.portal(&room).await;
    pair.bridge.rest().await;
    pair.bridge.listen(&room);
    wait_for_member(&pair.ann, &room, &user, "join").await;
    pair.bridge.entered(&room).await;
    pair.ann.say(&room, "verified").await.unwrap();
    assert_eq!(text_of(&pair.bridge.next(lane).await), "verified");

    pair.ann.replace_identity(PASSWORD).await.unwrap();
    // Her new identity has not verified the bridge, and her client asks her what to do.
    pair.ann.withdraw_verification(&user).await.unwrap();
    let held = first_held(&pair.bridge, &pair.ann, &room, lane).await;
    let ann = pair.ann.user_id();
    let known = pair.bridge.device().identities_of(&ann).await.unwrap();
    assert!(known.pinned.is_some(), "a verified identity is pinned");
    let [(key, 1)] = &known.changed[..] else {
        panic!("{known:?}")
    };
    let approved = pair.bridge.device().approve(&ann, key);
    let approved = approved.await.unwrap().unwrap();
    assert_eq!(approved.held, 1);
    assert_eq!(text_of(&pair.bridge.next(lane).await), held);
    pair.ann.say(&room, "believed again").await.unwrap();
    assert_eq!(text_of(&pair.bridge.next(lane).await), "believed again");
    pair.bridge.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p06_a_request_that_anybody_may_have_written_opens_no_room_and_sets_no_mark() {
    let synapse = Synapse::shared().await.unwrap();
    let mut bridge = TestBridge::new(synapse).await;
    let admin = synapse
        .register_session(&unique("admin"), PASSWORD)
        .await
        .unwrap();
    bridge.config.admins = vec![admin.user_id.as_str().try_into().unwrap()];
    bridge.login(None).await.unwrap();
    bridge.open(Trust::CrossSigned).await;
    let (ann, _files) = person(synapse, Identity::New).await;
    let invited = [bridge.user.clone()];
    let linked = ann.create_room("Linked", true, &invited).await.unwrap();
    let unlinked = ann.create_room("Unlinked", true, &invited).await.unwrap();
    let lane = bridge.portal(&linked).await;
    // The account is in both rooms; the unlinked one has no portal.
    for room in [&linked, &unlinked] {
        let own = bare::own(&bridge).await;
        raw(
            synapse,
            &own,
            "POST",
            &format!("rooms/{room}/join"),
            json!({}),
        )
        .await;
    }
    bridge.listen(&linked);
    bridge.entered(&linked).await;
    ann.invite(&unlinked, &admin.user_id).await.unwrap();
    raw(
        synapse,
        &admin,
        "POST",
        &format!("rooms/{unlinked}/join"),
        json!({}),
    )
    .await;
    let request = json!({
        "msgtype": "m.key.verification.request", "body": "verify", "to": bridge.user,
        "from_device": admin.device_id, "methods": ["m.sas.v1"],
    });
    let path = format!("rooms/{unlinked}/send/m.room.message/{}", unique("t"));
    raw(synapse, &admin, "PUT", &path, request).await;
    ann.sync(Duration::ZERO).await.unwrap();
    ann.say(&linked, "heard after it").await.unwrap();
    assert_eq!(text_of(&bridge.next(lane).await), "heard after it");
    let portals = bridge.store.portals().await.unwrap();
    assert!(
        portals
            .iter()
            .all(|portal| portal.room != Place::room(&unlinked))
    );
}
