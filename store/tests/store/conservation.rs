//! Random sequences of operations against a small model: no delivery is lost, duplicated, reordered or miscounted.

use std::collections::{BTreeSet, VecDeque};

use footbridge_store::{
    Accepted, DeliveryId, FailureNotice, LaneId, Millis, Payload, Place, QueueHead, RemoteId,
    RetryDecision, SkipRule, Store, Undelivered,
};
use proptest::prelude::*;

use crate::support::{
    Fixture, NOW, arrival, balances, copy, to_matrix, to_silo, undecryptable_arrival,
};

#[derive(Clone, Debug)]
enum Verb {
    /// Place, id, kind: decrypted, undecryptable, skipped.
    Accept(usize, u8, u8),
    /// Lane, more steps to come.
    Step(usize, bool),
    Plan(usize),
    /// Lane, how many are bundled.
    Bind(usize, usize),
    Unbind(usize),
    UnknownOutcome(usize),
    Postpone(usize),
    Skip(usize),
    /// Lane; the delivery cannot be retried.
    Fail(usize),
    /// Lane; the delivery can be retried.
    Park(usize),
    /// Which of the parked deliveries.
    Again(usize),
    /// Which of the undecryptable entries, whether it is decrypted.
    Fill(usize, bool),
    /// Portal, whether it is paused or resumed.
    PortalHold(usize, bool),
    Tick,
    Restart,
}

fn verb() -> impl Strategy<Value = Verb> {
    let lane = 0..4_usize;
    prop_oneof![
        8 => (0..3_usize, 0..30_u8, 0..5_u8).prop_map(|(p, id, kind)| Verb::Accept(p, id, kind)),
        6 => (lane.clone(), any::<bool>()).prop_map(|(lane, more)| Verb::Step(lane, more)),
        1 => lane.clone().prop_map(Verb::Plan),
        3 => (lane.clone(), 2..5_usize).prop_map(|(lane, count)| Verb::Bind(lane, count)),
        1 => lane.clone().prop_map(Verb::Unbind),
        1 => lane.clone().prop_map(Verb::UnknownOutcome),
        2 => lane.clone().prop_map(Verb::Postpone),
        1 => lane.clone().prop_map(Verb::Skip),
        2 => lane.prop_map(Verb::Fail),
        3 => (0..4_usize).prop_map(Verb::Park),
        3 => (0..6_usize).prop_map(Verb::Again),
        2 => (0..4_usize, any::<bool>()).prop_map(|(which, readable)| Verb::Fill(which, readable)),
        2 => (0..2_usize, any::<bool>()).prop_map(|(portal, held)| Verb::PortalHold(portal, held)),
        2 => Just(Verb::Tick),
        1 => Just(Verb::Restart),
    ]
}

/// One pending delivery of a lane in the model.
#[derive(Clone, Debug)]
struct PendingDelivery {
    /// Its position among all deliveries.
    order: usize,
    /// The event, or the notice, that it delivers.
    payload: String,
    /// The place that it comes from.
    from: usize,
    waits_until: Option<i64>,
    active: bool,
    /// Whether the outcome of the current step is unknown.
    unsure: bool,
    /// Whether a step of it is done.
    stepped: bool,
    due: i64,
    /// The order of its bundle's leader.
    leader: Option<usize>,
}

#[derive(Default)]
struct Lane {
    deliveries: VecDeque<PendingDelivery>,
    accepted: u64,
    delivered: u64,
    skipped: u64,
    failed: u64,
}

struct Model {
    lanes: [Lane; 4],
    known: BTreeSet<String>,
    /// The parked deliveries: id, lane.
    parked: Vec<(DeliveryId, usize, PendingDelivery)>,
    /// Which portals are paused.
    held: [bool; 2],
    now: i64,
    count: usize,
}

impl Model {
    /// Whether no portal between a place and a lane is paused.
    fn is_open(&self, lane: usize, from: usize) -> bool {
        let other = from.checked_sub(1);
        !self.held[lane % 2] && other.is_none_or(|portal| !self.held[portal])
    }

