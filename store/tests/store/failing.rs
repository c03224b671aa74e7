//! Failed deliveries: parked, reported, retried.

use footbridge_store::{
    Cancelled, DeliveryId, DeliveryStatus, FailureNotice, LaneId, Millis, ParkedState, Place,
    RemoteId, Side, SkipRule, StatusNotice, StatusTopic, Undelivered,
};

use crate::support::{Fixture, NOW, balances, payload, to_matrix, to_silo};

/// A notice in one line.
#[expect(clippy::unnecessary_wraps, reason = "the shape of `Compose`")]
fn compose(state: &StatusNotice) -> Option<Vec<u8>> {
    let what = match &state.topic {
        StatusTopic::Failures {
            failed,
            retryable,
            retrying,
            delivered,
            reason,
        } => format!("{failed} {retryable} {retrying} {delivered} {reason}"),
        StatusTopic::Closed { reason, open } => format!("{reason} {open}"),
    };
    let about = state
        .about
        .as_ref()
        .map_or("-", |copy| copy.remote.as_str());
    let changed = state.replaces.is_some();
    Some(format!("{what} about {about} changed {changed}").into_bytes())
}

fn how(about: Option<RemoteId>, tell: FailureNotice) -> Undelivered {
    Undelivered::Failed {
        kind: "refused",
        reason: "no".to_owned(),
        about,
        notice: tell,
    }
}

async fn fail(fixture: &Fixture, tell: FailureNotice) -> DeliveryId {
    let failed = fixture.ready(to_silo(&fixture.a)).await.id;
    fixture
        .store
        .end_undelivered(failed, how(None, tell), NOW)
        .await
        .unwrap();
    failed
}

#[tokio::test]
async fn a_failed_delivery_gives_one_notice_in_its_source_place() {
    let fixture = Fixture::new().await;
    fixture
        .accept(vec![payload(&fixture.a.channel, "m1")])
        .await;
    let failed = fixture.ready(to_silo(&fixture.b)).await;
    for _ in 0..2 {
        fixture
            .store
            .end_undelivered(failed.id, how(None, FailureNotice::ToSender), NOW)
            .await
            .unwrap();
    }
    let refresh = || fixture.store.refresh_notices(compose, NOW);
    assert_eq!(
        refresh().await.unwrap(),
        [to_silo(&fixture.a)],
        "by way of the room, back to channel a"
    );
    assert_eq!(refresh().await.unwrap(), [], "once");
    let notice = fixture.ready(to_silo(&fixture.a)).await;
    assert_eq!(
        (String::from_utf8(notice.payload).unwrap(), &notice.to),
        (
            "1 1 0 0 no about m1 changed false".to_owned(),
            &fixture.a.channel
        )
    );
    fixture
        .store
        .end_undelivered(notice.id, how(None, FailureNotice::None), NOW)
        .await
        .unwrap();
    assert_eq!(refresh().await.unwrap(), [], "no notice about a notice");
    assert_eq!(fixture.counters(to_silo(&fixture.b)).await.failed, 1);
    assert!(
        fixture
            .store
            .lane_counters()
            .await
            .unwrap()
            .iter()
            .all(balances)
    );
}

#[tokio::test]
async fn a_notice_changes_with_what_becomes_of_the_failure_also_after_a_restart() {
    let fixture = Fixture::with_one_portal().await;
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            payload(&fixture.room, "$2"),
        ])
        .await;
    let first = fail(&fixture, FailureNotice::ToSender).await;
    fixture.store.refresh_notices(compose, NOW).await.unwrap();
    let back = to_matrix(&fixture.a);
    let notice = fixture.deliver(back, "$notice").await;
    assert_eq!(notice.payload, b"1 1 0 0 no about $1 changed false");

    let about = fixture
        .store
        .parked_deliveries_of(&fixture.room, &RemoteId::from("$notice"))
        .await
        .unwrap();
    assert_eq!((about[0].id, about[0].retryable), (first, true));
    assert_eq!(
        fixture.store.retry_parked(&[first]).await.unwrap(),
        [to_silo(&fixture.a)]
    );
    // The process was killed before anybody was notified.
    let fixture = fixture.restart().await;
    assert_eq!(
        fixture.store.refresh_notices(compose, NOW).await.unwrap(),
        [back]
    );
    // The delivery keeps its id, so it precedes the one that overtook it; an edit that was not sent yet is superseded.
    let again = fixture.deliver(to_silo(&fixture.a), "g1").await;
    assert_eq!((again.id, again.late, again.is_retry), (first, true, true));
    fixture.store.refresh_notices(compose, NOW).await.unwrap();
    let change = fixture.ready(back).await;
    assert_eq!(change.payload, b"0 0 0 1 no about - changed true");
    assert_eq!(
        fixture.counters(back).await.skipped,
        [(SkipRule::Superseded, 1)]
    );
    let story = fixture
        .store
        .message_status(&fixture.room, &"$1".into())
        .await
        .unwrap();
    let deliveries = story.unwrap().deliveries;
    assert!(
        matches!(
            &deliveries[..],
            [(_, DeliveryStatus::Delivered { tries: Some(2), .. })]
        ),
        "{deliveries:?}"
    );
    assert!(
        fixture
            .store
            .lane_counters()
            .await
            .unwrap()
            .iter()
            .all(balances)
    );
}

