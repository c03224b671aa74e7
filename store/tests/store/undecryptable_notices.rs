//! Notices: sent once, edited later, looked up by their copy; and missing room keys, reported once per sender.

use std::time::Duration;

use footbridge_store::{
    Copies, EntryId, LaneId, Millis, Payload, Place, QueueHead, QueueOrder, RemoteId, Scope,
    SkipRule, UndecryptableNotice, UndecryptableText,
};

use crate::support::{
    Fixture, NOW, balances, copy, payload, to_matrix, to_silo, undecryptable_arrival,
};

const HOUR: Duration = Duration::from_hours(1);

fn event_id(id: &str) -> RemoteId {
    RemoteId::from(id)
}

/// Delivers the next delivery of a lane and returns its payload.
async fn taken(fixture: &Fixture, lane: LaneId, remote: &str) -> String {
    let delivery = fixture.deliver(lane, remote).await;
    String::from_utf8(delivery.payload).unwrap()
}

async fn tell(fixture: &Fixture, entries: Vec<EntryId>, now: Millis) -> usize {
    let telling = UndecryptableNotice {
        entries,
        place: fixture.room.clone(),
        sender: "@ann:x".to_owned(),
        reason: "no-key".to_owned(),
        merge_within: HOUR,
        here: false,
        device: None,
    };
    let payload = |what: UndecryptableText<'_>| {
        let text = match what {
            UndecryptableText::Elsewhere => "cannot be read",
            _ => "again",
        };
        Some(text.as_bytes().to_vec())
    };
    fixture
        .store
        .notify_undecryptable(telling, payload, now)
        .await
        .unwrap()
        .len()
}

async fn wait(fixture: &Fixture, ids: &[&str]) -> Vec<EntryId> {
    let arrivals = ids
        .iter()
        .map(|id| undecryptable_arrival(&fixture.room, id, NOW.0))
        .collect();
    fixture.accept(arrivals).await;
    let all = fixture.store.undecryptable_events(None).await.unwrap();
    all.iter()
        .filter(|one| ids.contains(&one.event_id.as_str()))
        .map(|one| one.entry)
        .collect()
}

#[tokio::test]
async fn a_notice_is_sent_once_and_its_edit_finds_the_copy_after_a_restart() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let notice_fact = event_id("n");
    let say = || fixture.store.enqueue_notice(lane, &notice_fact, b"1", NOW);
    assert_eq!(say().await.unwrap(), Some(lane));
    assert_eq!(say().await.unwrap(), None, "said already");
    let notice = fixture.deliver(lane, "g1").await;
    let fixture = fixture.restart().await;
    let change = |text: &'static [u8]| fixture.store.edit_notice(&notice_fact, text, NOW);
    assert_eq!(change(b"2").await.unwrap(), Some(lane));
    assert_eq!(change(b"3").await.unwrap(), Some(lane));
    for text in ["2", "3"] {
        let edit = fixture.ready(lane).await;
        assert_eq!(edit.payload, text.as_bytes());
        let found: Copies = fixture
            .store
            .copies(&edit.from, &notice_fact, &edit.to)
            .await
            .unwrap();
        assert_eq!(found.entry, Some(notice.entry));
        assert_eq!(found.copies, [copy("g1")]);
        fixture
            .store
            .complete_step(edit.id, None, None, true, NOW)
            .await
            .unwrap();
    }
    let counters = fixture.counters(lane).await;
    assert!(balances(&counters) && counters.delivered == 3);
    let unknown = fixture.store.edit_notice(&event_id("x"), b"?", NOW).await;
    assert_eq!(unknown.unwrap(), None);
}

