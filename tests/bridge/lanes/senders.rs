//! Which account sends a message: the personal one of its author, or the relay; and that two accounts never send the same,
//! whichever of them is gone at any moment.

use std::{collections::HashMap, sync::Arc, time::Duration};

use footbridge_core::{
    budget::Budget,
    inbox::ArrivalContent,
    lane::{
        OutletHealth,
        personal_accounts::{Author, PersonalAccount, Speaker, StandIn},
    },
    message::{Action, Sender},
    outlet::{Outcome, SendError},
};
use footbridge_store::{
    AccountId, AccountInfo, AccountRole, Millis, Place, RemoteId, SecretBytes, Side,
};

use super::{Bench, FakeOutlet, LONG, Next, edit, message_of, not_now, post};

/// The author whom an account of her own speaks for, and the one whom none does.
const ANN: &str = "@ann:x";
const BOB: &str = "@bob:x";

/// A bench with a relay and an account of Ann.
struct Two {
    bench: Bench,
    relay: Arc<FakeOutlet>,
    ann: Arc<FakeOutlet>,
    account: AccountId,
}

impl Two {
    async fn open(directory: &std::path::Path) -> Self {
        let bench = Bench::open(directory).await;
        let info = AccountInfo {
            user_id: ANN.to_owned(),
            device_id: "ANNSDEVICE".to_owned(),
            homeserver: "http://x".to_owned(),
            ed25519: None,
            master_key: None,
        };
        let session = SecretBytes(b"{}".to_vec());
        let saved = bench
            .store
            .save_account(AccountRole::Personal, &info, &session, Millis(1));
        let account = match saved.await.unwrap() {
            Some(account) => account,
            // After a restart.
            None => bench.store.own_accounts().await.unwrap()[0].id,
        };
        let (relay, ann) = (FakeOutlet::new(true, vec![]), FakeOutlet::new(true, vec![]));
        *ann.ids.lock().unwrap() = "ann";
        relay.others.lock().unwrap().insert(account, ann.clone());
        let author = Author {
            network: Place::MATRIX.to_owned(),
            user: ANN.to_owned(),
        };
        bench.accounts.set_authors(HashMap::from([(
            author,
            Speaker {
                account,
                since: Millis(1),
            },
        )]));
        let two = Self {
            bench,
            relay,
            ann,
            account,
        };
        two.log_in();
        two
    }

    /// Ann's account can send.
    fn log_in(&self) {
        self.bench.accounts.add(PersonalAccount {
            account: self.account,
            outlet: self.ann.clone(),
            budget: Budget::default(),
            health: OutletHealth::default(),
        });
    }

    async fn arrive(&self, by: &str, event: &str, action: Action) {
        let message = matches!(action, Action::Post { .. }).then(|| RemoteId::from(event));
        let mut said = message_of(action);
        said.sender = Sender {
            id: by.to_owned(),
            name: by.to_owned(),
            avatar: None,
        };
        self.bench
            .arrive_payload(event, message, ArrivalContent::from(said))
            .await;
    }

    async fn run(&self) {
        self.bench.run(&self.relay, LONG).await;
        self.bench.balance().await;
    }

    async fn pending(&self) -> u64 {
        self.bench.tally(Side::Silo).await.pending
    }
}

fn signed_out() -> SendError {
    SendError::SignedOut {
        reason: "the session is over".to_owned(),
    }
}

