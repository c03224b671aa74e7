//! What the disk must not show, and sealed values that open only in their own cells.

use std::path::Path;

use footbridge_store::{
    Accepted, AccountInfo, AccountRole, Arrival, Batch, Error, FailureNotice, Payload, PeerClaim,
    ReactionChange, RemoteId, ScreenResult, SecretBytes, Undelivered,
};

use crate::support::{
    Fixture, NOW, arrival, copy, payload, to_matrix, to_silo, undecryptable_arrival,
};

const CANARY: &[u8] = b"canary: the quick brown fox jumps over the lazy dog";

fn contains(directory: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

fn sealed(fixture: &Fixture, query: &str) -> Vec<u8> {
    fixture
        .sql()
        .query_row(query, [], |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn no_payload_is_on_disk_unsealed_and_none_at_all_after_delivery() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    fixture
        .accept(vec![arrival(
            &fixture.room,
            "$1",
            Payload::Ready(CANARY.to_vec()),
        )])
        .await;
    let delivery = fixture.ready(lane).await;
    assert_eq!(delivery.payload, CANARY);
    fixture.store.save_plan(delivery.id, CANARY).await.unwrap();
    let payload = sealed(&fixture, "SELECT payload FROM journal");
    let plan = sealed(&fixture, "SELECT plan FROM outbox");
    let data = fixture.data();
    assert!(
        contains(&data, &payload) && contains(&data, &plan),
        "the search finds what is there"
    );
    assert!(!contains(&data, CANARY));

    fixture
        .store
        .complete_step(delivery.id, Some(&copy("g1")), None, true, NOW)
        .await
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    // Any later call, here that of an idle lane, truncates the log.
    fixture.store.queue_head(lane, NOW).await.unwrap();
    for needle in [CANARY, &payload, &plan] {
        assert!(!contains(&data, needle));
    }
}

#[tokio::test]
async fn a_payload_is_kept_until_its_last_delivery_ends() {
    let fixture = Fixture::new().await;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    fixture.deliver(to_silo(&fixture.a), "a1").await;
    assert_eq!(fixture.ready(to_silo(&fixture.b)).await.payload, b"$1");
    fixture.deliver(to_silo(&fixture.b), "b1").await;
    let left: i64 = fixture
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
async fn an_undecrypted_event_is_erased_once_its_entry_is_filled() {
    let fixture = Fixture::with_one_portal().await;
    fixture
        .accept(vec![undecryptable_arrival(&fixture.room, "$1", NOW.0 + 1)])
        .await;
    let raw = sealed(&fixture, "SELECT payload FROM journal");
    let entry = fixture.store.undecryptable_events(None).await.unwrap()[0].entry;
    fixture
        .store
        .fill(entry, Payload::Ready(CANARY.to_vec()), NOW)
        .await
        .unwrap();
    fixture.store.checkpoint().await.unwrap();
    assert!(!contains(&fixture.data(), &raw));
    assert!(!contains(&fixture.data(), CANARY));
}

#[tokio::test]
async fn a_payload_moved_to_another_row_does_not_open() {
    let fixture = Fixture::with_one_portal().await;
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            payload(&fixture.room, "$2"),
        ])
        .await;
    let moved = "UPDATE journal SET payload = (SELECT payload FROM journal WHERE event_id = '$2')
                 WHERE event_id = '$1'";
    fixture.sql().execute(moved, []).unwrap();
    let refused = fixture.store.queue_head(to_silo(&fixture.a), NOW).await;
    assert!(
        matches!(
            refused,
            Err(Error::CorruptRow {
                table: "journal",
                row: 1
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_payload_moved_into_the_plan_column_does_not_open() {
    let fixture = Fixture::with_one_portal().await;
    fixture.accept(vec![payload(&fixture.room, "$1")]).await;
    let moved = "UPDATE outbox SET plan = (SELECT payload FROM journal)";
    fixture.sql().execute(moved, []).unwrap();
    let refused = fixture.store.queue_head(to_silo(&fixture.a), NOW).await;
    assert!(
        matches!(
            refused,
            Err(Error::CorruptRow {
                table: "outbox",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_truncated_or_missing_payload_is_a_damaged_row_and_no_panic() {
    for damage in ["x''", "x'00112233'", "substr(payload, 1, 30)", "NULL"] {
        let fixture = Fixture::with_one_portal().await;
        fixture.accept(vec![payload(&fixture.room, "$1")]).await;
        let update = format!("UPDATE journal SET payload = {damage}");
        fixture.sql().execute(&update, []).unwrap();
        let refused = fixture.store.queue_head(to_silo(&fixture.a), NOW).await;
        assert!(
            matches!(refused, Err(Error::CorruptRow { .. })),
            "{damage}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn the_account_keeps_its_secrets_sealed_and_its_face_open() {
    let fixture = Fixture::new().await;
    let face = AccountInfo {
        user_id: "@bridge:example.org".to_owned(),
        device_id: "DEVICE".to_owned(),
        homeserver: "https://matrix.example.org".to_owned(),
        ed25519: None,
        master_key: None,
    };
    assert!(fixture.store.relay_account().await.unwrap().is_none());
    let save = |face: &AccountInfo, session: &'static [u8]| {
        let (face, store) = (face.clone(), fixture.store.clone());
        let session = SecretBytes(session.to_vec());
        async move {
            let saved = store.save_account(AccountRole::Relay, &face, &session, NOW);
            saved.await.unwrap()
        }
    };
    let id = save(&face, CANARY).await.unwrap();
    assert_eq!(save(&face, b"other").await, None);
    let another = AccountInfo {
        user_id: "@other:example.org".to_owned(),
        ..face.clone()
    };
    assert_eq!(save(&another, b"other").await, None, "one relay");
    let key = SecretBytes(CANARY.to_vec());
    fixture.store.save_recovery_key(id, &key).await.unwrap();
    fixture
        .store
        .save_fingerprints(id, "ed", Some("master"))
        .await
        .unwrap();
    assert!(!contains(&fixture.data(), CANARY));

    let fixture = fixture.restart().await;
    let account = fixture.store.relay_account().await.unwrap().unwrap();
    assert_eq!(account.session.0, CANARY);
    assert_eq!(account.recovery_key.as_ref().unwrap().0, CANARY);
    let face = AccountInfo {
        ed25519: Some("ed".to_owned()),
        master_key: Some("master".to_owned()),
        ..face
    };
    assert_eq!(account.info, face);
    let snapshot = footbridge_store::Store::snapshot(&fixture.data())
        .await
        .unwrap();
    assert_eq!(snapshot.account, Some(face.clone()));

    fixture
        .store
        .save_session(id, &SecretBytes(b"refreshed".to_vec()))
        .await
        .unwrap();
    assert_eq!(
        fixture
            .store
            .relay_account()
            .await
            .unwrap()
            .unwrap()
            .session
            .0,
        b"refreshed"
    );
    // What is logged out has no session; the next login of the user continues with the same account.
    fixture.store.sign_out_account(id).await.unwrap();
    assert!(fixture.store.relay_account().await.unwrap().is_none());
    let session = SecretBytes(b"new".to_vec());
    let again = AccountInfo {
        device_id: "ANOTHER".to_owned(),
        ed25519: None,
        ..face
    };
    let role = AccountRole::Relay;
    let saved = fixture.store.save_account(role, &again, &session, NOW);
    assert_eq!(saved.await.unwrap(), Some(id));
    let account = fixture.store.relay_account().await.unwrap().unwrap();
    assert_eq!(account.session.0, b"new");
    assert_eq!(account.info, again);
    assert_eq!(account.recovery_key.unwrap().0, CANARY);
    assert_eq!(fixture.store.portals().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_session_moved_into_the_column_of_the_recovery_key_does_not_open() {
    let fixture = Fixture::new().await;
    let face = AccountInfo {
        user_id: "@bridge:example.org".to_owned(),
        device_id: "DEVICE".to_owned(),
        homeserver: "https://matrix.example.org".to_owned(),
        ed25519: None,
        master_key: None,
    };
    let session = SecretBytes(CANARY.to_vec());
    fixture
        .store
        .save_account(AccountRole::Relay, &face, &session, NOW)
        .await
        .unwrap();
    let moved = "UPDATE account SET recovery_key = session";
    fixture.sql().execute(moved, []).unwrap();
    let refused = fixture.store.relay_account().await;
    assert!(
        matches!(
            refused,
            Err(Error::CorruptRow {
                table: "account",
                row: 1
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn debug_output_contains_no_secret() {
    let fixture = Fixture::with_one_portal().await;
    let text = String::from_utf8(CANARY.to_vec()).unwrap();
    let raw = arrival(
        &fixture.room,
        "$1",
        Payload::Undecryptable {
            session: "s".to_owned(),
            raw: CANARY.to_vec(),
            key_wait_until: NOW,
        },
    );
    fixture
        .accept(vec![
            raw,
            arrival(&fixture.room, "$2", Payload::Ready(CANARY.to_vec())),
        ])
        .await;
    let waiting = fixture.store.undecryptable_events(None).await.unwrap();
    let head = fixture
        .store
        .queue_head(to_silo(&fixture.a), NOW)
        .await
        .unwrap();
    let shown = format!(
        "{waiting:?} {head:?} {:?} {:?}",
        fixture.store,
        SecretBytes(CANARY.to_vec())
    );
    let bytes = format!("{CANARY:?}");
    assert!(!shown.contains(&text) && !shown.contains(&bytes[1..20]));
}

/// A word in everything that a member, a user of a silo, a silo or a homeserver may choose freely.
const WORD: &str = "canaryword";

/// A reaction, as a silo reports it.
fn reacted(fixture: &Fixture, number: u32) -> Arrival {
    Arrival {
        event_id: RemoteId::with_private_suffix(&format!("post/react/user/{number}"), WORD),
        message: None,
        ..payload(&fixture.a.channel, "x")
    }
}

/// Accepts everything that others can choose, as long as possible. Returns the message's id.
async fn choose(fixture: &Fixture) -> RemoteId {
    let long = WORD.repeat(6_000);
    let waiting = Payload::Undecryptable {
        session: long.clone(),
        raw: long.clone().into_bytes(),
        key_wait_until: NOW,
    };
    let batch = Batch {
        arrivals: vec![
            reacted(fixture, 1),
            reacted(fixture, 1),
            Arrival {
                thread: Some(RemoteId(long.clone())),
                ..payload(&fixture.room, &long)
            },
            arrival(&fixture.room, "$waiting", waiting),
        ],
        ..Batch::default()
    };
    let accepted = fixture.store.accept(batch, NOW).await.unwrap();
    assert!(matches!(accepted[0], Accepted::New(_)));
    assert_eq!(accepted[1], Accepted::Duplicate, "the same reaction again");
    let again = reacted(fixture, 1).event_id;
    let screened =
        fixture
            .store
            .screen(vec![(fixture.a.channel.clone(), again, "user".to_owned())]);
    assert_eq!(screened.await.unwrap(), [ScreenResult::Known]);
    // The store recognises the id, however long it is.
    let message = RemoteId(long);
    let known = fixture.store.is_linked(&fixture.room, &message);
    assert!(known.await.unwrap());
    // The store cuts a network's answer to a sentence.
    let answer = "no, ".repeat(5_000);
    let lane = to_silo(&fixture.a);
    fixture.store.close_lane(lane, &answer, NOW).await.unwrap();
    let failed = fixture.ready(lane).await;
    let how = Undelivered::Failed {
        kind: "rejected",
        reason: answer,
        about: None,
        notice: FailureNotice::ToSender,
    };
    let ended = fixture.store.end_undelivered(failed.id, how, NOW);
    ended.await.unwrap();
    message
}

#[tokio::test]
async fn few_claims_about_other_bridges_are_kept() {
    let fixture = Fixture::with_one_portal().await;
    let place = fixture.a.channel.clone();
    let rival = |claimant: String, account: String| PeerClaim {
        place: place.clone(),
        account,
        claimant,
    };
    let by_one = (0..60).map(|number| rival(WORD.to_owned(), format!("{WORD}{number}")));
    let by_many = (0..60).map(|number| rival(format!("{WORD}{number}"), WORD.to_owned()));
    let batch = Batch {
        peer_claims: by_one.chain(by_many).collect(),
        ..Batch::default()
    };
    fixture.store.accept(batch, NOW).await.unwrap();
    // One account per claimant, the latest one; and the number of claimants is bounded.
    let is_peer_account = async |account: String| {
        let asked = fixture.store.is_peer_account(&place, vec![account]);
        asked.await.unwrap()
    };
    assert!(is_peer_account(format!("{WORD}59")).await && is_peer_account(WORD.to_owned()).await);
    assert!(!is_peer_account(format!("{WORD}58")).await);
    let count = || -> i64 {
        let sql = fixture.sql();
        sql.query_row("SELECT count(*) FROM peer_account", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(count(), 8);
    nothing_is_readable(&fixture);
    fixture
        .store
        .deactivate_unlisted_portals(&[], NOW)
        .await
        .unwrap();
    assert_eq!(count(), 0);
}

#[tokio::test]
async fn what_others_choose_is_bounded_and_no_word_of_it_is_readable_in_any_table() {
    let fixture = Fixture::with_one_portal().await;
    let message = choose(&fixture).await;
    let (room, channel) = (fixture.room.clone(), fixture.a.channel.clone());
    // The id of a message that shows a reaction can be looked up, but is not readable on disk.
    let known = fixture
        .store
        .copies(&room, &message, &channel)
        .await
        .unwrap();
    let entry = known.entry.unwrap();
    let reaction = fixture.ready(to_matrix(&fixture.a)).await;
    let reacting = ReactionChange {
        target: entry,
        to: room.clone(),
        reactor: WORD.to_owned(),
        payload: WORD.as_bytes().to_vec(),
        owner: None,
    };
    fixture
        .store
        .add_reaction(reaction.entry, reacting)
        .await
        .unwrap();
    let shown = copy(&format!("post/{WORD}"));
    let step = fixture
        .store
        .complete_reaction_step(reaction.id, &shown, false, true);
    step.await.unwrap();
    let fixture = fixture.restart().await;
    let kept = fixture.store.reactions(entry, &room).await.unwrap();
    assert_eq!(kept[0].shown.as_ref(), Some(&shown));
    nothing_is_readable(&fixture);
    // After the reaction was removed, no message shows it.
    fixture.accept(vec![payload(&channel, "gone")]).await;
    let gone = fixture.ready(to_matrix(&fixture.a)).await;
    let step = fixture
        .store
        .complete_reaction_removal(gone.id, &shown.remote, true);
    step.await.unwrap();
    let kept = fixture.store.reactions(entry, &room).await.unwrap();
    assert_eq!(kept[0].shown, None);
}

fn nothing_is_readable(fixture: &Fixture) {
    for (table, column, value) in values(&fixture.sql()) {
        let mut windows = value.windows(WORD.len());
        let readable = windows.any(|part| part == WORD.as_bytes());
        let text = String::from_utf8_lossy(&value);
        assert!(!readable, "{table}.{column}: {text}");
        let is_letter = ["payload", "letter", "plan", "shown_letter"].contains(&column.as_str());
        assert!(is_letter || value.len() <= 300, "{table}.{column}");
    }
}

/// Every text and blob of every table.
fn values(sql: &rusqlite::Connection) -> Vec<(String, String, Vec<u8>)> {
    let tables: Vec<String> = sql
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(tables.len() > 30, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        let mut all = sql.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let names: Vec<String> = all.column_names().into_iter().map(str::to_owned).collect();
        let mut rows = all.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for (number, name) in names.iter().enumerate() {
                let value = match row.get_ref(number).unwrap() {
                    rusqlite::types::ValueRef::Text(bytes)
                    | rusqlite::types::ValueRef::Blob(bytes) => bytes.to_vec(),
                    _ => continue,
                };
                found.push((table.clone(), name.clone(), value));
            }
        }
    }
    found
}
