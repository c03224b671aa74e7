//! A lane over a real store and an outlet that the test scripts: order, retries, refusals, unknown outcomes. How lanes
//! behave while the account is rate-limited is in `bundling.rs`.

mod failed_sends;
mod jumps;
mod loops;
mod passing;
mod redacted_edits;
mod redacted_texts;
mod senders;
mod unsent;
mod waking;

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use footbridge_core::{
    budget::Budget,
    capabilities::{
        Attribution, Capabilities, Deletes, EditHistory, Edits, Files, Idempotency, Limits,
        Reactions, Replies, TextLimit,
    },
    clock::Clock,
    file::File,
    inbox::{Arrival, ArrivalContent, Batch, Inbox, Signals},
    lane::{
        Lane, LaneEnd, LaneSender, OutletHealth, RelayFilter, RelayFilters, RetryLimits,
        personal_accounts::PersonalAccounts,
    },
    message::{Action, Message, Sender, Style},
    outlet::{
        Content, Done, FetchedFile, Outcome, Outgoing, Outlet, Part, Plan, SendError,
        SimilarMessages, Step, TextBeforeEdit,
    },
    render::Html,
    spool::{Spool, Spooled},
    text::Body,
};
use footbridge_store::{
    Accepted, AccountId, Copy, LaneId, Millis, Place, Portal, PortalId, PortalSpec, QueueHead,
    RemoteId, Side, SkipRule, Store, StoreKey,
};
use tokio_util::sync::CancellationToken;

/// What the outlet does with the next step.
pub enum Next {
    Work,
    Fail(SendError),
    /// Performs the step and loses the answer.
    WorkThenFail(SendError),
    /// Performs the step, and meanwhile somebody pauses a portal.
    WorkThenPause(Store, PortalId),
    /// Somebody pauses a portal, and the step is refused.
    PauseThenRefuse(Store, PortalId),
    /// Performs the step and answers with the id of another message.
    Claim(&'static str),
    /// The same, and the answer is lost: a look-up shows that message.
    ClaimThenLose(&'static str),
    /// Somebody pauses a portal, and the answer is lost; if so, the work is done.
    PauseThenLose(Store, PortalId, bool),
}

/// A channel in memory that records everything.
pub struct FakeOutlet {
    is_idempotent: bool,
    /// Whether its messages can be deleted.
    pub removes: AtomicBool,
    /// Whether an edit is an event of its own, beside the text that it replaces.
    pub events: AtomicBool,
    /// Every text that was sent, in order.
    sent: Mutex<Vec<String>>,
    /// The error of every step after the end of the script.
    pub always: Mutex<Option<fn() -> SendError>>,
    /// Whether the side answers anything except steps.
    pub answers: AtomicBool,
    script: Mutex<VecDeque<Next>>,
    /// Whether more messages followed each one than a look-up reads.
    pub is_busy: AtomicBool,
    /// The errors of the next look-ups.
    pub blind: Mutex<VecDeque<SendError>>,
    posts: Mutex<Vec<(RemoteId, String)>>,
    pub keys: Mutex<Vec<String>>,
    gone: Mutex<Vec<RemoteId>>,
    /// Those of the deletions that may also delete the replies of others.
    pub along: Mutex<Vec<RemoteId>>,
    /// The texts of each bundle.
    shared: Mutex<HashMap<RemoteId, Vec<String>>>,
    /// The result of each transaction key.
    made: Mutex<HashMap<String, Done>>,
    /// The texts of messages and edits of the room when the lane reads them again; `None` where they were redacted.
    read_again: Mutex<HashMap<RemoteId, Option<String>>>,
    /// The files of all of them.
    pub files: Mutex<Vec<File>>,
    /// The error of reading them again.
    unread: Mutex<Option<fn() -> SendError>>,
    /// With this begin the ids of its messages.
    pub ids: Mutex<&'static str>,
    /// The outlets of other accounts on the same side, whose messages it can find.
    pub others: Mutex<HashMap<AccountId, Arc<FakeOutlet>>>,
}

impl FakeOutlet {
    pub fn new(is_idempotent: bool, script: Vec<Next>) -> Arc<Self> {
        Arc::new(Self {
            is_idempotent,
            removes: AtomicBool::new(true),
            events: AtomicBool::new(false),
            sent: Mutex::default(),
            always: Mutex::default(),
            answers: AtomicBool::new(true),
            script: Mutex::new(script.into()),
            is_busy: AtomicBool::new(false),
            blind: Mutex::default(),
            posts: Mutex::default(),
            keys: Mutex::default(),
            gone: Mutex::default(),
            along: Mutex::default(),
            shared: Mutex::default(),
            made: Mutex::default(),
            read_again: Mutex::default(),
            files: Mutex::default(),
            unread: Mutex::default(),
            ids: Mutex::new("wall"),
            others: Mutex::default(),
        })
    }

    pub fn reads(&self, event: &str, text: Option<&str>) {
        let mut read = self.read_again.lock().unwrap();
        read.insert(event.into(), text.map(str::to_owned));
    }

    pub fn forgets(&self, event: &str) {
        let mut read = self.read_again.lock().unwrap();
        read.remove(&RemoteId::from(event));
    }

    pub fn unread(&self) -> std::sync::MutexGuard<'_, Option<fn() -> SendError>> {
        self.unread.lock().unwrap()
    }

    pub fn removed(&self) -> Vec<RemoteId> {
        self.gone.lock().unwrap().clone()
    }

    pub fn script(&self) -> std::sync::MutexGuard<'_, VecDeque<Next>> {
        self.script.lock().unwrap()
    }

