//! Power levels: what a user may do in a room, from its create event and its power levels event.

use serde_json::Value;

/// The level of a creator in a room version that gives creators unlimited power.
const CREATOR_LEVEL: i64 = i64::MAX;
/// The first room version that gives creators unlimited power.
const FIRST_CREATOR_VERSION: u32 = 12;

/// The membership and power of a user in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRights {
    /// Whether they have joined the room.
    pub joined: bool,
    /// Their power level.
    pub level: i64,
    /// The level that is required to change power levels.
    pub to_change_power: i64,
    /// The level that is required for a state event without a level of its own.
    pub state_default: i64,
    /// Whether the room is or ever was encrypted.
    pub encrypted: bool,
}

/// The effective levels, from the create event and the power levels event. A value that cannot be read gives nobody any
/// power.
pub(super) fn levels(create: &Value, power: Option<&Value>, user: &str) -> MemberRights {
    let content = create.get("content").unwrap_or(create);
    let creator = create.get("sender").and_then(Value::as_str);
    let version = content.get("room_version").and_then(Value::as_str);
    let version: u32 = version
        .and_then(|version| version.parse().ok())
        .unwrap_or(1);
    let also = content.get("additional_creators").and_then(Value::as_array);
    let also = also.is_some_and(|users| users.iter().any(|one| one.as_str() == Some(user)));
    let is_creator = creator == Some(user);
    let (level, state_default, to_change_power) = match power {
        Some(power) => {
            let base = number(power.get("users_default")).unwrap_or(0);
            let own = power.get("users").and_then(|users| users.get(user));
            let state = number(power.get("state_default")).unwrap_or(50);
            let events = power.get("events");
            let change = events.and_then(|events| number(events.get("m.room.power_levels")));
            (number(own).unwrap_or(base), state, change.unwrap_or(state))
        }
        // Without a power levels event only the room's creator has any power.
        None => (if is_creator { 100 } else { 0 }, 50, 100),
    };
    let rules = version >= FIRST_CREATOR_VERSION && (is_creator || also);
    MemberRights {
        joined: false,
        encrypted: false,
        level: if rules { CREATOR_LEVEL } else { level },
        to_change_power,
        state_default,
    }
}

/// A power level; old rooms write it as text.
fn number(value: Option<&Value>) -> Option<i64> {
    let value = value?;
    value
        .as_i64()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn p14_levels_come_from_state_and_missing_values_give_no_power() {
        let create = |version: &str| {
            json!({"sender": "@maker:x", "content": {"room_version": version,
                "additional_creators": ["@second:x"]}})
        };
        let power = json!({"users": {"@ann:x": 100, "@mod:x": "60", "@odd:x": []}, "users_default": 5,
            "state_default": 60, "events": {"m.room.power_levels": 95}});
        for (version, power, user, expected) in [
            ("10", Some(&power), "@ann:x", (100, 60, 95)),
            ("10", Some(&power), "@mod:x", (60, 60, 95)),
            ("10", Some(&power), "@odd:x", (5, 60, 95)),
            ("10", Some(&power), "@who:x", (5, 60, 95)),
            ("10", Some(&power), "@maker:x", (5, 60, 95)),
            ("12", Some(&power), "@maker:x", (CREATOR_LEVEL, 60, 95)),
            ("12", Some(&power), "@second:x", (CREATOR_LEVEL, 60, 95)),
            ("11", Some(&power), "@second:x", (5, 60, 95)),
            ("10", Some(&json!({})), "@ann:x", (0, 50, 50)),
            ("10", None, "@maker:x", (100, 50, 100)),
            ("10", None, "@ann:x", (0, 50, 100)),
        ] {
            let rights = levels(&create(version), power, user);
            let found = (rights.level, rights.state_default, rights.to_change_power);
            assert_eq!(found, expected, "{version} {power:?} {user}");
        }
    }
}