    /// Splits the bundles that were not attempted and of which a part is on hold. Returns whether such a bundle was
    /// attempted.
    fn part(&mut self, lane: usize) -> bool {
        let deliveries = &self.lanes[lane].deliveries;
        let leaders: BTreeSet<usize> = deliveries
            .iter()
            .filter_map(|pending| pending.leader)
            .collect();
        let (mut stuck, mut apart) = (false, BTreeSet::new());
        for leader in leaders {
            let first = deliveries
                .iter()
                .find(|pending| pending.order == leader)
                .unwrap();
            let goes = self.is_open(lane, first.from);
            let mut riders = deliveries
                .iter()
                .filter(|pending| pending.leader == Some(leader));
            if riders.any(|rider| self.is_open(lane, rider.from) != goes) {
                if first.active {
                    stuck = true;
                } else {
                    apart.insert(Some(leader));
                }
            }
        }
        for pending in &mut self.lanes[lane].deliveries {
            if pending.leader.is_some() && apart.contains(&pending.leader) {
                pending.leader = None;
            }
        }
        stuck
    }

    /// The index of the delivery that must be the head, or when to ask again.
    fn head(&mut self, lane: usize) -> Option<Result<usize, i64>> {
        let stuck = self.part(lane);
        let deliveries = &self.lanes[lane].deliveries;
        let led = |pending: &PendingDelivery| pending.leader.is_some();
        let may = |pending: &PendingDelivery| !stuck && self.is_open(lane, pending.from);
        let first = deliveries
            .iter()
            .position(|pending| pending.active && !led(pending) && (pending.unsure || may(pending)))
            .or_else(|| {
                deliveries.iter().position(|pending| {
                    pending.waits_until.is_none_or(|until| until > self.now)
                        && !led(pending)
                        && may(pending)
                })
            })?;
        let pending = &deliveries[first];
        Some(match pending.waits_until {
            Some(until) => Err(until),
            None if pending.due > self.now => Err(pending.due),
            None => Ok(first),
        })
    }

    fn add_delivery(
        &mut self,
        lane: usize,
        (from, payload): (usize, &str),
        waits_until: Option<i64>,
    ) {
        self.count += 1;
        let pending = PendingDelivery {
            order: self.count,
            payload: payload.to_owned(),
            from,
            waits_until,
            active: false,
            unsure: false,
            stepped: false,
            due: 0,
            leader: None,
        };
        self.lanes[lane].accepted += 1;
        self.lanes[lane].deliveries.push_back(pending);
    }
}

/// Room and channels `a` and `b`; the lanes to a, to b, and to the room from a and from b.
struct Run {
    fixture: Fixture,
    model: Model,
    places: [Place; 3],
    lanes: [LaneId; 4],
    copies: usize,
}

