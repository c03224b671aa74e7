//! Failed deliveries: parked, reported, retried.

use footbridge_store::{
    DeliveryId, DeliveryStatus, FailureNotice, ParkedState, RemoteId, StatusNotice, StatusTopic,
    Undelivered,
};

use crate::support::{Ground, NOW, balances, payload, to_matrix, to_silo};

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

async fn fail(ground: &Ground, tell: FailureNotice) -> DeliveryId {
    let failed = ground.ready(to_silo(&ground.a)).await.id;
    ground
        .store
        .end_undelivered(failed, how(None, tell), NOW)
        .await
        .unwrap();
    failed
}

#[tokio::test]
async fn a_failed_delivery_tells_the_place_it_came_from_once() {
    let ground = Ground::new().await;
    ground.accept(vec![payload(&ground.a.channel, "m1")]).await;
    let failed = ground.ready(to_silo(&ground.b)).await;
    for _ in 0..2 {
        ground
            .store
            .end_undelivered(failed.id, how(None, FailureNotice::ToSender), NOW)
            .await
            .unwrap();
    }
    let refresh = || ground.store.refresh_notices(compose, NOW);
    assert_eq!(
        refresh().await.unwrap(),
        [to_silo(&ground.a)],
        "by way of the room, back to channel a"
    );
    assert_eq!(refresh().await.unwrap(), [], "once");
    let notice = ground.ready(to_silo(&ground.a)).await;
    assert_eq!(
        (String::from_utf8(notice.payload).unwrap(), &notice.to),
        (
            "1 1 0 0 no about m1 changed false".to_owned(),
            &ground.a.channel
        )
    );
    ground
        .store
        .end_undelivered(notice.id, how(None, FailureNotice::None), NOW)
        .await
        .unwrap();
    assert_eq!(refresh().await.unwrap(), [], "no notice about a notice");
    assert_eq!(ground.counters(to_silo(&ground.b)).await.failed, 1);
    assert!(
        ground
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
    let ground = Ground::with_one_portal().await;
    ground
        .accept(vec![
            payload(&ground.room, "$1"),
            payload(&ground.room, "$2"),
        ])
        .await;
    let first = fail(&ground, FailureNotice::ToSender).await;
    ground.store.refresh_notices(compose, NOW).await.unwrap();
    let back = to_matrix(&ground.a);
    let notice = ground.deliver(back, "$notice").await;
    assert_eq!(notice.payload, b"1 1 0 0 no about $1 changed false");

    let about = ground
        .store
        .parked_deliveries_of(&ground.room, &RemoteId::from("$notice"))
        .await
        .unwrap();
    assert_eq!((about[0].id, about[0].retryable), (first, true));
    assert_eq!(
        ground.store.retry_parked(&[first]).await.unwrap(),
        [to_silo(&ground.a)]
    );
    // Killed before anybody was notified.
    let ground = ground.restart().await;
    assert_eq!(
        ground.store.refresh_notices(compose, NOW).await.unwrap(),
        [back]
    );
    // It has its old id, so it precedes the one that passed it; an edit that was not sent yet is superseded.
    let again = ground.deliver(to_silo(&ground.a), "g1").await;
    assert_eq!((again.id, again.late, again.is_retry), (first, true, true));
    ground.store.refresh_notices(compose, NOW).await.unwrap();
    let change = ground.ready(back).await;
    assert_eq!(change.payload, b"0 0 0 1 no about - changed true");
    assert_eq!(
        ground.counters(back).await.skipped,
        [("superseded".to_owned(), 1)]
    );
    let story = ground
        .store
        .message_status(&ground.room, &"$1".into())
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
        ground
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
    let ground = Ground::with_one_portal().await;
    let letters = (0..1_002).map(|number| payload(&ground.room, &format!("${number}")));
    ground.accept(letters.collect()).await;
    for _ in 0..1_002 {
        fail(&ground, FailureNotice::ToSender).await;
    }
    let lane = to_silo(&ground.a);
    let counters = ground.counters(lane).await;
    assert_eq!((counters.failed, counters.parked), (1_002, 1_000));
    let first = ground
        .store
        .parked_deliveries_of(&ground.room, &"$0".into())
        .await
        .unwrap();
    assert_eq!(
        (first[0].state, first[0].retryable, &first[0].payload),
        (ParkedState::Failed, false, &None)
    );
    assert_eq!(ground.store.retry_parked(&[first[0].id]).await.unwrap(), []);
    let days = std::time::Duration::from_hours(24 * 31);
    ground.store.expire_parked(NOW.plus(days)).await.unwrap();
    assert_eq!(ground.counters(lane).await.parked, 0);
    let letters: i64 = ground
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(letters, 0);
    assert!(balances(&ground.counters(lane).await));
}

#[tokio::test]
async fn what_the_bridge_says_of_failures_goes_before_the_backlog() {
    let ground = Ground::with_one_portal().await;
    let back = to_matrix(&ground.a);
    ground
        .accept(vec![
            payload(&ground.room, "$1"),
            payload(&ground.a.channel, "g1"),
            payload(&ground.a.channel, "g2"),
        ])
        .await;
    fail(&ground, FailureNotice::ToSender).await;
    ground.store.refresh_notices(compose, NOW).await.unwrap();
    let first = ground.deliver(back, "$a").await;
    assert_eq!(first.payload, b"1 1 0 0 no about $1 changed false");
    assert_eq!(ground.deliver(back, "$b").await.payload, b"g1");
}

#[tokio::test]
async fn what_failed_of_a_message_and_of_its_edits_ends_with_its_deletion() {
    let ground = Ground::with_one_portal().await;
    let (lane, room, channel) = (to_silo(&ground.a), &ground.room, &ground.a.channel);
    let ids = ["$1", "$1 edited", "$2 edited"];
    ground
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
        let head = ground.ready(lane).await;
        ground
            .store
            .end_undelivered(head.id, failed, NOW)
            .await
            .unwrap();
        kept.push(head.id);
    }
    let target = RemoteId::from("$1");
    assert!(
        ground
            .store
            .cancel_failed_delivery(room, &target, channel, "its author took it back")
            .await
            .unwrap()
    );
    assert!(
        !ground
            .store
            .cancel_failed_delivery(room, &target, channel, "its author took it back")
            .await
            .unwrap()
    );
    assert_eq!(ground.store.retry_parked(&kept[..2]).await.unwrap(), []);
    let left: i64 = ground
        .sql()
        .query_row(
            "SELECT count(*) FROM journal WHERE payload IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 1, "the edit of another message");
    assert_eq!(ground.store.retry_parked(&kept[2..]).await.unwrap(), [lane]);
}