#[tokio::test]
async fn d20_a_missing_key_gives_one_notice_per_sender_hour_and_place_and_the_end_edits_it() {
    let fixture = Fixture::new().await;
    let first = wait(&fixture, &["$1", "$2"]).await;
    assert_eq!(tell(&fixture, first.clone(), NOW).await, 2, "both channels");
    assert_eq!(
        tell(&fixture, first.clone(), NOW).await,
        0,
        "notified before"
    );
    let later = NOW.plus(Duration::from_mins(59));
    let more = wait(&fixture, &["$3"]).await;
    assert_eq!(
        tell(&fixture, more.clone(), later).await,
        0,
        "the same sender"
    );
    assert!(fixture.store.resolved_groups().await.unwrap().is_empty());

    let fill = |entry, payload| fixture.store.fill(entry, payload, NOW);
    fill(first[0], Payload::Ready(b"$1".to_vec()))
        .await
        .unwrap();
    fill(first[1], Payload::Skipped(SkipRule::Empty))
        .await
        .unwrap();
    let fixture = fixture.restart().await;
    assert!(
        fixture.store.resolved_groups().await.unwrap().is_empty(),
        "one waits"
    );
    assert!(fixture.store.fail_key_wait(more[0], NOW).await.unwrap());
    assert!(
        !fixture.store.fail_key_wait(more[0], NOW).await.unwrap(),
        "once"
    );
    let ended = fixture.store.resolved_groups().await.unwrap();
    let [group] = &ended[..] else {
        panic!("{ended:?}")
    };
    assert_eq!((group.decrypted, group.skipped, group.failed), (1, 1, 1));
    assert_eq!(
        (group.sender.as_str(), &group.place),
        ("@ann:x", &fixture.room)
    );
    let end = |group| {
        let payload = |what: UndecryptableText<'_>| match what {
            UndecryptableText::Resolution => Some(b"one is lost".to_vec()),
            _ => Some(b"ended".to_vec()),
        };
        fixture.store.notify_resolved(group, payload, NOW)
    };
    assert_eq!(end(group.clone()).await.unwrap().len(), 3);
    assert!(
        end(group.clone()).await.unwrap().is_empty(),
        "notified once"
    );
    for portal in [&fixture.a, &fixture.b] {
        let lane = to_silo(portal);
        let name = portal.spec.channel.as_str();
        // First the message whose room key arrived: although late, it was accepted before the notice.
        for text in ["$1", "cannot be read", "ended"] {
            let remote = format!("{name}-{text}");
            assert_eq!(taken(&fixture, lane, &remote).await, text);
        }
        let counters = fixture.counters(lane).await;
        assert!(balances(&counters) && counters.failed == 1, "{counters:?}");
    }
    assert_eq!(
        taken(&fixture, to_matrix(&fixture.a), "$x").await,
        "one is lost"
    );
    let nothing = fixture
        .store
        .queue_head(to_matrix(&fixture.b), NOW)
        .await
        .unwrap();
    assert_eq!(nothing, QueueHead::Empty, "the room is notified once");

    // The same sender again: the notice is edited; after an hour there is a new one.
    let again = wait(&fixture, &["$4"]).await;
    assert_eq!(tell(&fixture, again, later).await, 2);
    assert_eq!(taken(&fixture, to_silo(&fixture.a), "e").await, "again");
    let next = wait(&fixture, &["$5"]).await;
    assert_eq!(tell(&fixture, next, NOW.plus(HOUR)).await, 2);
}

/// Reports the first message of a sender with an unsigned device, in the sender's room and elsewhere, and that it is
/// not relayed.
async fn refuse(fixture: &Fixture, sender: &str, id: &str, now: Millis) -> usize {
    let entries = wait(fixture, &[id]).await;
    let telling = UndecryptableNotice {
        entries: entries.clone(),
        place: fixture.room.clone(),
        sender: sender.to_owned(),
        reason: "unsigned".to_owned(),
        merge_within: 24 * HOUR,
        here: true,
        device: Some("DEVICE".to_owned()),
    };
    let payload = |what: UndecryptableText<'_>| Some(format!("{what:?}").into_bytes());
    let told = fixture
        .store
        .notify_undecryptable(telling, payload, now)
        .await
        .unwrap();
    let refused = Payload::Skipped(SkipRule::UntrustedDevice);
    fixture.store.fill(entries[0], refused, now).await.unwrap();
    for group in fixture.store.resolved_groups().await.unwrap() {
        let lanes = fixture
            .store
            .notify_resolved(group, |_| None, now)
            .await
            .unwrap();
        assert!(lanes.is_empty(), "the notice stays true");
    }
    told.len()
}