/// The lanes in which an arrival in each place gets a delivery.
const FAN_OUT: [[usize; 2]; 3] = [[0, 1], [2, 1], [3, 0]];
impl Run {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let places = [
            fixture.room.clone(),
            fixture.a.channel.clone(),
            fixture.b.channel.clone(),
        ];
        let lanes = [
            to_silo(&fixture.a),
            to_silo(&fixture.b),
            to_matrix(&fixture.a),
            to_matrix(&fixture.b),
        ];
        let model = Model {
            lanes: Default::default(),
            known: BTreeSet::new(),
            parked: Vec::new(),
            held: [false; 2],
            now: NOW.0,
            count: 0,
        };
        Self {
            fixture,
            model,
            places,
            lanes,
            copies: 0,
        }
    }

    fn store(&self) -> &Store {
        &self.fixture.store
    }

    fn now(&self) -> Millis {
        Millis(self.model.now)
    }

    /// The head of a lane according to the store, after a check against the model.
    async fn head(&mut self, lane: usize) -> Option<(footbridge_store::Delivery, usize)> {
        let found = self
            .store()
            .queue_head(self.lanes[lane], self.now())
            .await
            .unwrap();
        match (self.model.head(lane), found) {
            (None, QueueHead::Empty) => None,
            (Some(Err(until)), QueueHead::NotBefore(then)) if then.0 == until => None,
            (Some(Ok(index)), QueueHead::Ready(delivery)) => {
                let pending = &self.model.lanes[lane].deliveries[index];
                assert_eq!(delivery.payload, pending.payload.as_bytes());
                Some((*delivery, index))
            }
            (expected, found) => panic!("lane {lane}: {expected:?}, but {found:?}"),
        }
    }

    async fn accept(&mut self, place: usize, id: u8, kind: u8) {
        let name = format!("{place}-{id}");
        let at = &self.places[place];
        let until = self.model.now + 10;
        let one = match kind {
            0 => arrival(at, &name, Payload::Skipped(SkipRule::Empty)),
            1 => undecryptable_arrival(at, &name, until),
            _ => arrival(at, &name, Payload::Ready(name.clone().into_bytes())),
        };
        let answer = self.fixture.accept(vec![one]).await;
        if !self.model.known.insert(name.clone()) {
            assert_eq!(answer, [Accepted::Duplicate]);
            return;
        }
        let mut accepted_lanes = Vec::new();
        for lane in FAN_OUT[place] {
            if kind == 0 {
                self.model.lanes[lane].accepted += 1;
                self.model.lanes[lane].skipped += 1;
            } else {
                self.model
                    .add_delivery(lane, (place, &name), (kind == 1).then_some(until));
                accepted_lanes.push(self.lanes[lane]);
            }
        }
        assert_eq!(answer, [Accepted::New(accepted_lanes)]);
    }

    async fn step(&mut self, lane: usize, more: bool) {
        let Some((delivery, index)) = self.head(lane).await else {
            return;
        };
        self.copies += 1;
        let made = copy(&format!("copy-{}", self.copies));
        self.store()
            .complete_step(delivery.id, Some(&made), None, !more, self.now())
            .await
            .unwrap();
        let echo = arrival(
            &delivery.to,
            &made.remote.0,
            Payload::Ready(b"echo".to_vec()),
        );
        assert_eq!(self.fixture.accept(vec![echo]).await, [Accepted::Duplicate]);
        let lane = &mut self.model.lanes[lane];
        let leader = Some(lane.deliveries[index].order);
        if more {
            lane.deliveries[index].active = true;
            lane.deliveries[index].stepped = true;
            lane.deliveries[index].unsure = false;
            lane.deliveries[index].due = 0;
        } else {
            lane.deliveries.remove(index);
            lane.delivered += 1;
        }
        let before = lane.deliveries.len();
        lane.deliveries.retain(|pending| pending.leader != leader);
        lane.delivered += (before - lane.deliveries.len()) as u64;
    }

    async fn bind(&mut self, lane: usize, count: usize) {
        let Some((delivery, index)) = self.head(lane).await else {
            return;
        };
        let deliveries = &mut self.model.lanes[lane].deliveries;
        if delivery.steps_done > 0 || deliveries[index].active {
            return;
        }
        let line =
            self.fixture
                .store
                .lookahead(self.lanes[lane], delivery.id, 10, Millis(self.model.now));
        let members: Vec<_> = line.await.unwrap().into_iter().take(count).collect();
        let untouched = |owed: &footbridge_store::Delivery| owed.plan.is_none();
        if members.len() < 2 || !members.iter().all(untouched) {
            return;
        }
        let leader = deliveries[index].order;
        for member in &members[1..] {
            let payload = member.payload.as_slice();
            let mut deliveries = deliveries.iter_mut();
            let pending = deliveries
                .find(|pending| pending.payload.as_bytes() == payload)
                .unwrap();
            pending.leader = Some(leader);
        }
        let bundle = footbridge_store::Bundle {
            plan: b"together".to_vec(),
            members: members.iter().map(|member| member.id).collect(),
            merged: Vec::new(),
            included: Vec::new(),
        };
        assert!(self.store().create_bundle(bundle).await.unwrap());
    }

    async fn unbind(&mut self, lane: usize) {
        if let Some((delivery, index)) = self.head(lane).await {
            self.store().split_bundle(delivery.id).await.unwrap();
            let deliveries = &mut self.model.lanes[lane].deliveries;
            let leader = deliveries[index].order;
            for pending in deliveries
                .iter_mut()
                .filter(|pending| pending.leader == Some(leader))
            {
                pending.leader = None;
            }
        }
    }

    async fn give_up(&mut self, lane: usize, how: Undelivered) {
        let Some((delivery, index)) = self.head(lane).await else {
            return;
        };
        self.store()
            .end_undelivered(delivery.id, how.clone(), self.now())
            .await
            .unwrap();
        let first = self.model.lanes[lane].deliveries.remove(index).unwrap();
        let lane = &mut self.model.lanes[lane];
        let before = lane.deliveries.len();
        lane.deliveries
            .retain(|pending| pending.leader != Some(first.order));
        let ended = 1 + (before - lane.deliveries.len()) as u64;
        match how {
            Undelivered::Skipped(_) => lane.skipped += ended,
            Undelivered::Failed { .. } => lane.failed += ended,
        }
    }

    async fn park(&mut self, lane: usize) {
        // `Fail` ends bundles; `Park` ends one delivery, which can be retried.
        self.unbind(lane).await;
        let Some((delivery, index)) = self.head(lane).await else {
            return;
        };
        let how = Undelivered::Failed {
            kind: "rejected",
            reason: "no".to_owned(),
            about: None,
            notice: FailureNotice::ToSender,
        };
        self.store()
            .end_undelivered(delivery.id, how, self.now())
            .await
            .unwrap();
        let mut pending = self.model.lanes[lane].deliveries.remove(index).unwrap();
        pending.active = pending.stepped;
        pending.unsure = false;
        pending.due = 0;
        self.model.lanes[lane].failed += 1;
        self.model.parked.push((delivery.id, lane, pending));
    }

    async fn again(&mut self, which: usize) {
        if which >= self.model.parked.len() {
            return;
        }
        let (id, lane, pending) = self.model.parked.remove(which);
        // Twice, as after a kill.
        let woken = self.store().retry_parked(&[id]).await.unwrap();
        assert_eq!(woken, [self.lanes[lane]]);
        assert_eq!(self.store().retry_parked(&[id]).await.unwrap(), []);
        let lane = &mut self.model.lanes[lane];
        lane.failed -= 1;
        let place = lane
            .deliveries
            .iter()
            .position(|other| other.order > pending.order)
            .unwrap_or(lane.deliveries.len());
        lane.deliveries.insert(place, pending);
    }

    async fn fill(&mut self, which: usize, readable: bool) {
        let waiting = self.store().undecryptable_events(None).await.unwrap();
        let Some(one) = waiting.get(which) else {
            return;
        };
        let name = one.event_id.0.clone();
        let payload = if readable {
            Payload::Ready(name.clone().into_bytes())
        } else {
            Payload::Skipped(SkipRule::Empty)
        };
        self.store()
            .fill(one.entry, payload, self.now())
            .await
            .unwrap();
        for lane in &mut self.model.lanes {
            for pending in lane
                .deliveries
                .iter_mut()
                .filter(|pending| pending.payload == name)
            {
                pending.waits_until = None;
            }
            if !readable {
                let before = lane.deliveries.len();
                lane.deliveries.retain(|pending| pending.payload != name);
                lane.skipped += (before - lane.deliveries.len()) as u64;
            }
        }
    }

    async fn apply(mut self, verb: Verb) -> Self {
        match verb {
            Verb::Accept(place, id, kind) => self.accept(place, id, kind).await,
            Verb::Step(lane, more) => self.step(lane, more).await,
            Verb::Plan(lane) => {
                if let Some((delivery, _)) = self.head(lane).await {
                    self.store().save_plan(delivery.id, b"plan").await.unwrap();
                }
            }
            Verb::UnknownOutcome(lane) => {
                if let Some((delivery, index)) = self.head(lane).await {
                    self.store()
                        .mark_outcome_unknown(delivery.id, None, self.now())
                        .await
                        .unwrap();
                    let unknown = self.store().unknown_outcomes(&delivery.to).await.unwrap();
                    assert!(!unknown.is_empty());
                    self.model.lanes[lane].deliveries[index].active = true;
                    self.model.lanes[lane].deliveries[index].unsure = true;
                }
            }
            Verb::Bind(lane, count) => self.bind(lane, count).await,
            Verb::Unbind(lane) => self.unbind(lane).await,
            Verb::Postpone(lane) => {
                if let Some((delivery, index)) = self.head(lane).await {
                    let due = self.model.now + 5;
                    self.store()
                        .postpone(
                            delivery.id,
                            RetryDecision::without_blame(self.now(), Millis(due), false, "unknown"),
                        )
                        .await
                        .unwrap();
                    self.model.lanes[lane].deliveries[index].due = due;
                }
            }
            Verb::Skip(lane) => {
                self.give_up(lane, Undelivered::Skipped(SkipRule::NothingToDo))
                    .await;
            }
            Verb::Fail(lane) => {
                let how = Undelivered::Failed {
                    kind: "closed",
                    reason: "closed".to_owned(),
                    about: None,
                    notice: FailureNotice::None,
                };
                self.give_up(lane, how).await;
            }
            Verb::Park(lane) => self.park(lane).await,
            Verb::Again(which) => self.again(which).await,
            Verb::Fill(which, readable) => self.fill(which, readable).await,
            Verb::PortalHold(portal, held) => {
                let id = [self.fixture.a.id, self.fixture.b.id][portal];
                if held {
                    self.store().pause(id, "@ann:x", self.now()).await.unwrap();
                } else {
                    self.store().resume(id).await.unwrap();
                }
                self.model.held[portal] = held;
            }
            Verb::Tick => self.model.now += 4,
            Verb::Restart => self.fixture = self.fixture.restart().await,
        }
        self
    }

    /// The counters match the model's and add up; a payload is kept exactly as long as it is needed.
    async fn check(&mut self) {
        let tallies = self.store().lane_counters().await.unwrap();
        for (index, (id, lane)) in self.lanes.iter().zip(&self.model.lanes).enumerate() {
            let counters = tallies
                .iter()
                .find(|counters| counters.lane == *id)
                .unwrap();
            assert!(balances(counters), "{counters:?}");
            let skipped = counters.skipped.iter().map(|(_, count)| count).sum::<u64>();
            assert_eq!(
                (
                    counters.accepted,
                    counters.delivered,
                    skipped,
                    counters.failed
                ),
                (lane.accepted, lane.delivered, lane.skipped, lane.failed)
            );
            assert_eq!(counters.pending, lane.deliveries.len() as u64);
            let parked = self
                .model
                .parked
                .iter()
                .filter(|(_, failed, _)| self.lanes[*failed] == *id);
            assert_eq!(counters.parked, parked.count() as u64);
            let deliveries = lane.deliveries.iter();
            let held = deliveries.filter(|pending| !self.model.is_open(index, pending.from));
            assert_eq!(counters.on_hold, held.count() as u64);
            assert!(
                lane.deliveries
                    .iter()
                    .map(|pending| pending.order)
                    .is_sorted()
            );
        }
        let recent_retryable: i64 = self
            .fixture
            .sql()
            .query_row(
                "SELECT count(*) FROM journal WHERE (payload IS NOT NULL)
                 <> (EXISTS (SELECT 1 FROM outbox WHERE entry_id = journal.id)
                     OR EXISTS (SELECT 1 FROM parked_delivery WHERE entry_id = journal.id AND retryable = 1))",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(recent_retryable, 0);
        for lane in 0..4 {
            self.head(lane).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_verbs_conserves_every_message(verbs in prop::collection::vec(verb(), 1..60)) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut run = Run::new().await;
            for verb in verbs {
                run = run.apply(verb).await;
                run.check().await;
            }
            let known = run.store().is_linked(&run.places[0], &RemoteId::from("0-0")).await.unwrap();
            assert_eq!(known, run.model.known.contains("0-0"));
        });
    }
}
