//! The media gateway: it serves the file behind a link, fetched from the homeserver, verified and decrypted on the way.
//! It keeps nothing, and a link that has expired or whose message was deleted finds nothing.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use footbridge_core::{
    clock::Clock,
    file::File,
    http_server::{self, ConnectionLimits},
    outlet::Outlet,
    spool::{Blocks, Spool, Spooled},
};
use footbridge_store::Store;
use futures_util::StreamExt as _;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

/// How long the transfer of a file from the homeserver may take, and again its transfer to the client.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(5);
/// More connections than files at a time, so that a request for an invalid link does not wait for one of them.
const LIMITS: ConnectionLimits = ConnectionLimits {
    at_once: 64,
    head_within: Duration::from_secs(5),
    // Two transfers take 10 minutes at most; a second request on the same connection must begin in the first half of
    // the time.
    all_within: Duration::from_mins(15),
};
/// How many files are served at the same time.
pub const MAX_CONCURRENT: usize = 8;
/// The media types that browsers may show; every other file is saved.
const INLINE_TYPES: [&str; 10] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "video/mp4",
    "video/webm",
    "audio/mpeg",
    "audio/mp4",
    "audio/ogg",
    "audio/wav",
];
/// Headers that restrict what a browser does with the file (C16): it is a stranger's file on the operator's host.
const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "sandbox; default-src 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "private, no-store"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "cross-origin",
    ),
];

/// What the gateway needs from the bridge.
#[derive(Clone)]
pub struct MediaGateway {
    /// The store, with the links.
    pub store: Store,
    /// The source of the files.
    pub source: Arc<dyn Outlet>,
    /// Where files are kept while they are transferred.
    pub spool: Spool,
    /// The time.
    pub clock: Clock,
}

/// Serves links until it is stopped.
pub async fn serve(
    listener: TcpListener,
    gateway: MediaGateway,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new().fallback(answer).with_state(gateway);
    http_server::serve(listener, router, LIMITS, stop).await
}

async fn answer(State(gateway): State<MediaGateway>, method: Method, uri: Uri) -> Response {
    let mut response = match method {
        Method::GET | Method::HEAD => gateway.find(&method, uri.path()).await,
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    for (name, value) in SECURITY_HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

impl MediaGateway {
    async fn find(&self, method: &Method, path: &str) -> Response {
        // The path before the token is up to the operator, and the name after it is for people.
        let Some(token) = path.rsplit('/').nth(1) else {
            return not_found();
        };
        let payload = match self.store.resolve_media_link(token, self.clock.now()).await {
            Ok(Some(payload)) => payload,
            Ok(None) => return not_found(),
            Err(error) => {
                tracing::warn!(error = %error, "The media gateway cannot look up a link");
                return not_now();
            }
        };
        let Ok(file) = serde_json::from_slice::<File>(&payload) else {
            return not_found();
        };
        let body = if *method == Method::HEAD {
            None
        } else {
            let fetched = self.source.fetch(&file, &self.spool);
            match tokio::time::timeout(TRANSFER_TIMEOUT, fetched).await {
                Ok(Ok(spooled)) => Some(spooled),
                Ok(Err(error)) => {
                    tracing::warn!(error = %error, "The media gateway failed to fetch a file");
                    return not_now();
                }
                Err(_) => return not_now(),
            }
        };
        let Ok(blocks) = body.as_ref().map(Spooled::decrypted).transpose() else {
            return not_now();
        };
        let kind = file.safe_type();
        let shown = INLINE_TYPES.contains(&kind);
        let kind = if shown {
            kind
        } else {
            "application/octet-stream"
        };
        let disposition = if shown { "inline" } else { "attachment" };
        // A client that reads too slowly takes the place of another one.
        let body_of =
            |blocks: Blocks| Body::from_stream(blocks.take_until(sleep(TRANSFER_TIMEOUT)));
        let mut response = Response::new(blocks.map_or_else(Body::empty, body_of));
        let headers = response.headers_mut();
        let kind = HeaderValue::from_str(kind);
        headers.extend(kind.ok().map(|kind| (header::CONTENT_TYPE, kind)));
        headers.insert(
            header::CONTENT_DISPOSITION,
            HeaderValue::from_static(disposition),
        );
        if let Some(spooled) = &body {
            headers.insert(header::CONTENT_LENGTH, spooled.length().into());
        }
        response
    }
}

fn not_found() -> Response {
    let text = "This link does not exist, or no longer exists.\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

fn not_now() -> Response {
    let text = "The file cannot be fetched now.\n";
    (StatusCode::BAD_GATEWAY, text).into_response()
}