#[tokio::test]
async fn p02_the_sender_who_can_fix_it_gets_one_notice_and_another_when_it_is_solved() {
    let fixture = Fixture::with_one_portal().await;
    let (there, here) = (to_silo(&fixture.a), to_matrix(&fixture.a));
    assert_eq!(refuse(&fixture, "@ann:x", "$1", NOW).await, 3);
    assert_eq!(taken(&fixture, there, "t").await, "Elsewhere");
    let mark = r#"Marker(RemoteId("$1"))"#;
    assert_eq!(taken(&fixture, here, "mark").await, mark);
    let notice = r#"ToSender(RemoteId("$1"))"#;
    assert_eq!(taken(&fixture, here, "notice").await, notice);
    // No second notice for a day, also after a restart.
    let fixture = fixture.restart().await;
    let later = NOW.plus(23 * HOUR);
    assert_eq!(refuse(&fixture, "@ann:x", "$2", later).await, 0);
    let standing = fixture.store.outdated_groups().await.unwrap();
    let [(group, device)] = &standing[..] else {
        panic!("{standing:?}")
    };
    assert_eq!((group.skipped, device.as_deref()), (2, Some("DEVICE")));
    let over = || {
        let payload = |what: UndecryptableText<'_>| match what {
            UndecryptableText::ElsewhereEdit(_) => Some(b"signed there".to_vec()),
            UndecryptableText::ToSenderEdit(_) => Some(b"signed here".to_vec()),
            _ => None,
        };
        fixture.store.notify_obsolete(group.clone(), payload, later)
    };
    assert_eq!(over().await.unwrap().len(), 2);
    assert!(over().await.unwrap().is_empty(), "once");
    assert_eq!(taken(&fixture, there, "t2").await, "signed there");
    assert_eq!(taken(&fixture, here, "h2").await, "signed here");
    assert!(fixture.store.outdated_groups().await.unwrap().is_empty());
    // Another device of the same sender, and another day.
    assert_eq!(refuse(&fixture, "@ann:x", "$3", later).await, 2);
    let next = NOW.plus(24 * HOUR);
    assert_eq!(refuse(&fixture, "@ann:x", "$4", next).await, 3);
    let standing = fixture.store.outdated_groups().await.unwrap();
    let [(newest, _)] = &standing[..] else {
        panic!("{standing:?}")
    };
    assert_ne!(newest.group, group.group, "only today's notice is edited");
}

#[tokio::test]
async fn p02_a_key_that_is_missing_hides_no_device_that_is_not_signed() {
    let fixture = Fixture::with_one_portal().await;
    let waiting = wait(&fixture, &["$1"]).await;
    assert_eq!(tell(&fixture, waiting.clone(), NOW).await, 1);
    assert_eq!(refuse(&fixture, "@ann:x", "$2", NOW).await, 3);
    let arrived = Payload::Ready(b"$1".to_vec());
    fixture.store.fill(waiting[0], arrived, NOW).await.unwrap();
    let ended = fixture.store.resolved_groups().await.unwrap();
    let [group] = &ended[..] else {
        panic!("{ended:?}")
    };
    assert_eq!((group.reason.as_str(), group.decrypted), ("no-key", 1));
    let payload = |what: UndecryptableText<'_>| match what {
        UndecryptableText::ElsewhereEdit(_) | UndecryptableText::ToSenderEdit(_) => {
            Some(b"arrived".to_vec())
        }
        _ => None,
    };
    let told = fixture.store.notify_resolved(group.clone(), payload, NOW);
    assert_eq!(told.await.unwrap().len(), 1, "its own notice only");
    assert_eq!(fixture.store.outdated_groups().await.unwrap().len(), 1);
}

#[tokio::test]
async fn p02_made_up_senders_do_not_use_up_what_the_account_may_send() {
    let fixture = Fixture::with_one_portal().await;
    for number in 0..20 {
        let (sender, event) = (format!("@ann{number}:x"), format!("${number}"));
        refuse(&fixture, &sender, &event, NOW).await;
    }
    let owed = fixture.counters(to_matrix(&fixture.a)).await.pending;
    assert_eq!(owed, 12, "a reaction and a notice for each of six");
    let tomorrow = NOW.plus(25 * HOUR);
    assert_eq!(refuse(&fixture, "@bob:x", "$b", tomorrow).await, 3);
}

