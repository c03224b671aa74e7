//! Random sequences of verbs against a small model: nothing is lost, doubled, reordered or miscounted.

use std::collections::{BTreeSet, VecDeque};

use footbridge_store::{
    Accepted, DeliveryId, Head, LaneId, Millis, Payload, Place, RemoteId, Setback, Store, Tell,
    Undelivered,
};
use proptest::prelude::*;

use crate::ground::{Ground, NOW, arrival, balances, copy, sealed_letter, to_matrix, to_silo};

#[derive(Clone, Debug)]
enum Verb {
    /// Place, id, kind: readable, waiting, skipped.
    Accept(usize, u8, u8),
    /// Lane, more steps to come.
    Step(usize, bool),
    Plan(usize),
    /// Lane, how many go together.
    Bind(usize, usize),
    Unbind(usize),
    Doubt(usize),
    Postpone(usize),
    Skip(usize),
    /// Lane; nothing of it is kept.
    Fail(usize),
    /// Lane; kept to be tried again.
    Park(usize),
    /// Which of those that failed and are kept.
    Again(usize),
    /// Which of the waiting, readable.
    Fill(usize, bool),
    /// Portal, whether it is paused or let go.
    Hold(usize, bool),
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
        1 => lane.clone().prop_map(Verb::Doubt),
        2 => lane.clone().prop_map(Verb::Postpone),
        1 => lane.clone().prop_map(Verb::Skip),
        2 => lane.prop_map(Verb::Fail),
        3 => (0..4_usize).prop_map(Verb::Park),
        3 => (0..6_usize).prop_map(Verb::Again),
        2 => (0..4_usize, any::<bool>()).prop_map(|(which, readable)| Verb::Fill(which, readable)),
        2 => (0..2_usize, any::<bool>()).prop_map(|(portal, held)| Verb::Hold(portal, held)),
        2 => Just(Verb::Tick),
        1 => Just(Verb::Restart),
    ]
}

/// What a lane owes, by the model.
#[derive(Clone, Debug)]
struct Debt {
    /// Its place among all debts.
    order: usize,
    /// The fact, or the notice, that it delivers.
    letter: String,
    /// Where it was said.
    from: usize,
    waits_until: Option<i64>,
    begun: bool,
    /// Whether nobody knows if the present step happened.
    unsure: bool,
    /// Whether a step of it is done.
    stepped: bool,
    due: i64,
    /// The order of the debt that pays this one along.
    leader: Option<usize>,
}

#[derive(Default)]
struct Lane {
    debts: VecDeque<Debt>,
    accepted: u64,
    delivered: u64,
    skipped: u64,
    failed: u64,
}

struct Model {
    lanes: [Lane; 4],
    known: BTreeSet<String>,
    /// What failed and is kept: its number, its lane.
    parked: Vec<(DeliveryId, usize, Debt)>,
    /// Which portals are paused.
    held: [bool; 2],
    now: i64,
    count: usize,
}

impl Model {
    /// Whether every portal between a place and a lane lets pass what was said there.
    fn is_open(&self, lane: usize, from: usize) -> bool {
        let other = from.checked_sub(1);
        !self.held[lane % 2] && other.is_none_or(|portal| !self.held[portal])
    }

    /// Takes apart what was bound, was not tried and is held up in part. Answers whether something is that was tried.
    fn part(&mut self, lane: usize) -> bool {
        let debts = &self.lanes[lane].debts;
        let leaders: BTreeSet<usize> = debts.iter().filter_map(|debt| debt.leader).collect();
        let (mut stuck, mut apart) = (false, BTreeSet::new());
        for leader in leaders {
            let first = debts.iter().find(|debt| debt.order == leader).unwrap();
            let goes = self.is_open(lane, first.from);
            let mut riders = debts.iter().filter(|debt| debt.leader == Some(leader));
            if riders.any(|rider| self.is_open(lane, rider.from) != goes) {
                if first.begun {
                    stuck = true;
                } else {
                    apart.insert(Some(leader));
                }
            }
        }
        for debt in &mut self.lanes[lane].debts {
            if debt.leader.is_some() && apart.contains(&debt.leader) {
                debt.leader = None;
            }
        }
        stuck
    }

