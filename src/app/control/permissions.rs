//! Pure: who may do what (P14). One function decides, from facts that were asked for at the moment of use.

/// What somebody wants to do about a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortalAction {
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

impl PortalAction {
    /// Whether the operator must have named who does this. Whoever rules a room may always stop what leaves it.
    fn requires_listed(self) -> bool {
        !matches!(self, Self::Pause | Self::Unlink)
    }

    /// Whether it must be said in an encrypted event of a device that is trusted: the homeserver could write any other.
    /// That a room has moved is never said so, because state is not encrypted.
    fn requires_encrypted(self, encrypted_room: bool) -> bool {
        match self {
            Self::Agree | Self::Trust => true,
            Self::Link | Self::Pause | Self::Unlink => encrypted_room,
            Self::SyncDirection => false,
        }
    }
}

/// What the homeserver says of a room and of somebody in it, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRights {
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

impl MemberRights {
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
pub enum PermissionError {
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
pub fn check_permission(
    act: PortalAction,
    listed: bool,
    sealed: bool,
    standing: &MemberRights,
) -> Result<(), PermissionError> {
    if act.requires_listed() && !listed {
        return Err(PermissionError::NotListed);
    }
    if !standing.joined {
        return Err(PermissionError::NotInRoom);
    }
    if standing.level < standing.needed() {
        return Err(PermissionError::TooLittlePower {
            has: standing.level,
            needs: standing.needed(),
        });
    }
    if act.requires_encrypted(standing.encrypted) && !sealed {
        return Err(PermissionError::NotEncrypted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTS: [PortalAction; 6] = [
        PortalAction::Link,
        PortalAction::Agree,
        PortalAction::Trust,
        PortalAction::SyncDirection,
        PortalAction::Pause,
        PortalAction::Unlink,
    ];

    fn member_rights(level: i64, encrypted: bool) -> MemberRights {
        MemberRights {
            joined: true,
            level,
            to_change_power: 100,
            state_default: 50,
            encrypted,
        }
    }

    fn too_little(has: i64, needs: i64) -> Result<(), PermissionError> {
        Err(PermissionError::TooLittlePower { has, needs })
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
                let facts = member_rights(level, encrypted);
                assert_eq!(
                    check_permission(act, true, true, &facts),
                    expected,
                    "{act:?} {facts:?}"
                );
                let unlisted = if matches!(act, PortalAction::Pause | PortalAction::Unlink) {
                    expected
                } else {
                    Err(PermissionError::NotListed)
                };
                assert_eq!(
                    check_permission(act, false, true, &facts),
                    unlisted,
                    "{act:?} {facts:?}"
                );
                let outside = MemberRights {
                    joined: false,
                    ..facts
                };
                assert_eq!(
                    check_permission(act, true, true, &outside),
                    Err(PermissionError::NotInRoom)
                );
            }
        }
    }

    #[test]
    fn p15_what_the_homeserver_could_have_written_decides_nothing_about_encryption_or_trust() {
        for (act, in_clear, encrypted) in [
            (
                PortalAction::Link,
                Ok(()),
                Err(PermissionError::NotEncrypted),
            ),
            (
                PortalAction::Agree,
                Err(PermissionError::NotEncrypted),
                Err(PermissionError::NotEncrypted),
            ),
            (
                PortalAction::Trust,
                Err(PermissionError::NotEncrypted),
                Err(PermissionError::NotEncrypted),
            ),
            (PortalAction::SyncDirection, Ok(()), Ok(())),
            (
                PortalAction::Pause,
                Ok(()),
                Err(PermissionError::NotEncrypted),
            ),
            (
                PortalAction::Unlink,
                Ok(()),
                Err(PermissionError::NotEncrypted),
            ),
        ] {
            let unsealed =
                |encrypted| check_permission(act, true, false, &member_rights(100, encrypted));
            assert_eq!(unsealed(false), in_clear, "{act:?}");
            assert_eq!(unsealed(true), encrypted, "{act:?}");
        }
        // What is missing first is said first.
        let weak = check_permission(PortalAction::Agree, true, false, &member_rights(0, true));
        assert_eq!(weak, too_little(0, 100));
    }
}
