//! Identifies the caller of a request by its token, which may be in one of three places.

use axum::http::HeaderMap;

use super::{api_error::ApiError, world::World};

/// A caller with a valid token.
#[derive(Clone)]
pub(super) struct Caller {
    /// The user id; `None` for an anonymous token, which can read public rooms only.
    pub(super) user: Option<String>,
    pub(super) approved: bool,
    /// The key by which the rate limit counts.
    pub(super) rate_key: String,
}

/// The token of a request; an error if it has different tokens in different places.
fn token(headers: &HeaderMap, query: Option<&str>) -> Result<String, ApiError> {
    let mut found: Option<String> = None;
    if let Some(header) = headers.get("authorization") {
        let header = header.to_str().map_err(|_| ApiError::BAD_REQUEST)?;
        let words: Vec<&str> = header.split_whitespace().collect();
        let [scheme, token] = words[..] else {
            return Err(ApiError::BAD_REQUEST);
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            found = Some(token.to_owned());
        }
    }
    let header = headers.get("x-access-token");
    let header = header.and_then(|header| header.to_str().ok());
    for other in [header, query].into_iter().flatten() {
        match &found {
            Some(token) if token != other => return Err(ApiError::BAD_REQUEST),
            _ => found = Some(other.to_owned()),
        }
    }
    found.ok_or(ApiError::UNAUTHORIZED)
}

/// The caller of a request; `query` is its `access_token` parameter.
pub(super) fn caller(
    world: &World,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Caller, ApiError> {
    let token = token(headers, query)?;
    caller_of(world, &token).ok_or(ApiError::UNAUTHORIZED)
}

/// The caller with this token; `None` if the token is unknown or revoked, or its account was deleted.
pub(super) fn caller_of(world: &World, token: &str) -> Option<Caller> {
    let grant = world.tokens.get(token)?;
    if let Some(user) = &grant.user
        && world.people.get(user).is_none_or(|person| person.removed)
    {
        return None;
    }
    let rate_key = match &grant.user {
        Some(user) => format!("{user}:{}", grant.client),
        None => token.to_owned(),
    };
    Some(Caller {
        user: grant.user.clone(),
        approved: grant.approved,
        rate_key,
    })
}
