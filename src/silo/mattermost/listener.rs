//! Writes events and posts of the channels to the journal. A channel's cursor is the time up to which it was *read*;
//! events of the WebSocket are written but do not move it: a later reading finds what the WebSocket missed.

use std::{collections::HashMap, sync::Arc};

use footbridge_core::inbox::{Arrival, Batch, Inbox};
use footbridge_store::{Accepted, Millis, Place};

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

/// How far reading begins before the cursor, in milliseconds: posts are published a little after their time.
const OVERLAP_MS: i64 = 10_000;
/// A response with this many changes may be incomplete.
const MAX_CHANGES: usize = 1_000;
/// A post that is read this long after it was written should have arrived by the WebSocket, in milliseconds.
const MISSED_AFTER: i64 = 30_000;

/// The state of one channel.
pub(super) struct ChannelState {
    pub(super) place: Place,
    /// The time up to which everything was read.
    pub(super) cursor: i64,
    /// Posts up to this time are from before the link, and are not relayed.
    pub(super) since: i64,
    /// The backfill.
    pub(super) history: Backfill,
    /// A post that was read, after which reading page by page can continue.
    pub(super) anchor: String,
}

/// The state that the listener shares with the silo.
pub struct ListenerContext {
    /// The REST client.
    pub client: Arc<Client>,
    /// The bridge's own recent actions.
    pub echoes: Arc<Echoes>,
    /// The state of the feed.
    pub health: Arc<FeedHealth>,
    /// Where names of authors go.
    pub attribution: Arc<AttributionState>,
    /// Names and avatars of users.
    pub people: UserCache,
}

/// The listener of all channels.
pub struct Listener {
    /// The silo's name.
    pub silo: String,
    /// The id of the bridge's account.
    pub me: String,
    pub(super) inbox: Inbox,
    pub(super) shared: Arc<ListenerContext>,
    pub(super) channel_states: HashMap<String, ChannelState>,
}

