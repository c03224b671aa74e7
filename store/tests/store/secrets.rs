//! What nobody finds on the disk, and what opens nowhere but where it was sealed.

use std::path::Path;

use footbridge_store::{AccountFace, Error, Millis, Payload, Secret};

use crate::ground::{Ground, NOW, arrival, copy, letter, sealed_letter, to_silo};

const CANARY: &[u8] = b"canary: the quick brown fox jumps over the lazy dog";

fn contains(directory: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

fn sealed(ground: &Ground, query: &str) -> Vec<u8> {
    ground.sql().query_row(query, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn no_letter_stands_on_the_disk_in_clear_and_none_at_all_after_delivery() {
    let ground = Ground::with_one_portal().await;
    let lane = to_silo(&ground.a);
    ground
        .accept(vec![arrival(
            &ground.room,
            "$1",
            Payload::Ready(CANARY.to_vec()),
        )])
        .await;
    let delivery = ground.ready(lane).await;
    assert_eq!(delivery.payload, CANARY);
    ground.store.planned(delivery.id, CANARY).await.unwrap();
    let letter = sealed(&ground, "SELECT payload FROM journal");
    let plan = sealed(&ground, "SELECT plan FROM outbox");
    let data = ground.data();
    assert!(
        contains(&data, &letter) && contains(&data, &plan),
        "the search finds what is there"
    );
    assert!(!contains(&data, CANARY));

    ground
        .store
        .step_done(delivery.id, Some(&copy("g1")), None, true, NOW)
        .await
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    // Any later call, here the one with which an idle lane asks, tidies up.
    ground.store.head(lane, NOW).await.unwrap();
    for needle in [CANARY, &letter, &plan] {
        assert!(!contains(&data, needle));
    }
}

#[tokio::test]
async fn a_letter_stays_until_its_last_debt_is_paid() {
    let ground = Ground::new().await;
    ground.accept(vec![letter(&ground.room, "$1")]).await;
    ground.deliver(to_silo(&ground.a), "a1").await;
    assert_eq!(ground.ready(to_silo(&ground.b)).await.payload, b"$1");
    ground.deliver(to_silo(&ground.b), "b1").await;
    let left: i64 = ground
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_event_that_waited_for_its_key_is_gone_once_it_is_filled() {
    let ground = Ground::with_one_portal().await;
    ground
        .accept(vec![sealed_letter(&ground.room, "$1", NOW.0 + 1)])
        .await;
    let raw = sealed(&ground, "SELECT payload FROM journal");
    let entry = ground.store.waiting(None).await.unwrap()[0].entry;
    ground
        .store
        .fill(entry, Payload::Ready(CANARY.to_vec()), NOW)
        .await
        .unwrap();
    ground.store.checkpoint().await.unwrap();
    assert!(!contains(&ground.data(), &raw));
    assert!(!contains(&ground.data(), CANARY));
}

#[tokio::test]
async fn a_letter_moved_to_another_row_does_not_open() {
    let ground = Ground::with_one_portal().await;
    ground
        .accept(vec![letter(&ground.room, "$1"), letter(&ground.room, "$2")])
        .await;
    let moved = "UPDATE journal SET payload = (SELECT payload FROM journal WHERE fact = '$2')
                 WHERE fact = '$1'";
    ground.sql().execute(moved, []).unwrap();
    let refused = ground.store.head(to_silo(&ground.a), NOW).await;
    assert!(
        matches!(
            refused,
            Err(Error::Corrupt {
                table: "journal",
                row: 1
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_letter_moved_into_the_column_of_the_plan_does_not_open() {
    let ground = Ground::with_one_portal().await;
    ground.accept(vec![letter(&ground.room, "$1")]).await;
    let moved = "UPDATE outbox SET plan = (SELECT payload FROM journal)";
    ground.sql().execute(moved, []).unwrap();
    let refused = ground.store.head(to_silo(&ground.a), NOW).await;
    assert!(
        matches!(
            refused,
            Err(Error::Corrupt {
                table: "outbox",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_letter_cut_short_or_lost_is_a_damaged_row_and_no_panic() {
    for damage in ["x''", "x'00112233'", "substr(payload, 1, 30)", "NULL"] {
        let ground = Ground::with_one_portal().await;
        ground.accept(vec![letter(&ground.room, "$1")]).await;
        let update = format!("UPDATE journal SET payload = {damage}");
        ground.sql().execute(&update, []).unwrap();
        let refused = ground.store.head(to_silo(&ground.a), NOW).await;
        assert!(
            matches!(refused, Err(Error::Corrupt { .. })),
            "{damage}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn the_account_keeps_its_secrets_sealed_and_its_face_open() {
    let ground = Ground::new().await;
    let face = AccountFace {
        user_id: "@bridge:example.org".to_owned(),
        device_id: "DEVICE".to_owned(),
        homeserver: "https://matrix.example.org".to_owned(),
        ed25519: None,
        master_key: None,
    };
    assert!(ground.store.account().await.unwrap().is_none());
    let session = Secret(CANARY.to_vec());
    assert!(
        ground
            .store
            .save_account(&face, &session, NOW)
            .await
            .unwrap()
    );
    let other = Secret(b"other".to_vec());
    assert!(
        !ground
            .store
            .save_account(&face, &other, Millis(9))
            .await
            .unwrap()
    );
    ground
        .store
        .save_recovery_key(&Secret(CANARY.to_vec()))
        .await
        .unwrap();
    ground
        .store
        .save_fingerprints("ed", Some("master"))
        .await
        .unwrap();
    assert!(!contains(&ground.data(), CANARY));

    let ground = ground.restart().await;
    let account = ground.store.account().await.unwrap().unwrap();
    assert_eq!(account.session.0, CANARY);
    assert_eq!(account.recovery_key.as_ref().unwrap().0, CANARY);
    let face = AccountFace {
        ed25519: Some("ed".to_owned()),
        master_key: Some("master".to_owned()),
        ..face
    };
    assert_eq!(account.face, face);
    let peek = footbridge_store::Store::peek(&ground.data()).await.unwrap();
    assert_eq!(peek.account, Some(face));

    ground
        .store
        .save_session(&Secret(b"refreshed".to_vec()))
        .await
        .unwrap();
    assert_eq!(
        ground.store.account().await.unwrap().unwrap().session.0,
        b"refreshed"
    );
    ground.store.forget_account().await.unwrap();
    assert!(ground.store.account().await.unwrap().is_none());
    assert_eq!(ground.store.portals().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_session_moved_into_the_column_of_the_recovery_key_does_not_open() {
    let ground = Ground::new().await;
    let face = AccountFace {
        user_id: "@bridge:example.org".to_owned(),
        device_id: "DEVICE".to_owned(),
        homeserver: "https://matrix.example.org".to_owned(),
        ed25519: None,
        master_key: None,
    };
    let session = Secret(CANARY.to_vec());
    ground
        .store
        .save_account(&face, &session, NOW)
        .await
        .unwrap();
    let moved = "UPDATE account SET recovery_key = session";
    ground.sql().execute(moved, []).unwrap();
    let refused = ground.store.account().await;
    assert!(
        matches!(
            refused,
            Err(Error::Corrupt {
                table: "account",
                row: 1
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn debug_output_tells_no_secret() {
    let ground = Ground::with_one_portal().await;
    let text = String::from_utf8(CANARY.to_vec()).unwrap();
    let raw = arrival(
        &ground.room,
        "$1",
        Payload::Waiting {
            session: "s".to_owned(),
            raw: CANARY.to_vec(),
            hold_until: NOW,
        },
    );
    ground
        .accept(vec![
            raw,
            arrival(&ground.room, "$2", Payload::Ready(CANARY.to_vec())),
        ])
        .await;
    let waiting = ground.store.waiting(None).await.unwrap();
    let head = ground.store.head(to_silo(&ground.a), NOW).await.unwrap();
    let shown = format!(
        "{waiting:?} {head:?} {:?} {:?}",
        ground.store,
        Secret(CANARY.to_vec())
    );
    let bytes = format!("{CANARY:?}");
    assert!(!shown.contains(&text) && !shown.contains(&bytes[1..20]));
}
