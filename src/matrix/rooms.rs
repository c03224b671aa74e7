//! Rooms: finding them, how far each has been walked, and what to do with invites.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use footbridge_store::{Batch, Gap, Origin, Place, RemoteId, Store};
use matrix_sdk::{
    Client,
    deserialized_responses::TimelineEvent,
    ruma::{
        OwnedRoomId, RoomAliasId, RoomId,
        api::client::membership::{join_room_by_id, joined_rooms, leave_room},
    },
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Matrix, MatrixError, SYNC_CURSOR,
    fault::Fault,
    mark_cursor,
    pages::{PAGE, page_of},
    walk::Names,
};
use crate::{
    backoff::Backoff,
    control::{greeting, is_listed},
    inbox::Inbox,
    message::Message,
};

/// Why an invite is turned down.
const NOT_OURS: &str = "This bridge only joins rooms that its operator has configured, or into which people invite it whom the operator has named.";
/// So many invites to rooms that have no portal are refused after one sync.
const REFUSED_AT_ONCE: usize = 10;
/// How long an invite that could not be answered rests.
const INVITE_REST: Duration = Duration::from_secs(30);
/// The mark of a room whose every event after our own entry is wanted.
const JOIN: &str = "join";

/// Finds a room by alias or id.
pub(super) async fn resolve(client: &Client, room: &str) -> Result<Place, MatrixError> {
    if let Ok(id) = <&RoomId>::try_from(room) {
        return Ok(Place::room(id.as_str()));
    }
    let alias = <&RoomAliasId>::try_from(room)
        .map_err(|_| MatrixError::NoRoom(format!("{room} is neither a room id nor an alias")))?;
    let answer = client
        .resolve_room_alias(alias)
        .await
        .map_err(|error| Fault::from(&error).into_matrix_error(&format!("find {room}")))?;
    Ok(Place::room(answer.room_id.as_str()))
}

/// How far a room has been walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Up to our own entry.
    Join,
    /// Up to this event.
    Event(RemoteId),
}

impl Mark {
    fn parse(text: String) -> Self {
        if text == JOIN {
            Self::Join
        } else {
            Self::Event(RemoteId(text))
        }
    }

    /// Where a gap after this mark ends.
    pub(super) fn as_stop(&self) -> Option<RemoteId> {
        match self {
            Self::Join => None,
            Self::Event(id) => Some(id.clone()),
        }
    }
}

/// A room that has a portal.
#[derive(Debug)]
pub(super) struct Followed {
    /// The room.
    pub place: Place,
    /// How far it has been walked; `None` before it was ever seen.
    pub mark: Option<Mark>,
    /// What must still be fetched.
    pub gap: Option<Gap>,
    /// When the gap is tried, and how often it failed.
    pub gap_due: Instant,
    pub backoff: Backoff,
}

/// The rooms that have a portal, with how far each has been walked.
pub(super) async fn followed(
    store: &Store,
    places: Vec<Place>,
) -> Result<HashMap<OwnedRoomId, Followed>, MatrixError> {
    let gaps = store.gaps(Place::MATRIX).await?;
    let mut rooms = HashMap::new();
    for place in places {
        let id = RoomId::parse(place.address())
            .map_err(|_| MatrixError::NoRoom(format!("{} is no room id", place.address())))?;
        let mark = store.cursor(&mark_cursor(&place)).await?.map(Mark::parse);
        let gap = gaps.iter().find(|gap| gap.place == place).cloned();
        let followed = Followed {
            place,
            mark,
            gap,
            gap_due: Instant::now(),
            backoff: Backoff::default(),
        };
        rooms.insert(id, followed);
    }
    Ok(rooms)
}

/// The rooms that are joined to a channel, and not only listened in.
pub(super) async fn joined_to_channels(store: &Store) -> Result<HashSet<Place>, MatrixError> {
    let portals = store.portals().await?.into_iter();
    let joined = portals.filter(|portal| portal.active && portal.origin != Origin::Desk);
    Ok(joined.map(|portal| portal.room).collect())
}

