//! Invites: which are accepted and which refused, and rooms of portals that the account has not joined.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use footbridge_core::{clock::Clock, inbox::Inbox, message::Message};
use footbridge_store::{Batch, Place, Store};
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
    MatrixError,
    account_client::AccountClient,
    invite_policy::InvitePolicy,
    request_error::RequestError,
    room_cursor_name,
    rooms::{JOIN, PortalRoom, RoomCursor, resolve},
    unjoined_rooms::UnjoinedRooms,
};

/// The reason that is sent when an invite is refused.
const REFUSE_REASON: &str = "This bridge only joins rooms that its operator has configured, or to which a user invites it who is on the operator's list.";
/// The most invites to rooms without a portal that are refused after one sync.
const MAX_REFUSALS: usize = 10;
/// How long an invite waits after an answer that failed.
const INVITE_RETRY: Duration = Duration::from_secs(30);

/// Who is invited, and what is asked about an invite.
#[derive(Clone, Debug)]
pub(super) struct Invitee {
    pub account: AccountClient,
    pub store: Store,
    pub clock: Clock,
    pub policy: Arc<InvitePolicy>,
    pub unjoined_rooms: Arc<UnjoinedRooms>,
}

/// Invites, and rooms of portals that the account has not joined, as far as one run of the sync loop knows them.
#[derive(Debug)]
pub(super) struct Invites {
    invitee: Invitee,
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
    async fn read(store: &Store, policy: &InvitePolicy) -> Result<Self, MatrixError> {
        let portals = store.portals().await?.into_iter();
        let portals = portals.filter(|portal| portal.active);
        let upgrades = store.room_upgrades().await?.into_iter();
        let upgrades = upgrades.filter(|upgrade| upgrade.refused.is_none());
        Ok(Self {
            places: portals
                .map(|portal| portal.room)
                .chain(upgrades.map(|upgrade| Place::room(&upgrade.tombstone.successor)))
                .collect(),
            awaited_rooms: policy.awaited_rooms(),
        })
    }
}

impl Invites {
    pub(super) fn of(invitee: Invitee) -> Self {
        Self {
            invitee,
            answered: HashMap::new(),
            reported: HashSet::new(),
            refused: HashSet::new(),
            aliases: HashMap::new(),
        }
    }

    /// Accepts invites to followed rooms and refuses those to rooms that nobody named. A followed room that the account
    /// has never joined, or whose invite was refused before, is tried as well: it may be public.
    pub(super) async fn answer(
        &mut self,
        rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let account = self.invitee.account.clone();
        let client = account.client();
        let invited = client
            .invited_rooms()
            .into_iter()
            .map(|room| room.room_id().to_owned());
        let unknown = rooms
            .keys()
            .filter(|id| client.get_room(id).is_none() || self.refused.contains(*id))
            .cloned();
        let open = invited.chain(unknown).collect();
        self.answer_these(open, rooms, inbox).await
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
        rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        for invite in self.invitee.store.refused_invites().await? {
            let id = RoomId::parse(invite.room.address()).ok();
            self.refused.extend(id.filter(|id| rooms.contains_key(id)));
        }
        let invited = self.invitee.account.client().invited_rooms().into_iter();
        let invited = invited.map(|room| room.room_id().to_owned());
        let open = invited.filter(|id| rooms.contains_key(id)).collect();
        self.answer_these(open, rooms, inbox).await
    }

    async fn answer_these(
        &mut self,
        open: Vec<OwnedRoomId>,
        rooms: &mut HashMap<OwnedRoomId, PortalRoom>,
        inbox: &Inbox,
    ) -> Result<(), MatrixError> {
        let account = self.invitee.account.clone();
        let client = account.client();
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
                            self.invitee
                                .store
                                .forget_refused_invite(&followed.place)
                                .await?;
                            self.invitee
                                .unjoined_rooms
                                .mark_joined(&followed.place, inbox)
                                .await?;
                        }
                        Err(
                            RequestError::Forbidden(_)
                            | RequestError::NotFound(_)
                            | RequestError::Invalid(_),
                        ) => {
                            self.invitee
                                .unjoined_rooms
                                .mark_unjoined(&followed.place)
                                .await?;
                        }
                        Err(_) => {}
                    }
                    joined
                }
                None if self.is_named(&mut named, &id).await? => {
                    if self.reported.insert(id.clone()) {
                        info!(matrix.room = %id, "An invite waits until the portal of its room is open");
                    }
                    continue;
                }
                None if self.is_from_inviter(&id).await => {
                    self.receive(&id, inbox).await?;
                    Ok(())
                }
                None => {
                    refused += 1;
                    let outcome = refuse(client, &id).await;
                    if outcome.is_ok() {
                        let place = Place::room(id.as_str());
                        let now = self.invitee.clock.now();
                        self.invitee.store.note_refused_invite(&place, now).await?;
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
        named: &mut Option<NamedRooms>,
        room: &RoomId,
    ) -> Result<bool, MatrixError> {
        let named = match named {
            Some(named) => named,
            None => {
                named.insert(NamedRooms::read(&self.invitee.store, &self.invitee.policy).await?)
            }
        };
        let place = Place::room(room.as_str());
        if named.places.contains(&place) {
            return Ok(true);
        }
        for name in &named.awaited_rooms {
            let leads_here = match self.resolve_name(name).await {
                Ok(Some(named)) => named == place,
                // The alias does not exist yet; its room may already name it as canonical.
                Ok(None) => self
                    .invitee
                    .account
                    .client()
                    .get_room(room)
                    .is_some_and(|room| room.canonical_alias().is_some_and(|alias| alias == *name)),
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
    async fn resolve_name(&mut self, name: &str) -> Result<Option<Place>, MatrixError> {
        if let Some((_, known)) = self
            .aliases
            .get(name)
            .filter(|(since, _)| since.elapsed() < INVITE_RETRY)
        {
            return Ok(known.clone());
        }
        let found = match resolve(self.invitee.account.client(), name).await {
            Ok(place) => Some(place),
            Err(MatrixError::NoRoom(_)) => None,
            Err(error) => return Err(error),
        };
        self.aliases
            .insert(name.to_owned(), (Instant::now(), found.clone()));
        Ok(found)
    }

    /// Whether the invite comes from somebody on the operator's list.
    async fn is_from_inviter(&self, room: &RoomId) -> bool {
        let Some(room) = self.invitee.account.client().get_room(room) else {
            return false;
        };
        let invite = room.invite_details().await;
        invite.is_ok_and(|invite| self.invitee.policy.admits(invite.inviter_id.as_str()))
    }

    /// Makes the room a management room: the next run of the sync loop joins it, and the bridge answers there.
    async fn receive(&self, room: &RoomId, inbox: &Inbox) -> Result<(), MatrixError> {
        let now = self.invitee.clock.now();
        let greeting = Message::notice(self.invitee.policy.greeting(), now)
            .to_bytes()
            .ok();
        let place = Place::room(room.as_str());
        self.invitee
            .store
            .open_management_room(&place, greeting, now)
            .await?;
        inbox.signals().notify_portals_changed();
        info!(matrix.room = %room, "Accepting an invite from a user on the operator's list");
        Ok(())
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
            Err(RequestError::Forbidden(_)) => {
                if self.reported.insert(room.to_owned()) {
                    warn!(matrix.room = %room, "The bridge's account may not enter a room; invite it there");
                }
                Ok(())
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
