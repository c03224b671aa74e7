//! The media gateway: whoever has a link gets the file that it stands for, from the homeserver, verified and opened on the
//! way. Nothing of it is kept, and a link that has expired or whose message was taken back leads to nothing.

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

/// How long a file may take to come from the homeserver, and again to whoever asked for it.
const TRANSFER_TIMEOUT: Duration = Duration::from_mins(5);
/// More connections than files, so that a link that leads to nothing needs no place among them.
const LIMITS: ConnectionLimits = ConnectionLimits {
    at_once: 64,
    head_within: Duration::from_secs(5),
    // A file comes and goes; a second request on the same connection has to begin in its first half.
    all_within: Duration::from_mins(15),
};
/// How many files are served at the same time.
pub const MAX_CONCURRENT: usize = 8;
/// What browsers may show; everything else is saved.
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
/// Says what must not be done with what is served (C16): it is a stranger's file on the operator's host.
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

/// What the gateway needs from the house.
#[derive(Clone)]
pub struct MediaGateway {
    /// Where the offers stand.
    pub store: Store,
    /// Where the files come from.
    pub source: Arc<dyn Outlet>,
    /// Where they are kept on their way.
    pub spool: Spool,
    /// The time.
    pub clock: Clock,
}

/// Serves links until told to stop.
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
        // What stands before it is the operator's affair, and the name behind it is for people.
        let Some(token) = path.rsplit('/').nth(1) else {
            return nothing();
        };
        let payload = match self.store.resolve_media_link(token, self.clock.now()).await {
            Ok(Some(payload)) => payload,
            Ok(None) => return nothing(),
            Err(error) => {
                tracing::warn!(error = %error, "The media gateway cannot look up a link");
                return not_now();
            }
        };
        let Ok(file) = serde_json::from_slice::<File>(&payload) else {
            return nothing();
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
        let manner = if shown { "inline" } else { "attachment" };
        // Whoever takes it too slowly takes it from others.
        let timely = |blocks: Blocks| Body::from_stream(blocks.take_until(sleep(TRANSFER_TIMEOUT)));
        let mut response = Response::new(blocks.map_or_else(Body::empty, timely));
        let headers = response.headers_mut();
        let kind = HeaderValue::from_str(kind);
        headers.extend(kind.ok().map(|kind| (header::CONTENT_TYPE, kind)));
        headers.insert(
            header::CONTENT_DISPOSITION,
            HeaderValue::from_static(manner),
        );
        if let Some(spooled) = &body {
            headers.insert(header::CONTENT_LENGTH, spooled.length().into());
        }
        response
    }
}

fn nothing() -> Response {
    let text = "This link leads to nothing, or to nothing any more.\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

fn not_now() -> Response {
    let text = "The file cannot be fetched now.\n";
    (StatusCode::BAD_GATEWAY, text).into_response()
}