#[tokio::test]
async fn f26_a_wait_is_counted_in_running_time_whatever_the_clock_shows() {
    let fixture = Fixture::with_one_portal().await;
    wait(&fixture, &["$1"]).await;
    let seen = async |ran: u64, now: Millis| {
        let all = fixture
            .store
            .age_key_waits(Duration::from_secs(ran), now)
            .await;
        let all = all.unwrap();
        (all[0].waited.as_secs(), all[0].age.as_secs())
    };
    let at = |seconds: i64| Millis(NOW.0 + seconds * 1_000);
    assert_eq!(
        seen(100, at(10)).await,
        (10, 10),
        "no longer than the entry exists"
    );
    assert_eq!(seen(20, at(30)).await, (30, 30));
    // The clock is a day ahead: the age is a day, although the bridge has not waited that long.
    assert_eq!(seen(5, at(86_400)).await, (35, 86_400));
    // The clock says 1970: neither time shrinks.
    assert_eq!(seen(5, Millis(0)).await, (35, 35));
    let place: Place = fixture.room.clone();
    assert_eq!(
        fixture.store.undecryptable_events(None).await.unwrap()[0].place,
        place
    );
}

#[tokio::test]
async fn b14_messages_of_the_bridge_are_at_most_every_second_event_while_others_wait() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    for number in 0..200 {
        let said = event_id(&format!("said-{number}"));
        let said = fixture
            .store
            .send_notice(&fixture.a.channel, &said, b"help", NOW);
        assert_eq!(said.await.unwrap(), Some(lane));
    }
    let messages = (0..3).map(|number| payload(&fixture.room, &format!("${number}")));
    fixture.accept(messages.collect()).await;
    let (mut turn, mut order) = (QueueOrder::UrgentFirst, Vec::new());
    for number in 0..8 {
        let QueueHead::Ready(next) = fixture.store.next_delivery(lane, turn, NOW).await.unwrap()
        else {
            panic!("nothing after {order:?}")
        };
        turn = if next.urgent {
            QueueOrder::MessagesFirst
        } else {
            QueueOrder::UrgentFirst
        };
        order.push(String::from_utf8(next.payload).unwrap());
        let made = copy(&format!("made-{number}"));
        let done = fixture
            .store
            .complete_step(next.id, Some(&made), None, true, NOW);
        done.await.unwrap();
    }
    let operator_portals = ["help", "$0", "help", "$1", "help", "$2", "help", "help"];
    assert_eq!(order, operator_portals);
}

#[tokio::test]
async fn b14_after_a_kill_the_message_between_two_notices_is_reconciled() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let said = event_id("said");
    let said = fixture
        .store
        .send_notice(&fixture.a.channel, &said, b"help", NOW);
    said.await.unwrap();
    fixture.accept(vec![payload(&fixture.room, "$0")]).await;
    // It may have been sent out of order when the process ended.
    fixture
        .store
        .start_lane(lane, NOW, NOW, true)
        .await
        .unwrap();
    let next = fixture
        .store
        .next_delivery(lane, QueueOrder::MessagesFirst, NOW)
        .await
        .unwrap();
    let QueueHead::Ready(next) = next else {
        panic!("{next:?}")
    };
    assert_eq!(next.payload, b"$0");
    assert!(next.unanswered_since.is_some());
}

#[tokio::test]
async fn who_opts_out_is_not_named_by_a_notice_that_waits() {
    let fixture = Fixture::with_one_portal().await;
    let lane = to_silo(&fixture.a);
    let waits = wait(&fixture, &["$1"]).await;
    assert_eq!(tell(&fixture, waits, NOW).await, 1);
    let before = fixture.counters(lane).await;
    let nothing = |_: &[u8], _: &str| false;
    let room = &fixture.room;
    let opt_out = |user: &'static str| fixture.store.opt_out(room, user, Scope::Here, nothing, NOW);
    opt_out("@bob:x").await.unwrap();
    assert_eq!(fixture.counters(lane).await.pending, before.pending);
    opt_out("@ann:x").await.unwrap();
    let after = fixture.counters(lane).await;
    assert!(balances(&after));
    assert_eq!(after.pending, before.pending - 1);
}