    pub fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }

    /// Every text that was sent, in order.
    pub fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().clone()
    }

    /// The texts of all messages and edits that were not deleted.
    pub fn readable(&self) -> Vec<String> {
        let gone = self.removed();
        let posts = self.posts.lock().unwrap();
        let left = posts.iter().filter(|(remote, _)| !gone.contains(remote));
        left.map(|(_, text)| text.clone()).collect()
    }

    pub fn texts(&self) -> Vec<String> {
        self.posts
            .lock()
            .unwrap()
            .iter()
            .map(|(_, text)| text.clone())
            .collect()
    }

    fn id_of(&self, number: usize) -> RemoteId {
        RemoteId(format!("{}-{number}", self.ids.lock().unwrap()))
    }

    fn work(&self, step: &Step) -> Done {
        if let Step::Post { content, .. }
        | Step::SendFile { content, .. }
        | Step::Edit { content, .. } = step
        {
            self.sent.lock().unwrap().push(content.text.clone());
        }
        match step {
            Step::Edit {
                target, content, ..
            } if self.events.load(Ordering::Relaxed) => {
                let mut posts = self.posts.lock().unwrap();
                let remote = self.id_of(posts.len());
                posts.push((remote.clone(), content.text.clone()));
                Done::EditedBy {
                    target: target.clone(),
                    by: Copy {
                        remote,
                        thread: None,
                        sent_at: Millis(1),
                        file: None,
                    },
                }
            }
            Step::Post { content, .. } | Step::SendFile { content, .. } => {
                let mut posts = self.posts.lock().unwrap();
                let remote = self.id_of(posts.len());
                posts.push((remote.clone(), content.text.clone()));
                Done::Created(Copy {
                    remote,
                    thread: None,
                    sent_at: Millis(1),
                    file: None,
                })
            }
            Step::React { .. } | Step::Unreact { .. } => {
                panic!("nobody sends files or reacts here")
            }
            Step::Edit {
                target, content, ..
            } => {
                for (id, text) in self.posts.lock().unwrap().iter_mut() {
                    if id == target {
                        text.clone_from(&content.text);
                    }
                }
                Done::Edited(target.clone())
            }
            Step::Delete { target, by_edit } => {
                if !by_edit {
                    self.along.lock().unwrap().push(target.clone());
                }
                self.gone.lock().unwrap().push(target.clone());
                Done::Deleted(target.clone())
            }
            Step::Bundle { parts, .. } => {
                let texts: Vec<String> = parts.iter().map(|part| part.body.clone()).collect();
                let mut posts = self.posts.lock().unwrap();
                let remote = self.id_of(posts.len());
                posts.push((remote.clone(), texts.join(" + ")));
                self.shared.lock().unwrap().insert(remote.clone(), texts);
                Done::Created(Copy {
                    remote,
                    thread: None,
                    sent_at: Millis(1),
                    file: None,
                })
            }
            Step::EditPart {
                target, slot, part, ..
            } => {
                let mut shared = self.shared.lock().unwrap();
                let texts = shared.get_mut(target).unwrap();
                texts[usize::try_from(*slot).unwrap()] = part
                    .as_ref()
                    .map(|part| part.body.clone())
                    .unwrap_or_default();
                let text = texts.join(" + ");
                for (id, old) in self.posts.lock().unwrap().iter_mut() {
                    if id == target {
                        old.clone_from(&text);
                    }
                }
                let (target, slot) = (target.clone(), *slot);
                let by = Copy {
                    remote: RemoteId(format!("{target}, without {slot}")),
                    thread: None,
                    sent_at: Millis(1),
                    file: None,
                };
                match part {
                    Some(_) => Done::Edited(target),
                    None => Done::PartRemoved { target, slot, by },
                }
            }
        }
    }

    /// Performs the step; where the outlet is idempotent, and for a bundle, once per key.
    fn work_once(&self, key: &str, step: &Step) -> Done {
        if !self.is_idempotent && !matches!(step, Step::Bundle { .. }) {
            return self.work(step);
        }
        let known = self.made.lock().unwrap().get(key).cloned();
        known.unwrap_or_else(|| {
            let done = self.work(step);
            self.made
                .lock()
                .unwrap()
                .insert(key.to_owned(), done.clone());
            done
        })
    }
}

