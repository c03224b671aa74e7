//! The calls for teams and channels.

use axum::http::StatusCode;
use serde_json::Value;

use super::{Answer, Call};
use crate::mattermost::{Channel, Team, world::ApiError};

const NO_TEAM: ApiError = ApiError(
    404,
    "app.team.get.find.app_error",
    "Unable to find the existing team.",
);

pub(super) fn teams(call: &Call<'_>) -> Answer {
    let inner = call.shared.world.inner();
    Ok((StatusCode::OK, inner.teams.iter().map(Team::json).collect()))
}

pub(super) fn team(call: &Call<'_>) -> Answer {
    let (inner, id) = (call.shared.world.inner(), call.at(0));
    let team = inner.teams.iter().find(|team| team.id == id);
    Ok((StatusCode::OK, team.ok_or(NO_TEAM)?.json()))
}

pub(super) fn team_by_name(call: &Call<'_>) -> Answer {
    let (inner, name) = (call.shared.world.inner(), call.at(0));
    let team = inner.teams.iter().find(|team| team.name == name);
    Ok((StatusCode::OK, team.ok_or(NO_TEAM)?.json()))
}

pub(super) fn channels(call: &Call<'_>) -> Answer {
    let (inner, team) = (call.shared.world.inner(), call.at(1));
    let mine = inner
        .channels
        .iter()
        .filter(|channel| channel.team_id == team && channel.members.contains(&call.me));
    Ok((StatusCode::OK, mine.map(Channel::json).collect()))
}

pub(super) fn channel(call: &Call<'_>) -> Answer {
    let id = call.at(0);
    find(call, |channel| channel.id == id).map(|channel| (StatusCode::OK, channel.json()))
}

pub(super) fn channel_by_name(call: &Call<'_>) -> Answer {
    named(call, call.at(0))
}

/// A channel of a team by its name. It does not exist if it is private and the caller is no member, if it is archived,
/// or if it was renamed.
fn named(call: &Call<'_>, team: &str) -> Answer {
    const MISSING: ApiError = ApiError(
        404,
        "app.channel.get_by_name.missing.app_error",
        "Channel does not exist.",
    );
    let (name, archived) = (call.at(1), call.query("include_deleted") == Some("true"));
    let found = find(call, |channel| {
        channel.team_id == team && channel.name == name && (archived || channel.delete_at == 0)
    });
    let found = found.map_err(|_| MISSING)?;
    Ok((StatusCode::OK, found.json()))
}

pub(super) fn channel_by_names(call: &Call<'_>) -> Answer {
    let teams = call.shared.world.inner().teams.clone();
    let team = teams
        .into_iter()
        .find(|known| known.name == call.at(0))
        .ok_or(ApiError(
            404,
            "app.team.get_by_name.missing.app_error",
            "Unable to find the existing team.",
        ))?;
    named(call, &team.id)
}

/// A channel that the caller may see: private ones exist for their members only, open ones can be read by everybody.
pub(super) fn find(
    call: &Call<'_>,
    is_meant: impl Fn(&Channel) -> bool,
) -> Result<Channel, ApiError> {
    let inner = call.shared.world.inner();
    let channel = inner.channels.iter().find(|channel| is_meant(channel));
    let channel = channel.ok_or(ApiError::NO_CHANNEL)?;
    let sees = channel.kind == "O" || channel.members.contains(&call.me);
    if sees {
        Ok(channel.clone())
    } else {
        Err(ApiError::PERMISSIONS)
    }
}

/// A channel that the caller is a member of.
pub(super) fn own(call: &Call<'_>, id: &str) -> Result<Channel, ApiError> {
    let channel = find(call, |channel| channel.id == id)?;
    if channel.members.contains(&call.me) {
        Ok(channel)
    } else {
        Err(ApiError::PERMISSIONS)
    }
}

/// Every member may change an open channel; most members may change private ones.
pub(super) fn patch(call: &Call<'_>) -> Answer {
    let mut channel = own(call, call.at(0))?;
    for (key, longest) in [("display_name", 64), ("header", 1_024)] {
        let Some(text) = call.body[key].as_str() else {
            continue;
        };
        if text.chars().count() > longest || (key == "display_name" && text.is_empty()) {
            return Err(ApiError(
                400,
                "model.channel.is_valid.app_error",
                "Invalid channel.",
            ));
        }
        let into = match key {
            "header" => &mut channel.header,
            _ => &mut channel.display_name,
        };
        text.clone_into(into);
    }
    let mut inner = call.shared.world.inner();
    if let Some(kept) = inner.channels.iter_mut().find(|kept| kept.id == channel.id) {
        *kept = channel.clone();
    }
    Ok((StatusCode::OK, channel.json()))
}

pub(super) fn members(call: &Call<'_>) -> Answer {
    let channel = own(call, call.at(0))?;
    let (page, size) = (call.number("page", 0), call.number("per_page", 60).min(200));
    let members = channel.members.iter().skip(page * size).take(size);
    let members: Value = members.map(|user| channel.member(user)).collect();
    Ok((StatusCode::OK, members))
}

pub(super) fn member(call: &Call<'_>) -> Answer {
    let channel = find(call, |channel| channel.id == call.at(0))?;
    let user = if call.at(1) == "me" {
        &call.me
    } else {
        call.at(1)
    };
    if !channel.members.contains(user) {
        return Err(ApiError(
            404,
            "app.channel.get_member.missing.app_error",
            "No channel member found.",
        ));
    }
    Ok((StatusCode::OK, channel.member(user)))
}

/// Everybody may join open channels.
pub(super) fn join(call: &Call<'_>) -> Answer {
    let channel = find(call, |channel| channel.id == call.at(0))?;
    let user = call.text("user_id");
    if channel.kind != "O" && !channel.members.contains(&call.me) {
        return Err(ApiError::PERMISSIONS);
    }
    call.shared
        .world
        .set_member(&channel.id, &user, true, &call.shared.faults);
    Ok((StatusCode::CREATED, channel.member(&user)))
}