/// Marks the rooms that were linked while we were in them already, by their newest event: it was written before.
/// The syncs that follow bring nothing of a quiet room until somebody writes, and that is wanted. An account that
/// has never synced is shown all its rooms by its first sync.
pub(super) async fn mark_entered(
    matrix: &Matrix,
    rooms: &mut HashMap<OwnedRoomId, Followed>,
    inbox: &Inbox,
    stop: &CancellationToken,
) -> Result<(), MatrixError> {
    let unmarked = rooms.values().any(|followed| followed.mark.is_none());
    if !unmarked || matrix.store.cursor(SYNC_CURSOR).await?.is_none() {
        return Ok(());
    }
    let mut backoff = Backoff::default();
    let marks = loop {
        let fault = match newest_of_unmarked(matrix, rooms).await {
            Ok(marks) => break marks,
            Err(fault @ Fault::SignedOut(_)) => {
                return Err(fault.into_matrix_error("list the rooms"));
            }
            Err(fault) => fault,
        };
        // A sync now would leave nothing to tell what was written before from what is written after.
        let wait = backoff.failed();
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let error = format!(
            "{:#}",
            fault.into_matrix_error("look at a new portal's room")
        );
        warn!(
            wait_ms,
            error, "The rooms of new portals cannot be looked at; trying again"
        );
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(wait) => {}
        }
    };
    let mut batch = Batch::default();
    for (id, events) in marks {
        let newest = events.iter().find_map(TimelineEvent::event_id);
        let (Some(followed), Some(newest)) = (rooms.get_mut(&id), newest) else {
            continue;
        };
        let newest = RemoteId(newest.to_string());
        let room = matrix.client.get_room(&id);
        let shown = matrix.all_shown(room.as_ref(), &followed.place, &events);
        batch.before.extend(shown.await);
        batch
            .cursors
            .push((mark_cursor(&followed.place), newest.0.clone()));
        followed.mark = Some(Mark::Event(newest));
    }
    inbox.accept(batch).await?;
    Ok(())
}

/// The newest events of each room that we are in and that has no mark, newest first.
async fn newest_of_unmarked(
    matrix: &Matrix,
    rooms: &HashMap<OwnedRoomId, Followed>,
) -> Result<Vec<(OwnedRoomId, Vec<TimelineEvent>)>, Fault> {
    let client = &matrix.client;
    let fault = |error: matrix_sdk::HttpError| Fault::from(&error);
    let joined = client.send(joined_rooms::v3::Request::new()).await;
    let mut marks = Vec::new();
    for id in joined.map_err(fault)?.joined_rooms {
        if rooms
            .get(&id)
            .is_none_or(|followed| followed.mark.is_some())
        {
            continue;
        }
        let (events, _) = page_of(client, &id, None, PAGE, &mut Names::default()).await?;
        marks.push((id, events));
    }
    Ok(marks)
}

/// Invites, and rooms of portals that we are not in.
#[derive(Debug, Default)]
pub(super) struct Invites {
    /// When each was last answered: the SDK shows the outcome only after the next sync.
    answered: HashMap<OwnedRoomId, Instant>,
    /// What did not work is said once.
    reported: HashSet<OwnedRoomId>,
}

impl Invites {
    /// Accepts invites to followed rooms and refuses the others. A followed room that we have never been in is
    /// tried as well: anyone may enter a public room.
    pub(super) async fn answer(
        &mut self,
        matrix: &Matrix,
        rooms: &mut HashMap<OwnedRoomId, Followed>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let client = &matrix.client;
        let invited = client
            .invited_rooms()
            .into_iter()
            .map(|room| room.room_id().to_owned());
        let unknown = rooms
            .keys()
            .filter(|id| client.get_room(id).is_none())
            .cloned();
        let open = invited.chain(unknown).collect();
        self.answer_these(open, matrix, rooms, inbox).await
    }

    /// Enters the followed rooms that we were invited to before we listened.
    pub(super) async fn enter(
        &mut self,
        matrix: &Matrix,
        rooms: &mut HashMap<OwnedRoomId, Followed>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let invited = matrix.client.invited_rooms().into_iter();
        let invited = invited.map(|room| room.room_id().to_owned());
        let open = invited.filter(|id| rooms.contains_key(id)).collect();
        self.answer_these(open, matrix, rooms, inbox).await
    }

