//! Invites: which are accepted and which refused, and rooms of portals that we are not in.

use std::{
    collections::{HashMap, HashSet},
    sync::PoisonError,
    time::Duration,
};

use footbridge_core::{inbox::Inbox, message::Message, persons::is_admin};
use footbridge_store::{Batch, Place};
use matrix_sdk::{
    Client,
    ruma::{
        OwnedRoomId, RoomId,
        api::client::membership::{join_room_by_id, leave_room},
    },
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Matrix, MatrixError,
    request_error::RequestError,
    room_cursor_name,
    rooms::{JOIN, PortalRoom, RoomCursor, resolve},
};

/// Why an invite is turned down.
const REFUSE_REASON: &str = "This bridge only joins rooms that its operator has configured, or into which people invite it whom the operator has named.";
/// So many invites to rooms that have no portal are refused after one sync.
const MAX_REFUSALS: usize = 10;
/// How long an invite that could not be answered rests.
const INVITE_RETRY: Duration = Duration::from_secs(30);

/// Invites, and rooms of portals that we are not in.
#[derive(Debug, Default)]
pub(super) struct Invites {
    /// When each was last answered: the SDK shows the outcome only after the next sync.
    answered: HashMap<OwnedRoomId, Instant>,
    /// What did not work is said once, and which invites wait.
    reported: HashSet<OwnedRoomId>,
    /// Rooms of portals whose invites were refused before they were that.
    refused: HashSet<OwnedRoomId>,
    /// Which rooms aliases lead to, and since when that is known; `None` where there is no such alias.
    aliases: HashMap<String, (Instant, Option<Place>)>,
}

/// Rooms that are named by whoever decides here, although nothing is followed in them yet.
struct NamedRooms {
    /// Of portals that rest, and those that take another's place.
    places: HashSet<Place>,
    /// Ids and aliases that portals name which are not open yet.
    awaited_rooms: Vec<String>,
}

impl NamedRooms {
    async fn read(matrix: &Matrix) -> Result<Self, MatrixError> {
        let portals = matrix.store.portals().await?.into_iter();
        let portals = portals.filter(|portal| portal.active);
        let upgrades = matrix.store.room_upgrades().await?.into_iter();
        let upgrades = upgrades.filter(|upgrade| upgrade.refused.is_none());
        let awaited = matrix.awaited_rooms.lock();
        Ok(Self {
            places: portals
                .map(|portal| portal.room)
                .chain(upgrades.map(|upgrade| Place::room(&upgrade.tombstone.successor)))
                .collect(),
            awaited_rooms: awaited.unwrap_or_else(PoisonError::into_inner).clone(),
        })
    }
}

impl Matrix {
    /// These rooms, by id or alias, are those of portals that are not open yet: an invite to one of them waits until it is.
    pub fn set_awaited_rooms(&self, rooms: Vec<String>) {
        *self
            .awaited_rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = rooms;
    }
}

impl Invites {
    /// Accepts invites to followed rooms and refuses those to rooms that nobody named. A followed room that we have never
    /// been in, or whose invite was refused before, is tried as well: anyone may enter a public room.
    pub(super) async fn answer(
        &mut self,
        matrix: &Matrix,
        rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let client = &matrix.client;
        let invited = client
            .invited_rooms()
            .into_iter()
            .map(|room| room.room_id().to_owned());
        let unknown = rooms
            .keys()
            .filter(|id| client.get_room(id).is_none() || self.refused.contains(*id))
            .cloned();
        let open = invited.chain(unknown).collect();
        self.answer_these(open, matrix, rooms, inbox).await
    }