fn closed() -> SendError {
    SendError::Closed {
        reason: "it is not in the room".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn p10_an_author_with_an_account_speaks_through_it_and_nobody_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let two = Two::open(directory.path()).await;
    two.arrive(ANN, "$1", post("by ann")).await;
    two.arrive(BOB, "$2", post("by bob")).await;
    two.arrive(ANN, "$3", post("by ann again")).await;
    two.run().await;
    assert_eq!(two.ann.texts(), ["by ann", "by ann again"]);
    assert_eq!(two.relay.texts(), ["by bob"]);
}

#[tokio::test(start_paused = true)]
async fn p10_a_copy_is_edited_and_deleted_by_the_account_that_sent_it() {
    let directory = tempfile::tempdir().unwrap();
    let two = Two::open(directory.path()).await;
    two.arrive(ANN, "$1", post("by ann")).await;
    two.arrive(BOB, "$2", post("by bob")).await;
    two.run().await;
    // Whoever changes them: a moderator deletes Ann's.
    two.arrive(ANN, "$3", edit("$1", "by ann, edited")).await;
    two.arrive(BOB, "$4", edit("$2", "by bob, edited")).await;
    two.run().await;
    let delete = Action::Delete {
        target: "$1".into(),
    };
    two.arrive(BOB, "$5", delete).await;
    two.run().await;
    assert_eq!(two.ann.texts(), ["by ann, edited"]);
    assert_eq!(two.ann.removed(), [RemoteId::from("ann-0")]);
    assert_eq!(two.relay.texts(), ["by bob, edited"]);
    assert_eq!(two.relay.removed(), []);
}

#[tokio::test(start_paused = true)]
async fn p10_an_edit_of_what_an_account_sent_that_is_gone_becomes_a_message_of_the_relay() {
    let directory = tempfile::tempdir().unwrap();
    let two = Two::open(directory.path()).await;
    two.arrive(ANN, "$1", post("by ann")).await;
    two.run().await;
    two.bench.accounts.remove(two.account);
    two.arrive(ANN, "$2", edit("$1", "edited")).await;
    two.run().await;
    assert_eq!(two.ann.texts(), ["by ann"]);
    assert_eq!(two.relay.texts(), ["edited (edited)"]);
    // It is back, and edits its own message.
    two.log_in();
    two.arrive(ANN, "$3", edit("$1", "edited|twice")).await;
    two.run().await;
    assert_eq!(two.ann.texts(), ["edited"]);
    assert_eq!(two.relay.texts(), ["twice"]);
}

#[tokio::test(start_paused = true)]
async fn p10_the_relay_speaks_for_an_account_that_is_limited_and_the_account_takes_over_again() {
    let directory = tempfile::tempdir().unwrap();
    let two = Two::open(directory.path()).await;
    let limited = SendError::RateLimited {
        after: Some(Duration::from_secs(5)),
    };
    two.ann.script().extend([Next::Work, Next::Fail(limited)]);
    for number in 0..4 {
        let event = format!("${number}");
        two.arrive(ANN, &event, post(&format!("m{number}"))).await;
    }
    two.run().await;
    assert_eq!(two.ann.texts(), ["m0"]);
    assert_eq!(two.relay.texts(), ["m1", "m2", "m3"]);
    assert_eq!(
        two.bench
            .accounts
            .new_stand_ins()
            .into_iter()
            .collect::<Vec<_>>(),
        [(two.account, StandIn::Limited)]
    );
    // It is said once.
    assert!(two.bench.accounts.new_stand_ins().is_empty());
    tokio::time::sleep(Duration::from_hours(1)).await;
    two.arrive(ANN, "$4", post("m4")).await;
    two.run().await;
    assert_eq!(two.ann.texts(), ["m0", "m4"]);
}

#[tokio::test(start_paused = true)]
async fn p10_the_relay_speaks_where_an_account_may_not_write_or_is_signed_out() {
    for refusal in [closed as fn() -> SendError, signed_out] {
        let directory = tempfile::tempdir().unwrap();
        let two = Two::open(directory.path()).await;
        two.ann.script().push_back(Next::Fail(refusal()));
        two.arrive(ANN, "$1", post("one")).await;
        two.arrive(ANN, "$2", post("two")).await;
        two.run().await;
        assert_eq!(two.relay.texts(), ["one", "two"]);
        assert_eq!(two.ann.texts(), Vec::<String>::new());
        // The lane of the relay is not closed by that.
        let tally = two.bench.tally(Side::Silo).await;
        assert_eq!((tally.delivered, tally.closed_since), (2, None));
    }
}

#[tokio::test(start_paused = true)]
async fn d21_what_an_account_may_have_sent_before_it_was_gone_is_looked_for_by_the_relay() {
    for arrived in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let two = Two::open(directory.path()).await;
        let lost = not_now(Outcome::Unknown);
        two.ann.script().push_back(if arrived {
            Next::WorkThenFail(lost)
        } else {
            Next::Fail(lost)
        });
        two.ann.script().push_back(Next::Fail(signed_out()));
        two.arrive(ANN, "$1", post("one")).await;
        two.arrive(BOB, "$2", post("two")).await;
        two.run().await;
        let sent: [&[&str]; 2] = if arrived {
            [&["one"], &["two"]]
        } else {
            [&[], &["one", "two"]]
        };
        assert_eq!([two.ann.texts(), two.relay.texts()], sent, "{arrived}");
        // The account that has sent it owns it.
        let delete = Action::Delete {
            target: "$1".into(),
        };
        two.log_in();
        two.arrive(ANN, "$3", delete).await;
        two.run().await;
        assert_eq!(two.ann.removed().len(), usize::from(arrived));
        assert_eq!(two.relay.removed().len(), usize::from(!arrived));
    }
}