impl Listener {
    /// Opens the cursors. A channel without them starts at its newest post: posts from before it was linked are not
    /// relayed.
    pub async fn open(
        silo: &str,
        me: String,
        channels: Vec<Channel>,
        inbox: Inbox,
        shared: Arc<ListenerContext>,
    ) -> Result<Self, SiloError> {
        let mut states = HashMap::new();
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
            let state = ChannelState {
                history,
                cursor: number(cursor).unwrap_or(-1),
                since: number(since).unwrap_or(-1),
                anchor: store.cursor(&names.anchor).await?.unwrap_or_default(),
                place: channel.place,
            };
            states.insert(state.place.address().to_owned(), state);
        }
        let mut listener = Self {
            silo: silo.to_owned(),
            me,
            inbox,
            shared,
            channel_states: states,
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

    /// Whether a portal uses this channel.
    pub fn has(&self, channel: &str) -> bool {
        self.channel_states.contains_key(channel)
    }

    /// The place of a channel; `None` before its first reading.
    pub(super) fn place(&self, channel: &str) -> Option<Place> {
        // Events before the first reading are from before the link.
        let state = self
            .channel_states
            .get(channel)
            .filter(|state| state.cursor >= 0);
        state.map(|state| state.place.clone())
    }

    /// The server's time, or the bridge's until a response had one.
    pub(super) fn now(&self) -> Millis {
        let server_time = self.shared.client.now();
        server_time.unwrap_or_else(|| self.inbox.clock().now())
    }

    /// All channels have to catch up.
    pub fn behind(&self) {
        self.shared.health.all_behind();
    }

    /// Whether Mattermost refuses the token.
    pub async fn is_signed_out(&self) -> bool {
        matches!(
            self.shared.client.me().await,
            Err(RequestError::SignedOut(_))
        )
    }

    /// A channel is closed to the account. The others continue.
    pub fn close(&self, channel: &str, reason: &str) {
        if self.has(channel) && self.shared.health.close(channel) {
            tracing::error!(silo.name = %self.silo, silo.channel = %channel, error = %reason,
                "Channel is closed to this account; the bridge tries again periodically");
        }
    }

    /// Reads what changed in a channel since its cursor. Returns how many posts the WebSocket should have delivered
    /// before.
    pub async fn catch_up(&mut self, channel: &str) -> Result<usize, ListenError> {
        let Some(state) = self.channel_states.get(channel) else {
            return Ok(0);
        };
        let (cursor, wanted) = (state.cursor, state.history.wanted);
        let place = state.place.clone();
        let link = self
            .inbox
            .store()
            .newest_link_barrier(vec![place.clone()])
            .await?;
        if cursor < 0 {
            self.begin(channel).await?;
        }
        let from = match self.channel_states.get(channel) {
            Some(state) if cursor < 0 && wanted > 0 => Some(state.cursor),
            Some(_) if cursor >= 0 => Some(cursor.saturating_sub(OVERLAP_MS).max(0)),
            _ => None,
        };
        if let Some(from) = from {
            let asked_at = self.now().0;
            let changes = self.read(channel, &Range::Since(from)).await?;
            if changes.len() >= MAX_CHANGES {
                self.catch_up_by_pages(channel).await?;
            }
            let missed = self
                .take(channel, changes, EventSource::Read { asked_at })
                .await?;
            if let Some(link) = link {
                self.inbox
                    .store()
                    .lift_link_barriers(vec![place], link)
                    .await?;
            }
            self.reopen(channel).await?;
            return Ok(missed);
        }
        self.reopen(channel).await?;
        Ok(0)
    }

    /// A post of this channel that was read, if there is one.
    pub(super) fn anchor(&self, channel: &str) -> Option<String> {
        let anchor = self
            .channel_states
            .get(channel)
            .map(|state| state.anchor.clone());
        anchor.filter(|anchor| !anchor.is_empty())
    }

    pub(super) async fn read(
        &self,
        channel: &str,
        range: &Range,
    ) -> Result<Vec<Post>, ListenError> {
        Ok(self.shared.client.posts(channel, range).await?)
    }

    /// Writes new posts and changes. The journal recognises known ones. Returns how many new posts the WebSocket should
    /// have delivered.
    pub async fn take(
        &mut self,
        channel: &str,
        posts: Vec<Post>,
        source: EventSource<'_>,
    ) -> Result<usize, ListenError> {
        let Some(state) = self.channel_states.get(channel) else {
            return Ok(0);
        };
        if state.cursor < 0 {
            // The first reading reads these posts, or they are from before the link.
            return Ok(0);
        }
        let (place, since) = (state.place.clone(), state.since);
        let current = posts.iter().filter(|post| !post.is_old_text());
        let newest = current
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
        for post in current {
            self.sort(&place, since, post, source, &mut arrivals)
                .await?;
            if matches!(source, EventSource::Read { .. }) && !post.is_deleted() {
                self.compare_reactions(&place, post, &mut arrivals).await?;
            }
        }
        let now = self.now().0;
        let anchor = posts
            .iter()
            .rev()
            .find(|post| !post.is_old_text() && !post.is_deleted() && post.create_at <= now);
        let anchor = anchor.map(|post| post.id.clone());
        self.write(channel, arrivals, source, newest, anchor).await
    }

    async fn sort(
        &self,
        place: &Place,
        since: i64,
        post: &Post,
        source: EventSource<'_>,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), ListenError> {
        let is_before_link = post.create_at <= since;
        let is_ours = post.user_id == self.me && post.props.mark.is_some();
        let is_plain = post.edit_at == 0 && !post.is_deleted();
        if (is_plain && is_before_link) || (is_ours && !post.is_deleted()) {
            return Ok(());
        }
        let event_sender = match source {
            // If the post may claim another name, the event's sender name may be that claim.
            EventSource::Live { .. } if post.props.speaks_for_another() => "",
            EventSource::Live { sender } => sender,
            EventSource::Read { .. } | EventSource::Paged => "",
        };
        let name = self.shared.people.name(&post.user_id, event_sender);
        let picture = self.shared.people.picture(&post.user_id);
        let who = PostAuthor {
            name: &name,
            picture: picture.as_deref(),
            is_bot: self.shared.people.is_bot(&post.user_id),
            server: Some(self.shared.client.server()),
        };
        if is_plain {
            arrivals.push(arrival::post(place, post, who));
            return Ok(());
        }
        // The post may be among the arrivals that are not written yet.
        let is_pending = arrivals
            .iter()
            .any(|arrival| arrival.message.as_ref() == Some(&post.remote()));
        let link = self.link(place, &post.remote()).await?;
        if post.is_deleted() {
            let is_known = is_pending || link.is_some_and(|link| !link.deleted);
            if is_known && !self.was_removed_by_us(place, post, source).await? {
                arrivals.push(arrival::deletion(place, post));
            }
        } else if is_pending || link.as_ref().is_some_and(|link| link.original) {
            arrivals.push(arrival::edit(place, post, who));
        } else if link.is_none() && !is_before_link {
            arrivals.push(arrival::post(place, post, who));
            arrivals.push(arrival::edit_included(place, post));
        }
        Ok(())
    }

    async fn write(
        &mut self,
        channel: &str,
        mut arrivals: Vec<Arrival>,
        source: EventSource<'_>,
        newest: Option<i64>,
        anchor: Option<String>,
    ) -> Result<usize, ListenError> {
        let now = self.now().0;
        let Some(state) = self.channel_states.get_mut(channel) else {
            return Ok(0);
        };
        let names = CursorNames::of(&state.place);
        let mut cursors = Vec::new();
        // A post may be dated in the future (by an import, or a clock that was put back): the cursor must not pass
        // posts that are still to be written.
        let read_until = match source {
            EventSource::Read { asked_at } => asked_at,
            EventSource::Live { .. } | EventSource::Paged => now,
        };
        let newest = newest.map(|newest| newest.min(read_until));
        // Pages do not show changes of older posts: only the list of changes moves the cursor.
        let read = newest
            .filter(|newest| matches!(source, EventSource::Read { .. }) && *newest > state.cursor);
        if let Some(newest) = read {
            state.cursor = newest;
            cursors.push((names.cursor, newest.to_string()));
            if let Some(anchor) = anchor {
                state.anchor.clone_from(&anchor);
                cursors.push((names.anchor, anchor));
            }
        }
        if arrivals.is_empty() && cursors.is_empty() {
            return Ok(0);
        }
        state.history.mark(&mut arrivals);
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

/// How posts became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource<'a> {
    /// By the WebSocket, with the sender name of the event.
    Live {
        /// The name.
        sender: &'a str,
    },
    /// By the list of all changes.
    Read {
        /// When it was requested, by the server's clock, in milliseconds.
        asked_at: i64,
    },
    /// By a page of posts.
    Paged,
}

/// Why reading failed.
pub enum ListenError {
    /// A request failed.
    Request(RequestError),
    /// An error of the store.
    Store(footbridge_store::Error),
}

impl From<RequestError> for ListenError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<footbridge_store::Error> for ListenError {
    fn from(error: footbridge_store::Error) -> Self {
        Self::Store(error)
    }
}