    /// The index of the debt that must come first, or when to ask again.
    fn head(&mut self, lane: usize) -> Option<Result<usize, i64>> {
        let stuck = self.part(lane);
        let debts = &self.lanes[lane].debts;
        let led = |debt: &Debt| debt.leader.is_some();
        let may = |debt: &Debt| !stuck && self.is_open(lane, debt.from);
        let first = debts
            .iter()
            .position(|debt| debt.begun && !led(debt) && (debt.unsure || may(debt)))
            .or_else(|| {
                debts.iter().position(|debt| {
                    debt.waits_until.is_none_or(|until| until > self.now) && !led(debt) && may(debt)
                })
            })?;
        let debt = &debts[first];
        Some(match debt.waits_until {
            Some(until) => Err(until),
            None if debt.due > self.now => Err(debt.due),
            None => Ok(first),
        })
    }

    fn owe(&mut self, lane: usize, (from, letter): (usize, &str), waits_until: Option<i64>) {
        self.count += 1;
        let debt = Debt {
            order: self.count,
            letter: letter.to_owned(),
            from,
            waits_until,
            begun: false,
            unsure: false,
            stepped: false,
            due: 0,
            leader: None,
        };
        self.lanes[lane].accepted += 1;
        self.lanes[lane].debts.push_back(debt);
    }
}

/// Room and channels `a` and `b`; the lanes to a, to b, and to the room from a and from b.
struct Run {
    ground: Ground,
    model: Model,
    places: [Place; 3],
    lanes: [LaneId; 4],
    copies: usize,
}

/// Which lanes an arrival in each place owes.
const FAN_OUT: [[usize; 2]; 3] = [[0, 1], [2, 1], [3, 0]];
impl Run {
    async fn new() -> Self {
        let ground = Ground::new().await;
        let places = [
            ground.room.clone(),
            ground.a.channel.clone(),
            ground.b.channel.clone(),
        ];
        let lanes = [
            to_silo(&ground.a),
            to_silo(&ground.b),
            to_matrix(&ground.a),
            to_matrix(&ground.b),
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
            ground,
            model,
            places,
            lanes,
            copies: 0,
        }
    }

    fn store(&self) -> &Store {
        &self.ground.store
    }

    fn now(&self) -> Millis {
        Millis(self.model.now)
    }