    async fn answer_these(
        &mut self,
        open: Vec<OwnedRoomId>,
        matrix: &Matrix,
        rooms: &mut HashMap<OwnedRoomId, Followed>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let client = &matrix.client;
        // Who invites us again and again holds up no sync: the others are refused after the next ones.
        let mut refused = 0;
        self.answered.retain(|_, at| at.elapsed() < INVITE_REST);
        for id in open {
            if refused >= REFUSED_AT_ONCE && !rooms.contains_key(&id) {
                continue;
            }
            if self
                .answered
                .get(&id)
                .is_some_and(|at| at.elapsed() < INVITE_REST)
            {
                continue;
            }
            self.answered.insert(id.clone(), Instant::now());
            let outcome = match rooms.get_mut(&id) {
                Some(followed) => {
                    mark_entry(followed, inbox).await?;
                    join(client, &id).await
                }
                None if self.is_of_a_host(matrix, &id).await => {
                    receive(matrix, &id, inbox).await?;
                    Ok(())
                }
                None => {
                    refused += 1;
                    refuse(client, &id).await
                }
            };
            self.report(&id, outcome)?;
        }
        Ok(())
    }

    /// Whether somebody whom the operator has named invites us.
    async fn is_of_a_host(&self, matrix: &Matrix, room: &RoomId) -> bool {
        let Some(room) = matrix.client.get_room(room) else {
            return false;
        };
        let invite = room.invite_details().await;
        invite.is_ok_and(|invite| is_listed(&matrix.hosts, invite.inviter_id.as_str()))
    }

    fn report(&mut self, room: &RoomId, outcome: Result<(), Fault>) -> Result<(), MatrixError> {
        match outcome {
            Ok(()) => {
                self.reported.remove(room);
                Ok(())
            }
            Err(fault @ Fault::SignedOut(_)) => Err(fault.into_matrix_error("answer an invite")),
            Err(fault) => {
                if self.reported.insert(room.to_owned()) {
                    let error = format!("{:#}", fault.into_matrix_error("enter or leave"));
                    warn!(matrix.room = %room, error, "A room cannot be entered or an invite not be refused; trying again");
                }
                Ok(())
            }
        }
    }
}

/// Before we enter: whatever comes after our entry is wanted, also if we crash now. Where we come back to, all that
/// follows what was walked before is wanted as well.
async fn mark_entry(followed: &mut Followed, inbox: &Inbox) -> Result<(), MatrixError> {
    if matches!(followed.mark, Some(Mark::Event(_))) {
        return Ok(());
    }
    let cursor = (mark_cursor(&followed.place), JOIN.to_owned());
    inbox
        .accept(Batch {
            cursors: vec![cursor],
            ..Batch::default()
        })
        .await?;
    followed.mark = Some(Mark::Join);
    Ok(())
}

/// Makes a room one that is followed: the next listener enters it, and the bridge answers there.
async fn receive(matrix: &Matrix, room: &RoomId, inbox: &Inbox) -> Result<(), MatrixError> {
    let now = matrix.clock.now();
    let greeting = Message::notice(&greeting(), now).to_bytes().ok();
    let place = Place::room(room.as_str());
    matrix.store.open_desk(&place, greeting, now).await?;
    inbox.bells().portals_changed();
    info!(matrix.room = %room, "Accepting the invite of somebody whom the operator has named");
    Ok(())
}

/// We are no longer in this room: there is nobody to answer.
pub(super) async fn leave_desk(
    matrix: &Matrix,
    place: &Place,
    inbox: &Inbox,
) -> Result<(), MatrixError> {
    if matrix.store.close_desk(place, matrix.clock.now()).await? {
        inbox.bells().portals_changed();
    }
    Ok(())
}

async fn join(client: &Client, room: &RoomId) -> Result<(), Fault> {
    let request = join_room_by_id::v3::Request::new(room.to_owned());
    client
        .send(request)
        .await
        .map_err(|error| Fault::from(&error))?;
    info!(matrix.room = %room, "Entered the room of a portal");
    Ok(())
}

async fn refuse(client: &Client, room: &RoomId) -> Result<(), Fault> {
    let mut request = leave_room::v3::Request::new(room.to_owned());
    request.reason = Some(NOT_OURS.to_owned());
    client
        .send(request)
        .await
        .map_err(|error| Fault::from(&error))?;
    info!(matrix.room = %room, "Refused an invite to a room that has no portal");
    Ok(())
}