#[tokio::test(start_paused = true)]
async fn d21_where_nobody_can_tell_what_an_account_has_sent_the_message_fails_and_is_not_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let two = Two::open(directory.path()).await;
    two.ann
        .script()
        .push_back(Next::WorkThenFail(not_now(Outcome::Unknown)));
    two.ann.script().push_back(Next::Fail(signed_out()));
    two.relay
        .blind
        .lock()
        .unwrap()
        .push_back(SendError::Refused {
            reason: "nobody can tell".to_owned(),
        });
    two.arrive(ANN, "$1", post("one")).await;
    two.run().await;
    assert_eq!(two.relay.texts(), Vec::<String>::new());
    assert_eq!(two.bench.tally(Side::Silo).await.failed, 1);
}

#[tokio::test(start_paused = true)]
async fn d16_a_restart_in_the_middle_of_a_send_leaves_it_to_the_same_account() {
    let directory = tempfile::tempdir().unwrap();
    let (ann, account) = {
        let two = Two::open(directory.path()).await;
        two.ann
            .script()
            .push_back(Next::WorkThenFail(not_now(Outcome::Unknown)));
        two.arrive(ANN, "$1", post("once")).await;
        two.bench.run(&two.relay, Duration::from_millis(50)).await;
        assert_eq!(two.pending().await, 1);
        (two.ann.clone(), two.account)
    };
    // The account starts later than the lanes: the relay finds what it has sent.
    let two = Two::open(directory.path()).await;
    two.bench.accounts.remove(two.account);
    assert_eq!(two.account, account);
    two.relay
        .others
        .lock()
        .unwrap()
        .insert(account, ann.clone());
    two.run().await;
    assert_eq!(two.pending().await, 0);
    assert_eq!(ann.texts(), ["once"]);
    assert_eq!(two.relay.texts(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_limited_relay_bundles_no_message_that_another_account_is_to_send() {
    let directory = tempfile::tempdir().unwrap();
    let two = Two::open(directory.path()).await;
    let limited = SendError::RateLimited {
        after: Some(Duration::from_secs(5)),
    };
    two.relay.script().extend([Next::Work, Next::Fail(limited)]);
    for (number, by) in [BOB, BOB, BOB, ANN, BOB].into_iter().enumerate() {
        let event = format!("${number}");
        two.arrive(by, &event, post(&format!("m{number}"))).await;
    }
    two.run().await;
    assert_eq!(two.relay.texts(), ["m0", "m1 + m2", "m4"]);
    assert_eq!(two.ann.texts(), ["m3"]);
}

#[tokio::test(start_paused = true)]
async fn p10_the_relay_speaks_for_an_account_that_fails_again_and_again_until_it_has_synced_anew() {
    let directory = tempfile::tempdir().unwrap();
    let two = Two::open(directory.path()).await;
    let fails = || Next::Fail(not_now(Outcome::NotDone));
    two.ann.script().extend([Next::Work, fails(), fails()]);
    for number in 0..3 {
        let event = format!("${number}");
        two.arrive(ANN, &event, post(&format!("m{number}"))).await;
    }
    two.run().await;
    assert_eq!(two.ann.texts(), ["m0"]);
    assert_eq!(two.relay.texts(), ["m1", "m2"]);
    two.log_in();
    two.arrive(ANN, "$3", post("m3")).await;
    two.run().await;
    assert_eq!(two.ann.texts(), ["m0", "m3"]);
}
