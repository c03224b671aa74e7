//! The calls for users, and for the server itself.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::mattermost::{User, world::ApiError};

pub(super) fn ok(_: &Call<'_>) -> Answer {
    Ok((StatusCode::OK, json!({"status": "OK"})))
}

pub(super) fn none(_: &Call<'_>) -> Answer {
    Ok((StatusCode::OK, json!([])))
}

/// Every password is accepted: the simulator stores none.
pub(super) fn login(call: &Call<'_>) -> Answer {
    let inner = call.shared.world.inner();
    let name = call.text("login_id");
    let user = inner.users.iter().find(|user| user.username == name);
    let user = user.ok_or(ApiError(
        401,
        "api.user.login.invalid_credentials_email_username",
        "Enter a valid email or username and/or password.",
    ))?;
    let mut value = user.json();
    value["simulated_token"] = json!(user.token);
    Ok((StatusCode::OK, value))
}

pub(super) fn me(call: &Call<'_>) -> Answer {
    find(call, |user| user.id == call.me)
}

pub(super) fn user(call: &Call<'_>) -> Answer {
    let id = call.at(0);
    find(call, |user| user.id == id)
}

pub(super) fn by_name(call: &Call<'_>) -> Answer {
    let name = call.at(0);
    find(call, |user| user.username == name)
}

fn find(call: &Call<'_>, is_meant: impl Fn(&User) -> bool) -> Answer {
    let inner = call.shared.world.inner();
    let user = inner.users.iter().find(|user| is_meant(user));
    Ok((StatusCode::OK, user.ok_or(ApiError::NO_USER)?.json()))
}

pub(super) fn by_ids(call: &Call<'_>) -> Answer {
    Ok(those(call, |user| &user.id))
}

pub(super) fn by_names(call: &Call<'_>) -> Answer {
    Ok(those(call, |user| &user.username))
}

fn those(call: &Call<'_>, key: impl Fn(&User) -> &String) -> (StatusCode, Value) {
    let inner = call.shared.world.inner();
    let wanted = call.body.as_array().cloned().unwrap_or_default();
    let users = inner
        .users
        .iter()
        .filter(|user| wanted.contains(&json!(key(user))));
    (StatusCode::OK, users.map(User::json).collect())
}

pub(super) fn config(call: &Call<'_>) -> Answer {
    let overrides = call.shared.world.inner().overrides.to_string();
    Ok((
        StatusCode::OK,
        json!({
            "Version": "5.37.0", "SiteName": "Mattermost", "MaxPostSize": "16383",
            "EnablePostUsernameOverride": overrides, "EnablePostIconOverride": overrides,
        }),
    ))
}
