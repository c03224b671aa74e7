//! What is heard and read of the channels → the journal. A channel's cursor is the moment up to which it was *read*; what
//! the WebSocket brings is written down, but moves no cursor: whatever it left out is read later.

use std::{collections::HashMap, sync::Arc};

use footbridge_core::inbox::Inbox;
use footbridge_store::{Accepted, Arrival, Batch, Millis, Place};

use super::{
    api::Post,
    arrival::{self, PostAuthor},
    attribution::AttributionState,
    client::{Client, Range},
    cursors::CursorNames,
    errors::RequestError,
    user_cache::UserCache,
};
use crate::{Channel, SiloError, backfill::Backfill, echoes::Echoes, feed_health::FeedHealth};

/// How far reading goes back behind the cursor, in milliseconds: posts are published a little later than their moment.
const OVERLAP_MS: i64 = 10_000;
/// An answer with that many changes may have left some out.
const MAX_CHANGES: usize = 1_000;
/// A post that is read this long after it was written should have been heard, in milliseconds.
const MISSED_AFTER: i64 = 30_000;

/// One channel.
pub(super) struct ChannelState {
    pub(super) place: Place,
    /// The moment up to which everything was read.
    pub(super) cursor: i64,
    /// Everything up to this moment is history, and is not relayed.
    pub(super) since: i64,
    /// What of that comes along.
    pub(super) history: Backfill,
    /// A post that was read, behind which reading can go on page by page.
    pub(super) anchor: String,
}

/// What the listener works with.
pub struct ListenerContext {
    /// The REST side.
    pub client: Arc<Client>,
    /// What we did ourselves.
    pub echoes: Arc<Echoes>,
    /// How the feed is doing.
    pub health: Arc<FeedHealth>,
    /// Where names of authors stand.
    pub attribution: Arc<AttributionState>,
    /// Names.
    pub people: UserCache,
}

/// The listener of all channels.
pub struct Listener {
    /// The silo's name.
    pub silo: String,
    /// Our account's id.
    pub me: String,
    pub(super) inbox: Inbox,
    pub(super) shared: Arc<ListenerContext>,
    pub(super) channel_states: HashMap<String, ChannelState>,
}

impl Listener {
    /// Opens the cursors. A channel that never had one starts at its newest post: what was said before it was linked is
    /// not relayed.
    pub async fn open(
        silo: &str,
        me: String,
        channels: Vec<Channel>,
        inbox: Inbox,
        shared: Arc<ListenerContext>,
    ) -> Result<Self, SiloError> {
        let mut seats = HashMap::new();
        for channel in Channel::distinct(channels) {
            let names = CursorNames::of(&channel.place);
            let store = inbox.store();
            let (cursor, since) = (
                store.cursor(&names.cursor).await?,
                store.cursor(&names.since).await?,
            );
            let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
            let mut history = Backfill::open(&channel.place, store).await?;
            history.wanted = channel.backfill;
            let seat = ChannelState {
                history,
                cursor: number(cursor).unwrap_or(-1),
                since: number(since).unwrap_or(-1),
                anchor: store.cursor(&names.anchor).await?.unwrap_or_default(),
                place: channel.place,
            };
            seats.insert(seat.place.address().to_owned(), seat);
        }
        let mut listener = Self {
            silo: silo.to_owned(),
            me,
            inbox,
            shared,
            channel_states: seats,
        };
        listener.repair_cursors().await?;
        let health = &listener.shared.health;
        health.begin(listener.channel_states.keys().map(String::as_str));
        Ok(listener)
    }

    /// The ids of all channels.
    pub fn channels(&self) -> Vec<String> {
        let mut all: Vec<String> = self.channel_states.keys().cloned().collect();
        all.sort_unstable();
        all
    }

    /// Whether this is one of ours.
    pub fn has(&self, channel: &str) -> bool {
        self.channel_states.contains_key(channel)
    }

    /// The place that a channel is.
    pub(super) fn place(&self, channel: &str) -> Option<Place> {
        // What is heard before the first look is history.
        let seat = self
            .channel_states
            .get(channel)
            .filter(|seat| seat.cursor >= 0);
        seat.map(|seat| seat.place.clone())
    }

    /// The time by the server's clock, or by ours as long as no answer has told.
    pub(super) fn now(&self) -> Millis {
        let theirs = self.shared.client.now();
        theirs.unwrap_or_else(|| self.inbox.clock().now())
    }

    /// All channels must be caught up with.
    pub fn behind(&self) {
        self.shared
            .health
            .behind(self.channel_states.keys().map(String::as_str));
    }