#[tokio::test]
async fn only_the_last_thousand_of_a_lane_and_of_thirty_days_are_kept() {
    let fixture = Fixture::with_one_portal().await;
    let arrivals = (0..1_002).map(|number| payload(&fixture.room, &format!("${number}")));
    fixture.accept(arrivals.collect()).await;
    for _ in 0..1_002 {
        fail(&fixture, FailureNotice::ToSender).await;
    }
    let lane = to_silo(&fixture.a);
    let counters = fixture.counters(lane).await;
    assert_eq!((counters.failed, counters.parked), (1_002, 1_000));
    let first = fixture
        .store
        .parked_deliveries_of(&fixture.room, &"$0".into())
        .await
        .unwrap();
    assert_eq!(
        (first[0].state, first[0].retryable, &first[0].payload),
        (ParkedState::Failed, false, &None)
    );
    assert_eq!(
        fixture.store.retry_parked(&[first[0].id]).await.unwrap(),
        []
    );
    let days = std::time::Duration::from_hours(24 * 31);
    fixture.store.expire_parked(NOW.plus(days)).await.unwrap();
    assert_eq!(fixture.counters(lane).await.parked, 0);
    let arrivals: i64 = fixture
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(arrivals, 0);
    assert!(balances(&fixture.counters(lane).await));
}

#[tokio::test]
async fn notices_of_failures_go_before_the_backlog() {
    let fixture = Fixture::with_one_portal().await;
    let back = to_matrix(&fixture.a);
    fixture
        .accept(vec![
            payload(&fixture.room, "$1"),
            payload(&fixture.a.channel, "g1"),
            payload(&fixture.a.channel, "g2"),
        ])
        .await;
    fail(&fixture, FailureNotice::ToSender).await;
    fixture.store.refresh_notices(compose, NOW).await.unwrap();
    let first = fixture.deliver(back, "$a").await;
    assert_eq!(first.payload, b"1 1 0 0 no about $1 changed false");
    assert_eq!(fixture.deliver(back, "$b").await.payload, b"g1");
}

#[tokio::test]
async fn what_failed_of_a_message_and_of_its_edits_ends_with_its_deletion() {
    let fixture = Fixture::with_one_portal().await;
    let (lane, room, channel) = (to_silo(&fixture.a), &fixture.room, &fixture.a.channel);
    let ids = ["$1", "$1 edited", "$2 edited"];
    fixture
        .accept(ids.iter().map(|id| payload(room, id)).collect())
        .await;
    let mut kept = Vec::new();
    for about in [None, Some("$1"), Some("$2")] {
        let failed = Undelivered::Failed {
            kind: "refused",
            reason: "it does not want it".to_owned(),
            about: about.map(RemoteId::from),
            notice: FailureNotice::ToSender,
        };
        let head = fixture.ready(lane).await;
        fixture
            .store
            .end_undelivered(head.id, failed, NOW)
            .await
            .unwrap();
        kept.push(head.id);
    }
    let target = RemoteId::from("$1");
    assert!(
        fixture
            .store
            .cancel_failed_delivery(
                room,
                &target,
                channel,
                Cancelled::All,
                "its author took it back"
            )
            .await
            .unwrap()
    );
    assert!(
        !fixture
            .store
            .cancel_failed_delivery(
                room,
                &target,
                channel,
                Cancelled::All,
                "its author took it back"
            )
            .await
            .unwrap()
    );
    assert_eq!(fixture.store.retry_parked(&kept[..2]).await.unwrap(), []);
    let left: i64 = fixture
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 1, "the edit of another message");
    assert_eq!(
        fixture.store.retry_parked(&kept[2..]).await.unwrap(),
        [lane]
    );
}

#[tokio::test]
async fn a_closed_lane_gives_no_notice_in_a_management_room_nor_once_it_is_open() {
    let fixture = Fixture::with_one_portal().await;
    let store = &fixture.store;
    let pending = || async {
        let all = store.lane_counters().await.unwrap();
        all.iter().map(|counters| counters.pending).sum::<u64>()
    };
    let lane = to_silo(&fixture.a);
    store.close_lane(lane, "it is closed", NOW).await.unwrap();
    store.open_lane(lane, Millis(NOW.0 + 1)).await.unwrap();
    assert_eq!(store.refresh_notices(compose, NOW).await.unwrap(), []);
    assert_eq!(pending().await, 0);
    // It closes again.
    store.close_lane(lane, "it is closed", NOW).await.unwrap();
    assert_eq!(store.refresh_notices(compose, NOW).await.unwrap().len(), 1);
    assert_eq!(pending().await, 1);
    // A room without a portal, in which the bridge only answers.
    let room = Place::room("!management");
    store.open_management_room(&room, None, NOW).await.unwrap();
    let portals = store.portals().await.unwrap();
    let portal = portals.iter().find(|portal| portal.room == room).unwrap();
    let lane = LaneId {
        portal: portal.id,
        toward: Side::Matrix,
    };
    store.close_lane(lane, "it is closed", NOW).await.unwrap();
    assert_eq!(store.refresh_notices(compose, NOW).await.unwrap(), []);
    assert_eq!(pending().await, 1);
}