#[async_trait]
impl Outlet for FakeOutlet {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            renderer: &Html,
            limits: Limits::all(TextLimit::NONE),
            empty_messages: false,
            attribution: Attribution::Inline,
            replies: Replies::Native,
            threads: true,
            edits: Edits::Limited { within: None },
            edit_history: if self.events.load(Ordering::Relaxed) {
                EditHistory::Kept
            } else {
                EditHistory::Replaced
            },
            deletes: if self.removes.load(Ordering::Relaxed) {
                Deletes::Native
            } else {
                Deletes::AsPost
            },
            reactions: Reactions::None,
            files: Files::Named,
            bundles: false,
            idempotency: if self.is_idempotent {
                Idempotency::ByKey
            } else {
                Idempotency::ByContent {
                    settle: Duration::from_secs(20),
                }
            },
        }
    }

    fn plan(&self, outgoing: &Outgoing, _now: Millis) -> Plan {
        let content = |body: &Body| Content {
            mentions: Vec::new(),
            author: None,
            text: plain(body),
            html: None,
            style: Style::Text,
        };
        let first = outgoing.copies.first().map(|copy| copy.remote.clone());
        match (&outgoing.message.action, first) {
            (Action::Post { body, .. }, _) if !outgoing.message.files.is_empty() => {
                let line = |text: String| Step::Post {
                    content: content(&Body::plain(&text)),
                    thread: None,
                    reply_to: None,
                };
                let text = plain(body);
                let files = outgoing.message.files.iter().map(|file| Step::SendFile {
                    file: file.clone(),
                    content: content(&Body::plain(&format!("{text} with a file"))),
                    thread: None,
                    reply_to: None,
                    fallback: Some(Box::new(line(format!("{text} without its file")))),
                });
                Plan::Steps(files.collect())
            }
            (Action::Post { body, .. }, _) => Plan::Steps(
                plain(body)
                    .split('|')
                    .map(|part| Step::Post {
                        content: Content {
                            mentions: Vec::new(),
                            author: None,
                            text: part.to_owned(),
                            html: None,
                            style: Style::Text,
                        },
                        thread: None,
                        reply_to: None,
                    })
                    .collect(),
            ),
            (Action::Edit { body, .. }, Some(_)) => {
                let mut copies = outgoing.copies.iter();
                let text = plain(body);
                let steps = text.split('|').map(|part| {
                    let post = Step::Post {
                        content: content(&Body::plain(part)),
                        thread: None,
                        reply_to: None,
                    };
                    match copies.next() {
                        Some(copy) => Step::Edit {
                            target: copy.remote.clone(),
                            content: content(&Body::plain(part)),
                            is_caption: false,
                            fallback: Some(Box::new(post)),
                        },
                        None => post,
                    }
                });
                let known: Vec<_> = outgoing
                    .copies
                    .iter()
                    .filter_map(Copy::file_digest)
                    .collect();
                let files = outgoing.message.files.iter();
                let added = files.filter(|file| !known.contains(&&*file.digest()));
                let added = added.map(|file| Step::SendFile {
                    file: file.clone(),
                    content: content(&Body::plain("a file")),
                    thread: None,
                    reply_to: None,
                    fallback: None,
                });
                Plan::Steps(steps.chain(added).collect())
            }
            (Action::Delete { .. }, Some(_)) => {
                let copies = outgoing.copies.iter();
                let steps = copies.map(|copy| Step::Delete {
                    target: copy.remote.clone(),
                    by_edit: false,
                });
                Plan::Steps(steps.collect())
            }
            (Action::Bridge { text, about }, _) => Plan::Steps(vec![Step::Post {
                content: Content {
                    mentions: Vec::new(),
                    author: None,
                    text: text.clone(),
                    html: None,
                    style: Style::Notice,
                },
                thread: None,
                reply_to: about.as_ref().map(|about| about.message.clone()),
            }]),
            _ => Plan::Skip(SkipRule::UnknownTarget),
        }
    }

    fn plan_bundle(&self, messages: &[Outgoing]) -> Option<(Step, usize)> {
        let parts: Vec<Part> = messages
            .iter()
            .take(4)
            .map_while(|outgoing| match &outgoing.message.action {
                Action::Post { body, .. } if !plain(body).contains('|') => Some(part(body)),
                _ => None,
            })
            .collect();
        let count = parts.len();
        let thread = None;
        (self.is_idempotent && count > 1).then_some((Step::Bundle { parts, thread }, count))
    }

    fn plan_part_edit(&self, outgoing: &Outgoing, slot: u32) -> Plan {
        Plan::Steps(vec![Step::EditPart {
            target: outgoing.copies[0].remote.clone(),
            slot,
            part: match &outgoing.message.action {
                Action::Edit { body, .. } => Some(part(body)),
                _ => None,
            },
            fallback: None,
        }])
    }

    async fn perform(&self, _to: &Place, key: &str, step: &Step) -> Result<Done, SendError> {
        self.keys.lock().unwrap().push(key.to_owned());
        if matches!(step, Step::Delete { .. }) && !self.capabilities().can_delete() {
            return Err(SendError::Refused {
                reason: "nothing is taken back here".to_owned(),
            });
        }
        let next = self.script.lock().unwrap().pop_front().unwrap_or_else(|| {
            match *self.always.lock().unwrap() {
                Some(fault) => Next::Fail(fault()),
                None => Next::Work,
            }
        });
        match next {
            Next::Work => Ok(self.work_once(key, step)),
            Next::Fail(error) => Err(error),
            Next::Claim(id) => {
                let _made = self.work_once(key, step);
                Ok(Done::Created(Copy {
                    remote: id.into(),
                    thread: None,
                    sent_at: Millis(1),
                    file: None,
                }))
            }
            Next::ClaimThenLose(id) => {
                let _made = self.work_once(key, step);
                let claimed = Done::Created(Copy {
                    remote: id.into(),
                    thread: None,
                    sent_at: Millis(1),
                    file: None,
                });
                self.made.lock().unwrap().insert(key.to_owned(), claimed);
                Err(not_now(Outcome::Unknown))
            }
            Next::WorkThenPause(store, portal) => {
                store.pause(portal, "@a:x", Millis(1)).await.unwrap();
                Ok(self.work_once(key, step))
            }
            Next::PauseThenRefuse(store, portal) => {
                store.pause(portal, "@a:x", Millis(1)).await.unwrap();
                Err(SendError::Refused {
                    reason: "it is too large".to_owned(),
                })
            }
            Next::PauseThenLose(store, portal, works) => {
                store.pause(portal, "@a:x", Millis(1)).await.unwrap();
                let _lost = works.then(|| self.work_once(key, step));
                Err(SendError::Retry {
                    after: None,
                    outcome: Outcome::Unknown,
                    source: anyhow::anyhow!("no answer"),
                })
            }
            Next::WorkThenFail(error) => {
                let _lost = self.work_once(key, step);
                Err(error)
            }
        }
    }

    async fn fetch(&self, _file: &File, spool: &Spool) -> Result<Spooled, SendError> {
        let bytes = futures_util::stream::iter([Ok::<_, std::io::Error>(axum::body::Bytes::new())]);
        Ok(spool.seal(bytes).await.unwrap())
    }

    async fn send_file(
        &self,
        to: &Place,
        key: &str,
        step: &Step,
        _file: &FetchedFile,
    ) -> Result<Done, SendError> {
        self.perform(to, key, step).await
    }

    async fn text_before_edit(
        &self,
        _from: &Place,
        message: &RemoteId,
        edits: &[RemoteId],
    ) -> Result<TextBeforeEdit, SendError> {
        if let Some(error) = *self.unread.lock().unwrap() {
            return Err(error());
        }
        let read = self.read_again.lock().unwrap();
        for event in edits.iter().chain([message]) {
            let text = match read.get(event) {
                Some(Some(text)) => text,
                Some(None) if event == message => return Ok(TextBeforeEdit::Redacted),
                Some(None) => continue,
                None => return Ok(TextBeforeEdit::Unreadable),
            };
            let mut text = Message::from_bytes(&bytes(edit(message.as_str(), text))).unwrap();
            text.files = self.files.lock().unwrap().clone();
            let by = (event != message).then(|| event.clone());
            return Ok(TextBeforeEdit::Text(Box::new(text), by));
        }
        Ok(TextBeforeEdit::Unreadable)
    }

    fn has_answered_since(&self, _since: Millis) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    async fn find_similar(
        &self,
        _to: &Place,
        step: &Step,
        _since: Millis,
    ) -> Result<SimilarMessages, SendError> {
        if let Some(error) = self.blind.lock().unwrap().pop_front() {
            return Err(error);
        }
        let Step::Post { content, .. } = step else {
            return Ok(SimilarMessages::default());
        };
        if self.is_busy.load(Ordering::Relaxed) {
            return Ok(SimilarMessages {
                copies: Vec::new(),
                is_cut_off: true,
            });
        }
        let posts = self.posts.lock().unwrap();
        let similar = posts.iter().filter(|(_, text)| *text == content.text);
        let copies = similar.map(|(remote, _)| Copy {
            remote: remote.clone(),
            thread: None,
            sent_at: Millis(1),
            file: None,
        });
        Ok(SimilarMessages {
            copies: copies.collect(),
            is_cut_off: false,
        })
    }

    async fn find_sent_by(
        &self,
        account: AccountId,
        to: &Place,
        key: &str,
        step: &Step,
        since: Millis,
    ) -> Result<Option<Done>, SendError> {
        if let Some(error) = self.blind.lock().unwrap().pop_front() {
            return Err(error);
        }
        let other = self.others.lock().unwrap()[&account].clone();
        other.find_by_key_always(to, key, step, since).await
    }

    async fn find_by_key_always(
        &self,
        _to: &Place,
        key: &str,
        _step: &Step,
        _since: Millis,
    ) -> Result<Option<Done>, SendError> {
        if let Some(error) = self.blind.lock().unwrap().pop_front() {
            return Err(error);
        }
        Ok(self.made.lock().unwrap().get(key).cloned())
    }
}