    /// Whether Mattermost says that our token is not accepted.
    pub async fn is_signed_out(&self) -> bool {
        matches!(self.shared.client.me().await, Err(RequestError::SignedOut))
    }

    /// A channel is closed to us. The others go on.
    pub fn close(&self, channel: &str, reason: &str) {
        if self.has(channel) && self.shared.health.close(channel) {
            tracing::error!(silo.name = %self.silo, silo.channel = %channel, error = %reason,
                "Channel is closed to this account; it is looked at again from time to time");
        }
    }

    /// Reads what a channel has that we do not know. Answers how many posts should have been heard before.
    pub async fn catch_up(&mut self, channel: &str) -> Result<usize, ListenError> {
        let Some(seat) = self.channel_states.get(channel) else {
            return Ok(0);
        };
        let (cursor, wanted) = (seat.cursor, seat.history.wanted);
        let place = seat.place.clone();
        let link = self
            .inbox
            .store()
            .newest_link_barrier(vec![place.clone()])
            .await?;
        if cursor < 0 {
            self.begin(channel).await?;
        }
        let from = match self.channel_states.get(channel) {
            Some(seat) if cursor < 0 && wanted > 0 => Some(seat.cursor),
            Some(_) if cursor >= 0 => Some(cursor.saturating_sub(OVERLAP_MS).max(0)),
            _ => None,
        };
        if let Some(from) = from {
            let asked_at = self.now().0;
            let changes = self.read(channel, &Range::Since(from)).await?;
            if changes.len() >= MAX_CHANGES {
                self.catch_up_by_pages(channel).await?;
            }
            let unheard = self
                .take(channel, changes, EventSource::Read { asked_at })
                .await?;
            if let Some(link) = link {
                self.inbox
                    .store()
                    .lift_link_barriers(vec![place], link)
                    .await?;
            }
            self.reopen(channel).await?;
            return Ok(unheard);
        }
        self.reopen(channel).await?;
        Ok(0)
    }

    /// A post of this channel that was read, if there is one.
    pub(super) fn anchor(&self, channel: &str) -> Option<String> {
        let anchor = self
            .channel_states
            .get(channel)
            .map(|seat| seat.anchor.clone());
        anchor.filter(|anchor| !anchor.is_empty())
    }

    pub(super) async fn read(
        &self,
        channel: &str,
        range: &Range,
    ) -> Result<Vec<Post>, ListenError> {
        Ok(self.shared.client.posts(channel, range).await?)
    }

    /// Writes down what is news. What was taken before is recognised by the journal. Answers how many posts are new that
    /// should have been heard.
    pub async fn take(
        &mut self,
        channel: &str,
        posts: Vec<Post>,
        heard: EventSource<'_>,
    ) -> Result<usize, ListenError> {
        let Some(seat) = self.channel_states.get(channel) else {
            return Ok(0);
        };
        if seat.cursor < 0 {
            // What is heard before the first look is read with it, or is history.
            return Ok(0);
        }
        let (place, since) = (seat.place.clone(), seat.since);
        let fresh = posts.iter().filter(|post| !post.is_old_text());
        let newest = fresh
            .clone()
            .map(|post| post.update_at.max(post.create_at))
            .max();
        let reactors = posts.iter().flat_map(|post| &post.metadata.reactions);
        let reactors = reactors.map(|reaction| reaction.user_id.clone());
        let authors = posts.iter().map(|post| post.user_id.clone());
        let people = authors.chain(reactors).collect();
        self.shared
            .people
            .learn(&self.shared.client, people)
            .await?;
        let mut arrivals = Vec::new();
        for post in fresh {
            self.sort(&place, since, post, heard, &mut arrivals).await?;
            if matches!(heard, EventSource::Read { .. }) && !post.is_deleted() {
                self.compare_reactions(&place, post, &mut arrivals).await?;
            }
        }
        let now = self.now().0;
        let anchor = posts
            .iter()
            .rev()
            .find(|post| !post.is_old_text() && !post.is_deleted() && post.create_at <= now);
        let anchor = anchor.map(|post| post.id.clone());
        self.write(channel, arrivals, heard, newest, anchor).await
    }

