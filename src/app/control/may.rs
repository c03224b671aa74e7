//! Pure: who may do what (P14). One function decides, from facts that were asked for at the moment of use.

/// What somebody wants to do about a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Join a room to a channel.
    Link,
    /// Agree that what is said in an encrypted room may leave it.
    Agree,
    /// Trust a user's new identity.
    Trust,
    /// Lead a portal into the room that takes the place of its own.
    SyncDirection,
    /// Hold a portal up, or let it go on.
    Pause,
    /// Take a portal apart.
    Unlink,
}

impl Act {
    /// Whether the operator must have named who does this. Whoever rules a room may always stop what leaves it.
    fn needs_to_be_listed(self) -> bool {
        !matches!(self, Self::Pause | Self::Unlink)
    }

    /// Whether it must be said in an encrypted event of a device that is trusted: the homeserver could write any other.
    /// That a room has moved is never said so, because state is not encrypted.
    fn needs_to_be_sealed(self, encrypted_room: bool) -> bool {
        match self {
            Self::Agree | Self::Trust => true,
            Self::Link | Self::Pause | Self::Unlink => encrypted_room,
            Self::SyncDirection => false,
        }
    }
}

/// What the homeserver says of a room and of somebody in it, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether they are in the room.
    pub joined: bool,
    /// Their power level.
    pub level: i64,
    /// What it takes to change power levels.
    pub to_change_power: i64,
    /// What it takes to send a state event that nothing else is said of.
    pub state_default: i64,
    /// Whether the room is or ever was encrypted.
    pub encrypted: bool,
}

impl Standing {
    /// The power level that deciding about this room takes.
    #[must_use]
    pub fn needed(&self) -> i64 {
        if self.encrypted {
            self.to_change_power
        } else {
            self.state_default
        }
    }
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The operator has not named them.
    NotListed,
    /// They are not in the room.
    NotInRoom,
    /// Their power level is too low.
    TooLittlePower {
        /// What they have.
        has: i64,
        /// What it takes.
        needs: i64,
    },
    /// It was not said in an encrypted event of a device that is trusted.
    NotEncrypted,
}

/// Whether somebody may do this. `listed` says whether the operator has named them, `sealed` whether they asked in an
/// encrypted event of a device whose messages are relayed.
pub fn may(act: Act, listed: bool, sealed: bool, standing: &Standing) -> Result<(), Refusal> {
    if act.needs_to_be_listed() && !listed {
        return Err(Refusal::NotListed);
    }
    if !standing.joined {
        return Err(Refusal::NotInRoom);
    }
    if standing.level < standing.needed() {
        return Err(Refusal::TooLittlePower {
            has: standing.level,
            needs: standing.needed(),
        });
    }
    if act.needs_to_be_sealed(standing.encrypted) && !sealed {
        return Err(Refusal::NotEncrypted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTS: [Act; 6] = [
        Act::Link,
        Act::Agree,
        Act::Trust,
        Act::SyncDirection,
        Act::Pause,
        Act::Unlink,
    ];

    fn standing(level: i64, encrypted: bool) -> Standing {
        Standing {
            joined: true,
            level,
            to_change_power: 100,
            state_default: 50,
            encrypted,
        }
    }

    fn too_little(has: i64, needs: i64) -> Result<(), Refusal> {
        Err(Refusal::TooLittlePower { has, needs })
    }

    #[test]
    fn p14_who_may_is_decided_by_list_membership_power_and_encryption() {
        // Of each act: not listed, and listed with too little, just enough, and more power, in the clear and encrypted.
        for act in ACTS {
            for (level, encrypted, expected) in [
                (49, false, too_little(49, 50)),
                (50, false, Ok(())),
                (100, false, Ok(())),
                (99, true, too_little(99, 100)),
                (100, true, Ok(())),
                (i64::MAX, true, Ok(())),
                (-1, false, too_little(-1, 50)),
            ] {
                let facts = standing(level, encrypted);
                assert_eq!(may(act, true, true, &facts), expected, "{act:?} {facts:?}");
                let unlisted = if matches!(act, Act::Pause | Act::Unlink) {
                    expected
                } else {
                    Err(Refusal::NotListed)
                };
                assert_eq!(may(act, false, true, &facts), unlisted, "{act:?} {facts:?}");
                let outside = Standing {
                    joined: false,
                    ..facts
                };
                assert_eq!(may(act, true, true, &outside), Err(Refusal::NotInRoom));
            }
        }
    }

    #[test]
    fn p15_what_the_homeserver_could_have_written_decides_nothing_about_encryption_or_trust() {
        for (act, in_clear, encrypted) in [
            (Act::Link, Ok(()), Err(Refusal::NotEncrypted)),
            (
                Act::Agree,
                Err(Refusal::NotEncrypted),
                Err(Refusal::NotEncrypted),
            ),
            (
                Act::Trust,
                Err(Refusal::NotEncrypted),
                Err(Refusal::NotEncrypted),
            ),
            (Act::SyncDirection, Ok(()), Ok(())),
            (Act::Pause, Ok(()), Err(Refusal::NotEncrypted)),
            (Act::Unlink, Ok(()), Err(Refusal::NotEncrypted)),
        ] {
            let unsealed = |encrypted| may(act, true, false, &standing(100, encrypted));
            assert_eq!(unsealed(false), in_clear, "{act:?}");
            assert_eq!(unsealed(true), encrypted, "{act:?}");
        }
        // What is missing first is said first.
        let weak = may(Act::Agree, true, false, &standing(0, true));
        assert_eq!(weak, too_little(0, 100));
    }
}