fn part(body: &Body) -> Part {
    Part {
        body: plain(body),
        ..Part::default()
    }
}

fn plain(body: &Body) -> String {
    body.to_plain()
}

/// One portal over a store in a directory, which outlives the "process".
pub struct Bench {
    pub store: Store,
    pub inbox: Inbox,
    pub signals: Signals,
    pub clock: Clock,
    pub portal: Portal,
    pub health: OutletHealth,
    pub limits: RetryLimits,
    pub coalesce: bool,
    pub budget: Budget,
    /// Whether the portal relays notices.
    pub notices: bool,
    /// The personal accounts that may send into the channel.
    pub accounts: PersonalAccounts,
}

impl Bench {
    pub async fn open(directory: &Path) -> Self {
        let key = StoreKey::read_or_create(&directory.join("key")).unwrap();
        let store = Store::open(&directory.join("data"), &key).await.unwrap();
        let spec = PortalSpec {
            room: "#r:x".into(),
            silo: "wall".into(),
            channel: "c".into(),
        };
        let (room, channel) = (Place::room("!r"), Place::new("wall", "c"));
        let portal = store
            .open_portal(&spec, &room, &channel, Millis(1))
            .await
            .unwrap();
        let (signals, clock) = (Signals::default(), Clock::start());
        let inbox = Inbox::new(store.clone(), signals.clone(), clock);
        Self {
            store,
            inbox,
            signals,
            clock,
            portal,
            health: OutletHealth::default(),
            limits: RetryLimits {
                attempts: 3,
                give_up: Duration::from_hours(2),
            },
            coalesce: true,
            budget: Budget::default(),
            notices: true,
            accounts: PersonalAccounts::default(),
        }
    }

    pub async fn arrive(&self, event_id: &str, action: Action) {
        let message = matches!(action, Action::Post { .. }).then(|| RemoteId::from(event_id));
        self.arrive_payload(event_id, message, ArrivalContent::from(message_of(action)))
            .await;
    }

    /// The same in the channel.
    pub async fn arrive_in_channel(&self, event_id: &str, action: Action) {
        let message = matches!(action, Action::Post { .. }).then(|| RemoteId::from(event_id));
        let (channel, payload) = (
            &self.portal.channel,
            ArrivalContent::from(message_of(action)),
        );
        self.accept(channel, event_id, message, payload).await;
    }

    pub async fn arrive_payload(
        &self,
        event_id: &str,
        message: Option<RemoteId>,
        payload: ArrivalContent,
    ) {
        self.accept(&self.portal.room, event_id, message, payload)
            .await;
    }

    async fn accept(
        &self,
        place: &Place,
        event_id: &str,
        message: Option<RemoteId>,
        payload: ArrivalContent,
    ) {
        let arrival = Arrival {
            place: place.clone(),
            event_id: event_id.into(),
            message,
            thread: None,
            sent_at: Millis(1),
            payload,
        };
        let accepted = self
            .inbox
            .accept(Batch {
                arrivals: vec![arrival],
                ..Batch::default()
            })
            .await
            .unwrap();
        assert!(
            matches!(accepted.as_slice(), [Accepted::New(_)]),
            "{accepted:?}"
        );
    }

    /// The room key of the one undecryptable entry arrives; it decrypts to this.
    async fn decrypt(&self, action: Action) {
        let waiting = self.store.undecryptable_events(Some("s")).await.unwrap();
        let payload = ArrivalContent::from(message_of(action));
        self.inbox
            .fill(waiting[0].entry, payload, None)
            .await
            .unwrap();
    }