    /// A sync shows these invites as new. One to a followed room is answered at once, whatever failed before.
    pub(super) fn renewed<'i>(
        &mut self,
        invited: impl Iterator<Item = &'i OwnedRoomId>,
        rooms: &HashMap<OwnedRoomId, PortalRoom>,
    ) {
        for id in invited.filter(|id| rooms.contains_key(*id)) {
            self.answered.remove(id);
            self.reported.remove(id);
        }
    }

    /// Enters the followed rooms that we were invited to before we listened.
    pub(super) async fn enter(
        &mut self,
        matrix: &Matrix,
        rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        for invite in matrix.store.refused_invites().await? {
            let id = RoomId::parse(invite.room.address()).ok();
            self.refused.extend(id.filter(|id| rooms.contains_key(id)));
        }
        let invited = matrix.client.invited_rooms().into_iter();
        let invited = invited.map(|room| room.room_id().to_owned());
        let open = invited.filter(|id| rooms.contains_key(id)).collect();
        self.answer_these(open, matrix, rooms, inbox).await
    }

    async fn answer_these(
        &mut self,
        open: Vec<OwnedRoomId>,
        matrix: &Matrix,
        rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let client = &matrix.client;
        // Who invites us again and again holds up no sync: the others are refused after the next ones.
        let mut refused = 0;
        let mut named = None;
        self.answered.retain(|_, at| at.elapsed() < INVITE_RETRY);
        for id in open {
            if refused >= MAX_REFUSALS && !rooms.contains_key(&id) {
                continue;
            }
            if self
                .answered
                .get(&id)
                .is_some_and(|at| at.elapsed() < INVITE_RETRY)
            {
                continue;
            }
            self.answered.insert(id.clone(), Instant::now());
            let outcome = match rooms.get_mut(&id) {
                Some(followed) => {
                    mark_entry(followed, inbox).await?;
                    let joined = join(client, &id).await;
                    match &joined {
                        Ok(()) => {
                            self.refused.remove(&id);
                            matrix.store.forget_refused_invite(&followed.place).await?;
                            matrix.mark_joined(&followed.place, inbox).await?;
                        }
                        Err(
                            RequestError::Forbidden(_)
                            | RequestError::NotFound(_)
                            | RequestError::Invalid(_),
                        ) => {
                            matrix.mark_unjoined(&followed.place).await?;
                        }
                        Err(_) => {}
                    }
                    joined
                }
                None if self.is_named(matrix, &mut named, &id).await? => {
                    if self.reported.insert(id.clone()) {
                        info!(matrix.room = %id, "An invite waits until the portal of its room is open");
                    }
                    continue;
                }
                None if self.is_from_inviter(matrix, &id).await => {
                    receive(matrix, &id, inbox).await?;
                    Ok(())
                }
                None => {
                    refused += 1;
                    let outcome = refuse(client, &id).await;
                    if outcome.is_ok() {
                        let place = Place::room(id.as_str());
                        let now = matrix.clock.now();
                        matrix.store.note_refused_invite(&place, now).await?;
                    }
                    outcome
                }
            };
            self.report(&id, outcome)?;
        }
        Ok(())
    }

    /// Whether this room is one that somebody has named. What cannot be told yet counts as named: a refusal is for good.
    async fn is_named(
        &mut self,
        matrix: &Matrix,
        named: &mut Option<NamedRooms>,
        room: &RoomId,
    ) -> Result<bool, MatrixError> {
        let named = match named {
            Some(named) => named,
            None => named.insert(NamedRooms::read(matrix).await?),
        };
        let place = Place::room(room.as_str());
        if named.places.contains(&place) {
            return Ok(true);
        }
        for name in &named.awaited_rooms {
            let leads_here = match self.resolve_name(matrix, name).await {
                Ok(Some(named)) => named == place,
                // An alias that is not there yet: its room may say already that it is to have it.
                Ok(None) => matrix
                    .client
                    .get_room(room)
                    .is_some_and(|room| room.canonical_alias().is_some_and(|alias| alias == *name)),
                Err(fault @ MatrixError::SignedOut(_)) => return Err(fault),
                Err(_) => true,
            };
            if leads_here {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The room of this id or alias; `None` where there is no such alias.
    async fn resolve_name(
        &mut self,
        matrix: &Matrix,
        name: &str,
    ) -> Result<Option<Place>, MatrixError> {
        if let Some((_, known)) = self
            .aliases
            .get(name)
            .filter(|(since, _)| since.elapsed() < INVITE_RETRY)
        {
            return Ok(known.clone());
        }
        let found = match resolve(&matrix.client, name).await {
            Ok(place) => Some(place),
            Err(MatrixError::NoRoom(_)) => None,
            Err(fault) => return Err(fault),
        };
        self.aliases
            .insert(name.to_owned(), (Instant::now(), found.clone()));
        Ok(found)
    }

    /// Whether somebody whom the operator has named invites us.
    async fn is_from_inviter(&self, matrix: &Matrix, room: &RoomId) -> bool {
        let Some(room) = matrix.client.get_room(room) else {
            return false;
        };
        let invite = room.invite_details().await;
        invite.is_ok_and(|invite| is_admin(&matrix.inviters, invite.inviter_id.as_str()))
    }

    fn report(
        &mut self,
        room: &RoomId,
        outcome: Result<(), RequestError>,
    ) -> Result<(), MatrixError> {
        match outcome {
            Ok(()) => {
                self.reported.remove(room);
                Ok(())
            }
            Err(fault @ RequestError::SignedOut(_)) => {
                Err(fault.into_matrix_error("answer an invite"))
            }
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
async fn mark_entry(followed: &mut PortalRoom, inbox: &Inbox) -> Result<(), MatrixError> {
    if matches!(followed.mark, Some(RoomCursor::Event(_))) {
        return Ok(());
    }
    let cursor = (room_cursor_name(&followed.place), JOIN.to_owned());
    inbox
        .accept(Batch {
            cursors: vec![cursor],
            ..Batch::default()
        })
        .await?;
    followed.mark = Some(RoomCursor::Join);
    Ok(())
}

/// Makes a room one that is followed: the next listener enters it, and the bridge answers there.
async fn receive(matrix: &Matrix, room: &RoomId, inbox: &Inbox) -> Result<(), MatrixError> {
    let now = matrix.clock.now();
    let greeting = Message::notice(&matrix.greeting, now).to_bytes().ok();
    let place = Place::room(room.as_str());
    matrix
        .store
        .open_management_room(&place, greeting, now)
        .await?;
    inbox.signals().notify_portals_changed();
    info!(matrix.room = %room, "Accepting the invite of somebody whom the operator has named");
    Ok(())
}

async fn join(client: &Client, room: &RoomId) -> Result<(), RequestError> {
    let request = join_room_by_id::v3::Request::new(room.to_owned());
    client
        .send(request)
        .await
        .map_err(|error| RequestError::from(&error))?;
    info!(matrix.room = %room, "Entered the room of a portal");
    Ok(())
}

async fn refuse(client: &Client, room: &RoomId) -> Result<(), RequestError> {
    let mut request = leave_room::v3::Request::new(room.to_owned());
    request.reason = Some(REFUSE_REASON.to_owned());
    client
        .send(request)
        .await
        .map_err(|error| RequestError::from(&error))?;
    info!(
        matrix.room = %room,
        "Refused an invite to a room that no portal names. Once one does, invite the bridge again"
    );
    Ok(())
}