    async fn sort(
        &self,
        place: &Place,
        since: i64,
        post: &Post,
        heard: EventSource<'_>,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), ListenError> {
        let is_history = post.create_at <= since;
        let is_ours = post.user_id == self.me && post.props.mark.is_some();
        let is_plain = post.edit_at == 0 && !post.is_deleted();
        if (is_plain && is_history) || (is_ours && !post.is_deleted()) {
            return Ok(());
        }
        let beside = match heard {
            // What the server tells beside a post may be what the post claims.
            EventSource::Live { .. } if post.props.speaks_for_another() => "",
            EventSource::Live { sender } => sender,
            EventSource::Read { .. } | EventSource::Paged => "",
        };
        let name = self.shared.people.name(&post.user_id, beside);
        let picture = self.shared.people.picture(&post.user_id);
        let who = PostAuthor {
            name: &name,
            picture: picture.as_deref(),
            is_bot: self.shared.people.is_bot(&post.user_id),
            server: Some(&self.shared.client.base),
        };
        if is_plain {
            arrivals.push(arrival::post(place, post, who));
            return Ok(());
        }
        // It may have come with the posts that wait to be written.
        let waits = arrivals
            .iter()
            .any(|arrival| arrival.message.as_ref() == Some(&post.remote()));
        let link = self.link(place, &post.remote()).await?;
        if post.is_deleted() {
            let is_known = waits || link.is_some_and(|link| !link.deleted);
            if is_known && !self.was_removed_by_us(place, post, heard).await? {
                arrivals.push(arrival::deletion(place, post));
            }
        } else if waits || link.as_ref().is_some_and(|link| link.original) {
            arrivals.push(arrival::edit(place, post, who));
        } else if link.is_none() && !is_history {
            arrivals.push(arrival::post(place, post, who));
            arrivals.push(arrival::edit_included(place, post));
        }
        Ok(())
    }

    async fn write(
        &mut self,
        channel: &str,
        mut arrivals: Vec<Arrival>,
        heard: EventSource<'_>,
        newest: Option<i64>,
        anchor: Option<String>,
    ) -> Result<usize, ListenError> {
        let now = self.now().0;
        let Some(seat) = self.channel_states.get_mut(channel) else {
            return Ok(0);
        };
        let names = CursorNames::of(&seat.place);
        let mut cursors = Vec::new();
        // A post may be dated later than it is there (by an import, or a clock that was put back): what is written until
        // then is still to be read.
        let read_until = match heard {
            EventSource::Read { asked_at } => asked_at,
            EventSource::Live { .. } | EventSource::Paged => now,
        };
        let newest = newest.map(|newest| newest.min(read_until));
        // Pages tell nothing of what lies before them that changed meanwhile: only the list of changes moves the cursor.
        let read = newest
            .filter(|newest| matches!(heard, EventSource::Read { .. }) && *newest > seat.cursor);
        if let Some(newest) = read {
            seat.cursor = newest;
            cursors.push((names.cursor, newest.to_string()));
            if let Some(anchor) = anchor {
                seat.anchor.clone_from(&anchor);
                cursors.push((names.anchor, anchor));
            }
        }
        if arrivals.is_empty() && cursors.is_empty() {
            return Ok(0);
        }
        seat.history.mark(&mut arrivals);
        let posted: Vec<Option<Millis>> = arrivals
            .iter()
            .map(|arrival| arrival.message.as_ref().map(|_| arrival.sent_at))
            .collect();
        let batch = Batch {
            arrivals,
            cursors,
            ..Batch::default()
        };
        let accepted = self.inbox.accept(batch).await?;
        let late = posted
            .into_iter()
            .zip(&accepted)
            .filter(|(sent_at, accepted)| {
                let is_new = matches!(accepted, Accepted::New(_));
                let newest = newest.unwrap_or_default();
                is_new
                    && sent_at
                        .is_some_and(|sent_at| newest.saturating_sub(sent_at.0) > MISSED_AFTER)
            });
        Ok(late.count())
    }
}

/// How something became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource<'a> {
    /// By the WebSocket, with the name that stood beside it.
    Live {
        /// The name.
        sender: &'a str,
    },
    /// By the list of everything that changed.
    Read {
        /// When it was asked for, by the server's clock, in milliseconds.
        asked_at: i64,
    },
    /// By a page of posts.
    Paged,
}

/// Why reading did not succeed.
pub enum ListenError {
    /// Mattermost's side.
    Fault(RequestError),
    /// Ours.
    Store(footbridge_store::Error),
}

impl From<RequestError> for ListenError {
    fn from(fault: RequestError) -> Self {
        Self::Fault(fault)
    }
}

impl From<footbridge_store::Error> for ListenError {
    fn from(error: footbridge_store::Error) -> Self {
        Self::Store(error)
    }
}