    pub fn lane(&self, toward: Side, outlet: Arc<FakeOutlet>) -> Lane {
        Lane {
            id: LaneId {
                portal: self.portal.id,
                toward,
            },
            outlet: outlet.clone(),
            source: outlet,
            sender: LaneSender::relay_and(self.accounts.clone()),
            spool: footbridge_core::spool::Spool::new(std::env::temp_dir(), 1 << 20),
            store: self.store.clone(),
            signals: self.signals.clone(),
            clock: self.clock,
            limits: self.limits,
            health: self.health.clone(),
            budget: self.budget.clone(),
            coalesce: self.coalesce,
            people: footbridge_core::persons::People::default(),
            links: None,
            peer_bridges: footbridge_core::peer_bridges::PeerBridges::default(),
            filters: RelayFilters::only(
                self.portal.id,
                RelayFilter {
                    notices: self.notices,
                    ..RelayFilter::default()
                },
            ),
        }
    }

    /// Runs the lane until nothing in it is due, or for `at_most`.
    pub async fn run(&self, outlet: &Arc<FakeOutlet>, at_most: Duration) -> LaneEnd {
        self.run_toward(Side::Silo, outlet, at_most).await
    }

    /// The same for either lane.
    pub async fn run_toward(
        &self,
        toward: Side,
        outlet: &Arc<FakeOutlet>,
        at_most: Duration,
    ) -> LaneEnd {
        let stop = CancellationToken::new();
        let lane = self.lane(toward, outlet.clone()).run(stop.clone());
        tokio::pin!(lane);
        let watch = async {
            let end = tokio::time::Instant::now() + at_most;
            let mut wait = Duration::from_millis(100);
            while tokio::time::Instant::now() < end {
                let owed = self.tally(toward).await;
                if owed.pending == owed.waiting {
                    break;
                }
                let next = tokio::time::Instant::now() + wait;
                tokio::time::sleep_until(next.min(end)).await;
                // An hour of the paused clock would take 36,000 reads otherwise.
                wait = (wait * 2).min(Duration::from_secs(10));
            }
            stop.cancel();
        };
        let (end, ()) = tokio::join!(lane, watch);
        end.unwrap()
    }

    pub async fn tally(&self, toward: Side) -> footbridge_store::LaneCounters {
        let id = LaneId {
            portal: self.portal.id,
            toward,
        };
        self.store
            .lane_counters()
            .await
            .unwrap()
            .into_iter()
            .find(|tally| tally.lane == id)
            .expect("each lane has a row")
    }

    pub async fn balance(&self) {
        for tally in self.store.lane_counters().await.unwrap() {
            let skipped: u64 = tally.skipped.iter().map(|(_, count)| count).sum();
            assert_eq!(
                tally.accepted,
                tally.delivered + skipped + tally.failed + tally.pending,
                "{tally:?}"
            );
        }
    }
}

pub fn bytes(action: Action) -> Vec<u8> {
    message_of(action).to_bytes().unwrap()
}

pub fn message_of(action: Action) -> Message {
    let sender = Sender {
        id: "@a:x".into(),
        name: "A".into(),
        avatar: None,
    };
    Message {
        sender,
        sent_at: Millis(1),
        files: Vec::new(),
        action,
    }
}

pub fn post(text: &str) -> Action {
    Action::Post {
        body: Body::plain(text),
        style: Style::Text,
        reply_to: None,
        thread: None,
    }
}

/// An undecryptable payload; the lane waits for its room key until this time.
fn undecryptable(key_wait_until: Millis) -> ArrivalContent {
    ArrivalContent::Undecryptable {
        session: "s".into(),
        raw: b"{}".to_vec(),
        key_wait_until,
    }
}

pub fn edit(target: &str, text: &str) -> Action {
    Action::Edit {
        target: target.into(),
        body: Body::plain(text),
        style: Style::Text,
    }
}

pub fn not_now(outcome: Outcome) -> SendError {
    SendError::Retry {
        after: None,
        outcome,
        source: anyhow::anyhow!("told to"),
    }
}

