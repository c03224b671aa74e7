//! What control asks of both sides, answered: the wiring between a command and Matrix or a silo.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use footbridge_core::persons::UserIdentities;
use footbridge_matrix::{Matrix, MatrixError};
use footbridge_silo::{Silo, SiloError};
use footbridge_store::{Place, Portal, Tombstone};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::control::{Audience, Found, Outside, Problem, Proof, Standing, Successor};

/// How long one question may take: somebody waits for the answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The state event that shows where a room is bridged to (MSC2346).
const BRIDGE_STATE: &str = "uk.half-shot.bridge";

/// Both sides of a running bridge.
pub(super) struct Sides {
    pub matrix: Arc<Matrix>,
    pub silos: BTreeMap<String, Arc<dyn Silo>>,
}

impl Sides {
    fn silo(&self, name: &str) -> Result<&Arc<dyn Silo>, Problem> {
        self.silos.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.silos.keys().map(String::as_str).collect();
            Problem::No(format!(
                "This bridge knows no silo `{name}`. It knows {}.",
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            ))
        })
    }
}

/// Asks the homeserver.
async fn ask<T>(
    question: impl Future<Output = Result<T, MatrixError>>,
    no: &str,
) -> Result<T, Problem> {
    match timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(MatrixError::Store(error))) => Err(Problem::Store(error)),
        Ok(Err(MatrixError::NoRoom(_))) => Err(Problem::No(no.to_owned())),
        Ok(Err(_)) | Err(_) => Err(Problem::Later(
            "The homeserver does not answer now. Please try again in a moment.".to_owned(),
        )),
    }
}

/// Asks a silo.
async fn ask_silo<T>(
    name: &str,
    question: impl Future<Output = Result<T, SiloError>>,
) -> Result<T, Problem> {
    match timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(SiloError::Store(error))) => Err(Problem::Store(error)),
        Ok(Err(SiloError::NoChannel(reason))) => Err(Problem::No(format!(
            "I cannot use that channel of {name}: {}.",
            reason.trim_end_matches('.')
        ))),
        Ok(Err(_)) | Err(_) => Err(Problem::Later(format!(
            "{name} does not answer now. Please try again in a moment."
        ))),
    }
}

#[async_trait]
impl Outside for Sides {
    async fn room(&self, name: &str) -> Result<Place, Problem> {
        ask(self.matrix.resolve(name), "I cannot find that room.").await
    }

    async fn standing(&self, room: &Place, user: &str) -> Result<Standing, Problem> {
        let rights = ask(
            self.matrix.rights(room, user),
            "I am not in that room: invite me there first.",
        )
        .await?;
        Ok(Standing {
            joined: rights.joined,
            level: rights.level,
            to_change_power: rights.to_change_power,
            state_default: rights.state_default,
            encrypted: rights.encrypted,
        })
    }

    async fn is_heard(&self, room: &Place) -> bool {
        matches!(
            timeout(PATIENCE, self.matrix.is_heard(room)).await,
            Ok(Ok(true))
        )
    }

    async fn channel(&self, silo: &str, name: &str) -> Result<Found, Problem> {
        let channel = ask_silo(silo, self.silo(silo)?.resolve(name)).await?;
        Ok(Found {
            place: channel.place,
            name: channel.name,
        })
    }

    async fn audience(&self, silo: &str, channel: &str) -> Audience {
        let named = || Audience {
            public: None,
            operator: silo.to_owned(),
        };
        let Ok(asked) = self.silo(silo) else {
            return named();
        };
        match timeout(PATIENCE, asked.readers(channel)).await {
            Ok(readers) if !readers.operator.is_empty() => Audience {
                public: readers.public,
                operator: readers.operator,
            },
            Ok(_) | Err(_) => named(),
        }
    }

    async fn heard(
        &self,
        silo: &str,
        channel: &Place,
        code: &str,
    ) -> Result<Option<Proof>, Problem> {
        let poster = ask_silo(silo, self.silo(silo)?.find_code(channel, code)).await?;
        Ok(poster.map(|poster| Proof {
            by: poster.name,
            in_control: poster.is_admin,
        }))
    }

    async fn show(&self, portal: &Portal) -> Result<(), Problem> {
        let spec = &portal.spec;
        let key = format!("footbridge/{}/{}", spec.silo, portal.channel.address());
        let content = if portal.active {
            mark(self.matrix.user(), portal)
        } else {
            json!({})
        };
        let written = self
            .matrix
            .show_in_state(&portal.room, (BRIDGE_STATE, &key), &content);
        ask(written, "I am not in that room.").await.map(drop)
    }

    async fn successor(&self, tombstone: &Tombstone) -> Result<Successor, Problem> {
        let entered = timeout(PATIENCE, self.matrix.enter_next(tombstone)).await;
        match entered {
            Ok(Ok(next)) => Ok(Successor {
                place: next.place,
                predecessor: next.predecessor,
                encrypted: next.encrypted,
            }),
            Ok(Err(MatrixError::Store(error))) => Err(Problem::Store(error)),
            // An invite may still come.
            Ok(Err(_)) | Err(_) => Err(Problem::Later(
                "the bridge cannot enter the new room yet; invite it there".to_owned(),
            )),
        }
    }

    async fn identities(&self, user: &str) -> Result<UserIdentities, Problem> {
        ask(self.matrix.identities_of(user), "I am not in that room.").await
    }

    async fn approve(&self, user: &str, key: &str) -> Result<Option<u64>, Problem> {
        let approved = ask(self.matrix.approve(user, key), "I am not in that room.").await?;
        Ok(approved.map(|approved| approved.held))
    }
}

/// What the state of a room says of its portal.
fn mark(bot: &str, portal: &Portal) -> Value {
    let spec = &portal.spec;
    json!({
        "bridgebot": bot,
        "protocol": {"id": spec.silo, "displayname": spec.silo},
        "channel": {"id": portal.channel.address(), "displayname": spec.channel},
    })
}