    /// What the store gives as the head of a lane, after making sure that it is the right one.
    async fn head(&mut self, lane: usize) -> Option<(footbridge_store::Delivery, usize)> {
        let found = self
            .store()
            .head(self.lanes[lane], self.now())
            .await
            .unwrap();
        match (self.model.head(lane), found) {
            (None, Head::Empty) => None,
            (Some(Err(until)), Head::NotBefore(then)) if then.0 == until => None,
            (Some(Ok(index)), Head::Ready(delivery)) => {
                let debt = &self.model.lanes[lane].debts[index];
                assert_eq!(delivery.payload, debt.letter.as_bytes());
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
            0 => arrival(at, &name, Payload::Skipped("rule")),
            1 => sealed_letter(at, &name, until),
            _ => arrival(at, &name, Payload::Ready(name.clone().into_bytes())),
        };
        let answer = self.ground.accept(vec![one]).await;
        if !self.model.known.insert(name.clone()) {
            assert_eq!(answer, [Accepted::Seen]);
            return;
        }
        let mut owing = Vec::new();
        for lane in FAN_OUT[place] {
            if kind == 0 {
                self.model.lanes[lane].accepted += 1;
                self.model.lanes[lane].skipped += 1;
            } else {
                self.model
                    .owe(lane, (place, &name), (kind == 1).then_some(until));
                owing.push(self.lanes[lane]);
            }
        }
        assert_eq!(answer, [Accepted::New(owing)]);
    }

    async fn step(&mut self, lane: usize, more: bool) {
        let Some((delivery, index)) = self.head(lane).await else {
            return;
        };
        self.copies += 1;
        let made = copy(&format!("copy-{}", self.copies));
        self.store()
            .step_done(delivery.id, Some(&made), None, !more, self.now())
            .await
            .unwrap();
        let echo = arrival(
            &delivery.to,
            &made.remote.0,
            Payload::Ready(b"echo".to_vec()),
        );
        assert_eq!(self.ground.accept(vec![echo]).await, [Accepted::Seen]);
        let lane = &mut self.model.lanes[lane];
        let leader = Some(lane.debts[index].order);
        if more {
            lane.debts[index].begun = true;
            lane.debts[index].stepped = true;
            lane.debts[index].unsure = false;
            lane.debts[index].due = 0;
        } else {
            lane.debts.remove(index);
            lane.delivered += 1;
        }
        let before = lane.debts.len();
        lane.debts.retain(|debt| debt.leader != leader);
        lane.delivered += (before - lane.debts.len()) as u64;
    }

    async fn bind(&mut self, lane: usize, count: usize) {
        let Some((delivery, index)) = self.head(lane).await else {
            return;
        };
        let debts = &mut self.model.lanes[lane].debts;
        if delivery.steps_done > 0 || debts[index].begun {
            return;
        }
        let line =
            self.ground
                .store
                .line(self.lanes[lane], delivery.id, 10, Millis(self.model.now));
        let members: Vec<_> = line.await.unwrap().into_iter().take(count).collect();
        let untouched = |owed: &footbridge_store::Delivery| owed.plan.is_none();
        if members.len() < 2 || !members.iter().all(untouched) {
            return;
        }
        let leader = debts[index].order;
        for member in &members[1..] {
            let letter = member.payload.as_slice();
            let mut debts = debts.iter_mut();
            let debt = debts.find(|debt| debt.letter.as_bytes() == letter).unwrap();
            debt.leader = Some(leader);
        }
        let bundle = footbridge_store::Bundle {
            plan: b"together".to_vec(),
            members: members.iter().map(|member| member.id).collect(),
            rewritten: Vec::new(),
            included: Vec::new(),
        };
        assert!(self.store().bind(bundle).await.unwrap());
    }

    async fn unbind(&mut self, lane: usize) {
        if let Some((delivery, index)) = self.head(lane).await {
            self.store().unbind(delivery.id).await.unwrap();
            let debts = &mut self.model.lanes[lane].debts;
            let leader = debts[index].order;
            for debt in debts.iter_mut().filter(|debt| debt.leader == Some(leader)) {
                debt.leader = None;
            }
        }
    }

    async fn give_up(&mut self, lane: usize, how: Undelivered) {
        let Some((delivery, index)) = self.head(lane).await else {
            return;
        };
        self.store()
            .undelivered(delivery.id, how.clone(), self.now())
            .await
            .unwrap();
        let first = self.model.lanes[lane].debts.remove(index).unwrap();
        let lane = &mut self.model.lanes[lane];
        let before = lane.debts.len();
        lane.debts.retain(|debt| debt.leader != Some(first.order));
        let ended = 1 + (before - lane.debts.len()) as u64;
        match how {
            Undelivered::Skipped(_) => lane.skipped += ended,
            Undelivered::Failed { .. } => lane.failed += ended,
        }
    }

    async fn park(&mut self, lane: usize) {
        // Together they end as `Fail` has it; here it is one that comes back.
        self.unbind(lane).await;
        let Some((delivery, index)) = self.head(lane).await else {
            return;
        };
        let how = Undelivered::Failed {
            kind: "rejected",
            reason: "no".to_owned(),
            about: None,
            tell: Tell::Sender,
        };
        self.store()
            .undelivered(delivery.id, how, self.now())
            .await
            .unwrap();
        let mut debt = self.model.lanes[lane].debts.remove(index).unwrap();
        debt.begun = debt.stepped;
        debt.unsure = false;
        debt.due = 0;
        self.model.lanes[lane].failed += 1;
        self.model.parked.push((delivery.id, lane, debt));
    }

    async fn again(&mut self, which: usize) {
        if which >= self.model.parked.len() {
            return;
        }
        let (id, lane, debt) = self.model.parked.remove(which);
        // Twice, as after a kill.
        let rung = self.store().try_again(&[id]).await.unwrap();
        assert_eq!(rung, [self.lanes[lane]]);
        assert_eq!(self.store().try_again(&[id]).await.unwrap(), []);
        let lane = &mut self.model.lanes[lane];
        lane.failed -= 1;
        let place = lane
            .debts
            .iter()
            .position(|other| other.order > debt.order)
            .unwrap_or(lane.debts.len());
        lane.debts.insert(place, debt);
    }

    async fn fill(&mut self, which: usize, readable: bool) {
        let waiting = self.store().waiting(None).await.unwrap();
        let Some(one) = waiting.get(which) else {
            return;
        };
        let name = one.fact.0.clone();
        let payload = if readable {
            Payload::Ready(name.clone().into_bytes())
        } else {
            Payload::Skipped("rule")
        };
        self.store()
            .fill(one.entry, payload, self.now())
            .await
            .unwrap();
        for lane in &mut self.model.lanes {
            for debt in lane.debts.iter_mut().filter(|debt| debt.letter == name) {
                debt.waits_until = None;
            }
            if !readable {
                let before = lane.debts.len();
                lane.debts.retain(|debt| debt.letter != name);
                lane.skipped += (before - lane.debts.len()) as u64;
            }
        }
    }

    async fn apply(mut self, verb: Verb) -> Self {
        match verb {
            Verb::Accept(place, id, kind) => self.accept(place, id, kind).await,
            Verb::Step(lane, more) => self.step(lane, more).await,
            Verb::Plan(lane) => {
                if let Some((delivery, _)) = self.head(lane).await {
                    self.store().planned(delivery.id, b"plan").await.unwrap();
                }
            }
            Verb::Doubt(lane) => {
                if let Some((delivery, index)) = self.head(lane).await {
                    self.store()
                        .unsure(delivery.id, None, self.now())
                        .await
                        .unwrap();
                    assert!(self.store().in_doubt(&delivery.to).await.unwrap());
                    self.model.lanes[lane].debts[index].begun = true;
                    self.model.lanes[lane].debts[index].unsure = true;
                }
            }
            Verb::Bind(lane, count) => self.bind(lane, count).await,
            Verb::Unbind(lane) => self.unbind(lane).await,
            Verb::Postpone(lane) => {
                if let Some((delivery, index)) = self.head(lane).await {
                    let due = self.model.now + 5;
                    self.store()
                        .postponed(
                            delivery.id,
                            Setback::of_nobody(self.now(), Millis(due), false, "unknown"),
                        )
                        .await
                        .unwrap();
                    self.model.lanes[lane].debts[index].due = due;
                }
            }
            Verb::Skip(lane) => {
                self.give_up(lane, Undelivered::Skipped("rule".to_owned()))
                    .await;
            }
            Verb::Fail(lane) => {
                let how = Undelivered::Failed {
                    kind: "closed",
                    reason: "closed".to_owned(),
                    about: None,
                    tell: Tell::Nobody,
                };
                self.give_up(lane, how).await;
            }
            Verb::Park(lane) => self.park(lane).await,
            Verb::Again(which) => self.again(which).await,
            Verb::Fill(which, readable) => self.fill(which, readable).await,
            Verb::Hold(portal, held) => {
                let id = [self.ground.a.id, self.ground.b.id][portal];
                if held {
                    self.store().pause(id, "@ann:x", self.now()).await.unwrap();
                } else {
                    self.store().resume(id).await.unwrap();
                }
                self.model.held[portal] = held;
            }
            Verb::Tick => self.model.now += 4,
            Verb::Restart => self.ground = self.ground.restart().await,
        }
        self
    }

    /// The counters are the model's and add up; a letter is kept exactly as long as it is owed.
    async fn check(&mut self) {
        let tallies = self.store().tallies().await.unwrap();
        for (index, (id, lane)) in self.lanes.iter().zip(&self.model.lanes).enumerate() {
            let tally = tallies.iter().find(|tally| tally.lane == *id).unwrap();
            assert!(balances(tally), "{tally:?}");
            let skipped = tally.skipped.iter().map(|(_, count)| count).sum::<u64>();
            assert_eq!(
                (tally.accepted, tally.delivered, skipped, tally.failed),
                (lane.accepted, lane.delivered, lane.skipped, lane.failed)
            );
            assert_eq!(tally.pending, lane.debts.len() as u64);
            let parked = self
                .model
                .parked
                .iter()
                .filter(|(_, failed, _)| self.lanes[*failed] == *id);
            assert_eq!(tally.parked, parked.count() as u64);
            let debts = lane.debts.iter();
            let held = debts.filter(|debt| !self.model.is_open(index, debt.from));
            assert_eq!(tally.held, held.count() as u64);
            assert!(lane.debts.iter().map(|debt| debt.order).is_sorted());
        }
        let unsettled: i64 = self
            .ground
            .sql()
            .query_row(
                "SELECT count(*) FROM journal WHERE (payload IS NOT NULL)
                 <> (EXISTS (SELECT 1 FROM outbox WHERE entry_id = journal.id)
                     OR EXISTS (SELECT 1 FROM parked WHERE entry_id = journal.id AND kept = 1))",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(unsettled, 0);
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