pub const LONG: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn messages_leave_in_the_order_in_which_they_came_whatever_fails() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    for number in 0..10 {
        bench
            .arrive(&format!("$e{number}"), post(&format!("m{number}")))
            .await;
    }
    let outlet = FakeOutlet::new(
        true,
        vec![
            Next::Work,
            Next::Fail(not_now(Outcome::NotDone)),
            Next::Fail(not_now(Outcome::NotDone)),
            Next::Work,
            Next::Fail(not_now(Outcome::NotDone)),
        ],
    );
    bench.run(&outlet, LONG).await;
    assert_eq!(
        outlet.texts(),
        (0..10)
            .map(|number| format!("m{number}"))
            .collect::<Vec<_>>()
    );
    assert_eq!(bench.tally(Side::Silo).await.delivered, 10);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_tried_again_has_the_same_key_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let outlet = FakeOutlet::new(
        true,
        vec![
            Next::Fail(not_now(Outcome::Unknown)),
            Next::Fail(not_now(Outcome::Unknown)),
        ],
    );
    {
        let bench = Bench::open(directory.path()).await;
        bench.arrive("$e", post("once")).await;
        bench.run(&outlet, Duration::from_millis(50)).await;
    }
    let bench = Bench::open(directory.path()).await;
    bench.run(&outlet, LONG).await;
    let keys = outlet.keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key == &keys[0]), "{keys:?}");
    assert_eq!(outlet.texts(), ["once"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_does_not_block_the_next_and_gives_a_notice() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$bad", post("bad")).await;
    bench.arrive("$good", post("good")).await;
    let outlet = FakeOutlet::new(
        true,
        vec![Next::Fail(SendError::Refused {
            reason: "it is bad".into(),
        })],
    );
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["good"]);
    assert_eq!(bench.tally(Side::Silo).await.failed, 1);
    assert_eq!(
        bench.tally(Side::Matrix).await.pending,
        1,
        "a notice to the room is pending"
    );
    assert_eq!(bench.tally(Side::Silo).await.parked, 1);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_send_whose_answer_was_lost_is_adopted_and_not_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$a", post("same")).await;
    bench.arrive("$b", post("same")).await;
    let outlet = FakeOutlet::new(
        false,
        vec![Next::Work, Next::WorkThenFail(not_now(Outcome::Unknown))],
    );
    bench.run(&outlet, LONG).await;
    // D04: the second is identified among two equal messages because the first is linked already.
    assert_eq!(outlet.texts(), ["same", "same"]);
    assert_eq!(
        outlet.keys.lock().unwrap().len(),
        2,
        "nothing was sent a third time"
    );
    let unknown = bench
        .store
        .unknown_outcomes(&bench.portal.channel)
        .await
        .unwrap();
    assert_eq!(unknown, []);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_another_account_brings_readable_fills_the_entry_that_waits_for_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    let far = bench.clock.now().plus(Duration::from_hours(24));
    bench
        .arrive_payload("$a", Some("$a".into()), undecryptable(far))
        .await;
    bench.arrive("$b", post("behind")).await;
    let outlet = FakeOutlet::new(true, Vec::new());
    bench.run(&outlet, Duration::from_mins(1)).await;
    assert!(outlet.texts().is_empty(), "the lane waits for the key");
    let readable = |text: &str| Arrival {
        place: bench.portal.room.clone(),
        event_id: "$a".into(),
        message: Some("$a".into()),
        thread: None,
        sent_at: Millis(1),
        payload: ArrivalContent::from(message_of(post(text))),
    };
    for text in ["first", "not again"] {
        let batch = Batch {
            arrivals: vec![readable(text)],
            ..Batch::default()
        };
        let accepted = bench.inbox.accept(batch).await.unwrap();
        assert_eq!(accepted, [Accepted::Duplicate]);
    }
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["first", "behind"]);
    assert_eq!(bench.tally(Side::Silo).await.delivered, 2);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_send_that_never_happened_is_repeated_after_the_settle_time() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$a", post("x")).await;
    let outlet = FakeOutlet::new(false, vec![Next::Fail(not_now(Outcome::Unknown))]);
    let began = tokio::time::Instant::now();
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["x"]);
    assert!(began.elapsed() >= Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn d04_a_message_that_is_looked_for_among_too_many_is_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$a", post("x")).await;
    let outlet = FakeOutlet::new(false, vec![Next::WorkThenFail(not_now(Outcome::Unknown))]);
    outlet.is_busy.store(true, Ordering::Relaxed);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["x"]);
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.failed, tally.pending), (1, 0));
    assert_eq!(tally.last_failure.as_deref(), Some("unknown"));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn d04_a_look_that_fails_leaves_the_doubt() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$a", post("x")).await;
    let outlet = FakeOutlet::new(false, vec![Next::WorkThenFail(not_now(Outcome::Unknown))]);
    // The silo is unavailable at first; then the channel is closed for a while, and then the silo refuses the lookup.
    let (closed, refused) = ("closed".to_owned(), "refused".to_owned());
    *outlet.blind.lock().unwrap() = [
        not_now(Outcome::NotDone),
        not_now(Outcome::NotDone),
        SendError::Closed { reason: closed },
        SendError::Refused { reason: refused },
    ]
    .into();
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["x"]);
    assert_eq!(bench.tally(Side::Silo).await.delivered, 1);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn d04_a_reconcile_while_signed_out_leaves_the_outcome_unknown_until_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$a", post("x")).await;
    let outlet = FakeOutlet::new(false, vec![Next::WorkThenFail(not_now(Outcome::Unknown))]);
    let reason = "signed out".to_owned();
    *outlet.blind.lock().unwrap() = [SendError::SignedOut { reason }].into();
    assert_eq!(bench.run(&outlet, LONG).await, LaneEnd::SignedOut);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["x"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_between_the_send_and_its_commit_leaves_one_copy() {
    let directory = tempfile::tempdir().unwrap();
    let outlet = FakeOutlet::new(false, vec![]);
    {
        let bench = Bench::open(directory.path()).await;
        bench.arrive("$a", post("x|y")).await;
        // What the lane does, up to the moment of the kill.
        let lane = LaneId {
            portal: bench.portal.id,
            toward: Side::Silo,
        };
        let footbridge_store::QueueHead::Ready(delivery) = bench
            .store
            .queue_head(lane, bench.clock.now())
            .await
            .unwrap()
        else {
            panic!("a delivery is due")
        };
        let step = |text: &str| Step::Post {
            content: Content {
                mentions: Vec::new(),
                author: None,
                text: text.into(),
                html: None,
                style: Style::Text,
            },
            thread: None,
            reply_to: None,
        };
        let plan = serde_json::to_vec(&Plan::Steps(vec![step("x"), step("y")])).unwrap();
        bench
            .store
            .mark_outcome_unknown(delivery.id, Some(&plan), bench.clock.now())
            .await
            .unwrap();
        outlet
            .perform(&bench.portal.channel, &delivery.key, &step("x"))
            .await
            .unwrap();
    }
    let bench = Bench::open(directory.path()).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["x", "y"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_comes_too_late_becomes_a_message_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    let outlet = FakeOutlet::new(
        false,
        vec![Next::Work, Next::Work, Next::Fail(SendError::TooLate)],
    );
    bench.arrive("$a", post("old")).await;
    bench.run(&outlet, LONG).await;
    bench.arrive("$a1", edit("$a", "newer")).await;
    bench.arrive("$a2", edit("$a", "newest")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["newer", "newest"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn c20_a_copy_cannot_change_the_original() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$a", post("said in the room")).await;
    let outlet = FakeOutlet::new(false, Vec::new());
    bench.run(&outlet, LONG).await;
    let copy = outlet.posts.lock().unwrap()[0].0.clone();
    let changes = [
        ("e1", edit(copy.as_str(), "changed")),
        (
            "d1",
            Action::Delete {
                target: copy.clone(),
            },
        ),
    ];
    for (event_id, action) in changes {
        let arrival = Arrival {
            place: bench.portal.channel.clone(),
            event_id: event_id.into(),
            message: None,
            thread: None,
            sent_at: Millis(1),
            payload: ArrivalContent::from(message_of(action)),
        };
        let batch = Batch {
            arrivals: vec![arrival],
            ..Batch::default()
        };
        bench.inbox.accept(batch).await.unwrap();
    }
    let room = FakeOutlet::new(true, Vec::new());
    bench.run_toward(Side::Matrix, &room, LONG).await;
    assert_eq!(room.keys.lock().unwrap().len(), 0, "no step is performed");
    let skipped = bench.tally(Side::Matrix).await.skipped;
    assert_eq!(skipped, [(SkipRule::WrittenElsewhere, 2)]);
    // The deleted copy stays deleted.
    bench
        .arrive("$a2", edit("$a", "changed by its author"))
        .await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["said in the room"]);
    let skipped = bench.tally(Side::Silo).await.skipped;
    assert_eq!(skipped, [(SkipRule::UnknownTarget, 1)]);
    bench.balance().await;
}

/// A silo decides what its own messages say, but not that somebody else wrote them.
#[tokio::test(start_paused = true)]
async fn c20_an_edit_of_a_silo_is_by_who_wrote_the_message() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    for (event_id, by, action) in [
        ("m", "ann", post("said")),
        ("e1", "eve", edit("m", "forged")),
        ("e2", "ann", edit("m", "corrected")),
    ] {
        let mut message = Message::from_bytes(&bytes(action)).unwrap();
        message.sender.id = by.to_owned();
        let is_new = matches!(message.action, Action::Post { .. });
        let arrival = Arrival {
            place: bench.portal.channel.clone(),
            event_id: event_id.into(),
            message: is_new.then(|| event_id.into()),
            thread: None,
            sent_at: Millis(1),
            payload: ArrivalContent::from(message),
        };
        let batch = Batch {
            arrivals: vec![arrival],
            ..Batch::default()
        };
        bench.inbox.accept(batch).await.unwrap();
    }
    let room = FakeOutlet::new(true, Vec::new());
    bench.run_toward(Side::Matrix, &room, LONG).await;
    assert_eq!(room.texts(), ["corrected"]);
    let skipped = bench.tally(Side::Matrix).await.skipped;
    assert!(skipped.contains(&(SkipRule::ForeignEdit, 1)), "{skipped:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_message_takes_all_its_parts_and_its_links_along() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$a", post("x")).await;
    bench
        .arrive(
            "$d",
            Action::Delete {
                target: "$a".into(),
            },
        )
        .await;
    bench
        .arrive(
            "$d2",
            Action::Delete {
                target: "$a".into(),
            },
        )
        .await;
    let outlet = FakeOutlet::new(true, vec![]);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.gone.lock().unwrap().len(), 1);
    assert_eq!(
        bench.tally(Side::Silo).await.skipped,
        [(SkipRule::UnknownTarget, 1)]
    );
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_holds_the_lane_for_a_while_and_then_lets_others_pass() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    let key_wait_until = bench.clock.now().plus(Duration::from_secs(5));
    bench
        .arrive_payload("$w", Some("$w".into()), undecryptable(key_wait_until))
        .await;
    bench.arrive("$b", post("after")).await;
    let outlet = FakeOutlet::new(true, vec![]);
    bench.run(&outlet, Duration::from_secs(3)).await;
    assert!(outlet.texts().is_empty(), "held");
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["after"]);
    // D20: the room key arrives, and the message follows.
    bench.decrypt(post("late")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["after", "late"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn d20_an_edit_whose_key_comes_late_does_not_overwrite_a_later_one() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$m", post("first")).await;
    bench
        .arrive_payload("$e1", None, undecryptable(Millis(0)))
        .await;
    bench.arrive("$e2", edit("$m", "third")).await;
    let outlet = FakeOutlet::new(true, vec![]);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["third"]);
    bench.decrypt(edit("$m", "second")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["third"]);
    assert_eq!(
        bench.tally(Side::Silo).await.skipped,
        [(SkipRule::Superseded, 1)]
    );
    // An edit that is really later is still sent.
    bench.arrive("$e3", edit("$m", "fourth")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["fourth"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_while_its_key_is_missing_is_never_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench
        .arrive_payload("$w", Some("$w".into()), undecryptable(Millis(0)))
        .await;
    bench
        .arrive(
            "$d",
            Action::Delete {
                target: "$w".into(),
            },
        )
        .await;
    let outlet = FakeOutlet::new(true, vec![]);
    bench.run(&outlet, LONG).await;
    assert!(
        bench
            .store
            .undecryptable_events(None)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        bench.tally(Side::Silo).await.skipped,
        [(SkipRule::DeletedBeforeDelivery, 2)]
    );
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn a_signed_out_side_keeps_its_pending_deliveries() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$a", post("x")).await;
    let outlet = FakeOutlet::new(
        true,
        vec![Next::Fail(SendError::SignedOut {
            reason: "token revoked".into(),
        })],
    );
    assert_eq!(
        bench.run(&outlet, Duration::from_secs(5)).await,
        LaneEnd::SignedOut
    );
    assert_eq!(bench.tally(Side::Silo).await.pending, 1);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn an_echo_is_held_until_the_send_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    bench.arrive("$a", post("x")).await;
    let lane = LaneId {
        portal: bench.portal.id,
        toward: Side::Silo,
    };
    let footbridge_store::QueueHead::Ready(delivery) = bench
        .store
        .queue_head(lane, bench.clock.now())
        .await
        .unwrap()
    else {
        panic!("a delivery is due")
    };
    bench
        .store
        .mark_outcome_unknown(delivery.id, None, bench.clock.now())
        .await
        .unwrap();
    let settled = bench.inbox.wait_settled(&bench.portal.channel);
    tokio::pin!(settled);
    assert!(
        tokio::time::timeout(Duration::from_mins(1), &mut settled)
            .await
            .is_err(),
        "the outcome is still unknown"
    );
    let copy = Copy {
        remote: "wall-0".into(),
        thread: None,
        sent_at: Millis(1),
        file: None,
    };
    bench
        .store
        .complete_step(delivery.id, Some(&copy), None, true, bench.clock.now())
        .await
        .unwrap();
    bench.signals.notify_step_settled();
    tokio::time::timeout(Duration::from_mins(1), settled)
        .await
        .expect("settled")
        .unwrap();
    let echo = Arrival {
        place: bench.portal.channel.clone(),
        event_id: "wall-0".into(),
        message: Some("wall-0".into()),
        thread: None,
        sent_at: Millis(1),
        payload: ArrivalContent::from(message_of(post("x"))),
    };
    let accepted = bench
        .inbox
        .accept(Batch {
            arrivals: vec![echo],
            ..Batch::default()
        })
        .await
        .unwrap();
    assert_eq!(accepted, [Accepted::Duplicate]);
}

#[tokio::test(start_paused = true)]
async fn c19_what_comes_ten_times_is_delivered_once() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    let arrival = |number: usize| Arrival {
        place: bench.portal.room.clone(),
        event_id: RemoteId(format!("$e{number}")),
        message: Some(RemoteId(format!("$e{number}"))),
        thread: None,
        sent_at: Millis(1),
        payload: ArrivalContent::from(message_of(post(&format!("m{number}")))),
    };
    let outlet = FakeOutlet::new(true, vec![]);
    // Alone, several in one batch, before and after they were delivered.
    for round in 0..10 {
        let all = (0..5).map(|number| arrival((number + round) % 5));
        let batch = Batch {
            arrivals: all.clone().chain(all).collect(),
            ..Batch::default()
        };
        bench.inbox.accept(batch).await.unwrap();
        if round == 4 {
            bench.run(&outlet, LONG).await;
        }
    }
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", "m1", "m2", "m3", "m4"]);
    let tally = bench.tally(Side::Silo).await;
    assert_eq!((tally.accepted, tally.delivered), (5, 5));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn c21_a_message_that_is_deleted_before_it_arrives_is_never_relayed() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    let outlet = FakeOutlet::new(true, vec![]);
    let gone = |target: &str| Action::Delete {
        target: target.into(),
    };
    // The message is unknown when it is redacted, and arrives afterwards.
    bench.arrive("$r1", gone("$late")).await;
    bench.run(&outlet, LONG).await;
    let late = Arrival {
        place: bench.portal.room.clone(),
        event_id: "$late".into(),
        message: Some("$late".into()),
        thread: None,
        sent_at: Millis(1),
        payload: ArrivalContent::from(message_of(post("taken back long ago"))),
    };
    let batch = Batch {
        arrivals: vec![late],
        ..Batch::default()
    };
    let accepted = bench.inbox.accept(batch).await.unwrap();
    assert_eq!(accepted, [Accepted::Duplicate]);
    // The message is still in the queue when it is redacted: it is not sent, and an edit does not bring it back.
    bench.arrive("$e1", post("one")).await;
    bench.arrive("$r2", gone("$e1")).await;
    bench.arrive("$x1", edit("$e1", "one again")).await;
    bench.arrive("$e2", post("two")).await;
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts().last().map(String::as_str), Some("two"));
    assert!(!outlet.texts().iter().any(|text| text.contains("again")));
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn c23_clocks_decide_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::open(directory.path()).await;
    let moments = [0, 1 << 53, -5, i64::MAX, i64::MIN, 1];
    for (number, moment) in moments.into_iter().enumerate() {
        let message = Message {
            sender: Sender {
                id: "@a:x".into(),
                name: "A".into(),
                avatar: None,
            },
            sent_at: Millis(moment),
            files: Vec::new(),
            action: post(&format!("m{number}")),
        };
        let arrival = Arrival {
            place: bench.portal.room.clone(),
            event_id: RemoteId(format!("$e{number}")),
            message: Some(RemoteId(format!("$e{number}"))),
            thread: None,
            sent_at: Millis(moment),
            payload: ArrivalContent::from(message),
        };
        let batch = Batch {
            arrivals: vec![arrival],
            ..Batch::default()
        };
        bench.inbox.accept(batch).await.unwrap();
    }
    bench.arrive("$x", edit("$e1", "m1 edited")).await;
    let outlet = FakeOutlet::new(true, vec![]);
    bench.run(&outlet, LONG).await;
    assert_eq!(outlet.texts(), ["m0", "m1 edited", "m2", "m3", "m4", "m5"]);
    bench.balance().await;
}

#[tokio::test(start_paused = true)]
async fn b14_two_hundred_answers_keep_no_message_back() {
    let home = tempfile::tempdir().unwrap();
    let bench = Bench::open(home.path()).await;
    for number in 0..200 {
        let (event_id, now) = (RemoteId(format!("answer-{number}")), bench.clock.now());
        let answer = Message::notice("an answer", now).to_bytes().unwrap();
        let said = bench
            .store
            .send_notice(&bench.portal.channel, &event_id, &answer, now);
        said.await.unwrap();
    }
    for text in ["one", "two", "three"] {
        bench.arrive(text, post(text)).await;
    }
    let outlet = FakeOutlet::new(false, Vec::new());
    bench.run(&outlet, LONG).await;
    let texts = outlet.texts();
    assert_eq!(texts.len(), 203);
    for (text, at) in [("one", 1), ("two", 3), ("three", 5)] {
        assert_eq!(texts[at], text, "{texts:?}");
    }
    bench.balance().await;
}
