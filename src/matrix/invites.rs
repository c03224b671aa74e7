//! Invites: which are accepted and which refused, and rooms of portals that the account has not joined.

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

/// The reason that is sent when an invite is refused.
const REFUSE_REASON: &str = "This bridge only joins rooms that its operator has configured, or to which a user invites it who is on the operator's list.";
/// The most invites to rooms without a portal that are refused after one sync.
const MAX_REFUSALS: usize = 10;
/// How long an invite waits after an answer that failed.
const INVITE_RETRY: Duration = Duration::from_secs(30);

/// Invites, and rooms of portals that the account has not joined.
#[derive(Debug, Default)]
pub(super) struct Invites {
    /// When each invite was last answered: the SDK shows the outcome only after the next sync.
    answered: HashMap<OwnedRoomId, Instant>,
    /// Rooms with a failure, or with a waiting invite, that was logged already.
    reported: HashSet<OwnedRoomId>,
    /// Rooms of portals whose invites were refused before the portal existed.
    refused: HashSet<OwnedRoomId>,
    /// The room of each alias, and since when it is known; `None` where there is no such alias.
    aliases: HashMap<String, (Instant, Option<Place>)>,
}

/// Rooms that are named by the operator or an upgrade, although the bridge does not follow them yet.
struct NamedRooms {
    /// Rooms of active portals, and successors of upgraded rooms.
    places: HashSet<Place>,
    /// Ids and aliases of portals that are not resolved yet.
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
    /// Sets the rooms, by id or alias, of portals that are not resolved yet: an invite to one of them waits until its
    /// portal is open.
    pub fn set_awaited_rooms(&self, rooms: Vec<String>) {
        *self
            .awaited_rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = rooms;
    }
}

impl Invites {
    /// Accepts invites to followed rooms and refuses those to rooms that nobody named. A followed room that the account
    /// has never joined, or whose invite was refused before, is tried as well: it may be public.
    pub(super) async fn answer(
        &mut self,
        matrix: &Matrix,
        rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let client = matrix.account.client();
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

    /// A sync shows these invites as new. An invite to a followed room is answered at once, whatever failed before.
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

    /// Joins the followed rooms with an invite from before the sync loop started.
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
        let invited = matrix.account.client().invited_rooms().into_iter();
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
        let client = matrix.account.client();
        // Repeated invites must not delay the syncs: further ones are refused after the next syncs.
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
                            matrix
                                .unjoined_rooms
                                .mark_joined(&followed.place, inbox)
                                .await?;
                        }
                        Err(
                            RequestError::Forbidden(_)
                            | RequestError::NotFound(_)
                            | RequestError::Invalid(_),
                        ) => {
                            matrix.unjoined_rooms.mark_unjoined(&followed.place).await?;
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

    /// Whether this room is named. If that is not known yet, it counts as named: a refusal cannot be undone.
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
            let leads_here =
                match self.resolve_name(matrix, name).await {
                    Ok(Some(named)) => named == place,
                    // The alias does not exist yet; its room may already name it as canonical.
                    Ok(None) => matrix.account.client().get_room(room).is_some_and(|room| {
                        room.canonical_alias().is_some_and(|alias| alias == *name)
                    }),
                    Err(error @ MatrixError::SignedOut(_)) => return Err(error),
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
        let found = match resolve(matrix.account.client(), name).await {
            Ok(place) => Some(place),
            Err(MatrixError::NoRoom(_)) => None,
            Err(error) => return Err(error),
        };
        self.aliases
            .insert(name.to_owned(), (Instant::now(), found.clone()));
        Ok(found)
    }

    /// Whether the invite comes from somebody on the operator's list.
    async fn is_from_inviter(&self, matrix: &Matrix, room: &RoomId) -> bool {
        let Some(room) = matrix.account.client().get_room(room) else {
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
            Err(error @ RequestError::SignedOut(_)) => {
                Err(error.into_matrix_error("answer an invite"))
            }
            Err(error) => {
                if self.reported.insert(room.to_owned()) {
                    let error = format!("{:#}", error.into_matrix_error("join or leave the room"));
                    warn!(matrix.room = %room, error, "Failed to join a room or to refuse an invite; trying again");
                }
                Ok(())
            }
        }
    }
}

/// Called before the join: every event after the join is to be relayed, even after a crash in between. If the account
/// rejoins, every event after the last processed one is to be relayed as well.
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

/// Makes the room a management room: the next run of the sync loop joins it, and the bridge answers there.
async fn receive(matrix: &Matrix, room: &RoomId, inbox: &Inbox) -> Result<(), MatrixError> {
    let now = matrix.clock.now();
    let greeting = Message::notice(&matrix.greeting, now).to_bytes().ok();
    let place = Place::room(room.as_str());
    matrix
        .store
        .open_management_room(&place, greeting, now)
        .await?;
    inbox.signals().notify_portals_changed();
    info!(matrix.room = %room, "Accepting an invite from a user on the operator's list");
    Ok(())
}

async fn join(client: &Client, room: &RoomId) -> Result<(), RequestError> {
    let request = join_room_by_id::v3::Request::new(room.to_owned());
    client
        .send(request)
        .await
        .map_err(|error| RequestError::from(&error))?;
    info!(matrix.room = %room, "Joined the room of a portal");
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
