//! Permissions (P14), pure: one function decides who may do what, from facts that were asked of the homeserver at that
//! moment.

/// An action on a portal that needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortalAction {
    /// Link a room to a channel.
    Link,
    /// Agree that messages of an encrypted room leave it.
    Agree,
    /// Trust a user's new identity.
    Trust,
    /// Move a portal into the room that replaces its own.
    FollowUpgrade,
    /// Put a portal on hold, or resume it.
    Pause,
    /// Remove a portal.
    Unlink,
}

impl PortalAction {
    /// Whether the operator must have named the asker. Whoever has the power level in a room may always stop what
    /// leaves it.
    fn requires_listed(self) -> bool {
        !matches!(self, Self::Pause | Self::Unlink)
    }

    /// Whether the command must be an encrypted event of a trusted device: the homeserver could write any other. A room
    /// upgrade is never encrypted, because state events are not.
    fn requires_encrypted(self, encrypted_room: bool) -> bool {
        match self {
            Self::Agree | Self::Trust => true,
            Self::Link | Self::Pause | Self::Unlink => encrypted_room,
            Self::FollowUpgrade => false,
        }
    }
}

/// What the homeserver reports about a room and one of its members, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRights {
    /// Whether they are in the room.
    pub joined: bool,
    /// Their power level.
    pub level: i64,
    /// The power level that changing power levels takes.
    pub to_change_power: i64,
    /// The power level that sending a state event takes for which no other level is set.
    pub state_default: i64,
    /// Whether the room is or ever was encrypted.
    pub encrypted: bool,
}

impl MemberRights {
    /// The power level that a decision about this room takes.
    #[must_use]
    pub fn needed(&self) -> i64 {
        if self.encrypted {
            self.to_change_power
        } else {
            self.state_default
        }
    }
}

/// Why somebody lacks the permission.
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
    /// The command was not an encrypted event of a trusted device.
    NotEncrypted,
}

/// Whether somebody may do this. `listed` says whether the operator has named them, `encrypted` whether they asked in
/// an encrypted event of a device whose messages are relayed.
pub fn check_permission(
    action: PortalAction,
    listed: bool,
    encrypted: bool,
    rights: &MemberRights,
) -> Result<(), PermissionError> {
    if action.requires_listed() && !listed {
        return Err(PermissionError::NotListed);
    }
    if !rights.joined {
        return Err(PermissionError::NotInRoom);
    }
    if rights.level < rights.needed() {
        return Err(PermissionError::TooLittlePower {
            has: rights.level,
            needs: rights.needed(),
        });
    }
    if action.requires_encrypted(rights.encrypted) && !encrypted {
        return Err(PermissionError::NotEncrypted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [PortalAction; 6] = [
        PortalAction::Link,
        PortalAction::Agree,
        PortalAction::Trust,
        PortalAction::FollowUpgrade,
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
        // For each action: not listed, and listed with too little, just enough, and more power, in unencrypted and
        // encrypted rooms.
        for action in ACTIONS {
            for (level, encrypted, expected) in [
                (49, false, too_little(49, 50)),
                (50, false, Ok(())),
                (100, false, Ok(())),
                (99, true, too_little(99, 100)),
                (100, true, Ok(())),
                (i64::MAX, true, Ok(())),
                (-1, false, too_little(-1, 50)),
            ] {
                let rights = member_rights(level, encrypted);
                assert_eq!(
                    check_permission(action, true, true, &rights),
                    expected,
                    "{action:?} {rights:?}"
                );
                let unlisted = if matches!(action, PortalAction::Pause | PortalAction::Unlink) {
                    expected
                } else {
                    Err(PermissionError::NotListed)
                };
                assert_eq!(
                    check_permission(action, false, true, &rights),
                    unlisted,
                    "{action:?} {rights:?}"
                );
                let not_joined = MemberRights {
                    joined: false,
                    ..rights
                };
                assert_eq!(
                    check_permission(action, true, true, &not_joined),
                    Err(PermissionError::NotInRoom)
                );
            }
        }
    }

    #[test]
    fn p15_what_the_homeserver_could_have_written_decides_nothing_about_encryption_or_trust() {
        for (action, in_clear, encrypted) in [
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
            (PortalAction::FollowUpgrade, Ok(()), Ok(())),
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
            let unencrypted =
                |encrypted| check_permission(action, true, false, &member_rights(100, encrypted));
            assert_eq!(unencrypted(false), in_clear, "{action:?}");
            assert_eq!(unencrypted(true), encrypted, "{action:?}");
        }
        // The first missing condition is reported.
        let weak = check_permission(PortalAction::Agree, true, false, &member_rights(0, true));
        assert_eq!(weak, too_little(0, 100));
    }
}
