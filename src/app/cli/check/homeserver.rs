//! Checks of the homeserver: which step fails, the DNS look-up, the connection, TLS, or the Matrix response.

use std::time::Duration;

use footbridge_core::http_client;
use footbridge_matrix::{Homeserver, MatrixConfig};
use serde::Deserialize;
use url::Url;

use crate::config::{Diagnostic, Exit, values};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// No response that the check needs is longer than this; the rest is not read. In bytes.
const MAX_RESPONSE: usize = 256 * 1024;

/// The response of `/_matrix/client/versions`; client-server API, "API versions".
#[derive(Deserialize)]
struct Versions {
    versions: Vec<String>,
}

/// An error response; client-server API, "Standard error response".
#[derive(Default, Deserialize)]
struct ErrorBody {
    errcode: String,
}

/// The response of `/.well-known/matrix/client`; client-server API, "Server discovery".
#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.homeserver")]
    homeserver: BaseUrl,
}

#[derive(Deserialize)]
struct BaseUrl {
    base_url: String,
}

/// Whether an alias resolves to a room: the homeserver answers that without a login. An error says why it did not answer.
pub async fn alias_exists(base: &Url, alias: &str) -> Result<bool, String> {
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| format!("{base} has no path"))?
        .pop_if_empty()
        .extend(["_matrix", "client", "v3", "directory", "room", alias]);
    let (status, body) = get(&url).await.map_err(|diagnostic| diagnostic.what)?;
    let code = serde_json::from_str::<ErrorBody>(&body).unwrap_or_default();
    match status.as_u16() {
        200 => Ok(true),
        404 if code.errcode == "M_NOT_FOUND" => Ok(false),
        _ => Err(format!("HTTP {status}")),
    }
}

/// Asks the homeserver for its versions. Returns its base URL and a sentence for the operator.
pub async fn probe(config: &MatrixConfig) -> Result<(Url, String), Diagnostic> {
    let base = match &config.homeserver {
        Homeserver::Url(url) => url.clone(),
        Homeserver::Name(name) => discover(name).await?,
    };
    let url = base
        .join("_matrix/client/versions")
        .map_err(|error| fault(format!("{base} cannot be reached: {error}")))?;
    let (status, body) = get(&url).await?;
    let versions = serde_json::from_str::<Versions>(&body)
        .ok()
        .filter(|_| status == reqwest::StatusCode::OK)
        .map(|answer| answer.versions)
        .unwrap_or_default();
    if versions.is_empty() {
        return Err(fault(format!(
            "{base} answers, but not as a Matrix homeserver does (HTTP {status})"
        ))
        .note("requested /_matrix/client/versions")
        .help("set `[matrix] homeserver` to the URL that Matrix clients use"));
    }
    let newest = versions.iter().rfind(|version| version.starts_with("v1."));
    let Some(newest) = newest else {
        return Err(fault(format!(
            "{base} is too old: it supports no Matrix version from v1.1 on"
        ))
        .help("ask the server's admin to upgrade it"));
    };
    let text = format!("{base} supports Matrix up to {newest}");
    Ok((base, text))
}

async fn discover(name: &ruma::ServerName) -> Result<Url, Diagnostic> {
    let at = |text: &str| {
        Url::parse(text).map_err(|error| fault(format!("{text} is not a URL: {error}")))
    };
    let base = at(&format!("https://{name}"))?;
    let url = at(&format!("https://{name}/.well-known/matrix/client"))?;
    let (status, body) = get(&url).await?;
    if status == reqwest::StatusCode::NOT_FOUND {
        return Ok(base);
    }
    let named = serde_json::from_str::<WellKnown>(&body)
        .ok()
        .and_then(|answer| Url::parse(&answer.homeserver.base_url).ok());
    named.filter(|_| status.is_success()).ok_or_else(|| {
        fault(format!("{url} does not name a homeserver (HTTP {status})"))
            .help("write the homeserver's URL instead of its server name")
    })
}

async fn get(url: &Url) -> Result<(reqwest::StatusCode, String), Diagnostic> {
    let http = http_client::client().map_err(|error| fault(format!("{error:#}")))?;
    let request = async {
        let mut response = http
            .get(url.clone())
            .timeout(REQUEST_TIMEOUT)
            .send()
            .await?;
        let mut body = Vec::new();
        while body.len() < MAX_RESPONSE
            && let Some(chunk) = response.chunk().await?
        {
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok::<_, reqwest::Error>((response.status(), text))
    };
    match request.await {
        Ok(response) => Ok(response),
        Err(error) => Err(diagnose(url, &error).await),
    }
}

// The request failed as a whole; this repeats its steps to find out which one fails.
async fn diagnose(url: &Url, error: &reqwest::Error) -> Diagnostic {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<_> = match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.collect(),
        Err(reason) => {
            return fault(format!("the lookup of {host} fails: {reason}"))
                .note("step 1 of 4: lookup, connection, TLS, Matrix")
                .help("check the spelling of `[matrix] homeserver`, and this machine's DNS");
        }
    };
    let mut refused = String::new();
    for address in &addresses {
        let connecting = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_secs(5), connecting).await {
            Ok(Ok(_)) => return after_connecting(url, error),
            Ok(Err(reason)) => refused = format!("{address}: {reason}"),
            Err(_) => refused = format!("{address}: no answer within 5 s"),
        }
    }
    fault(format!("no connection to {host}: {refused}"))
        .note("step 2 of 4: lookup, connection, TLS, Matrix")
        .help("check that the server runs, its port, and firewalls on the way")
}

fn after_connecting(url: &Url, error: &reqwest::Error) -> Diagnostic {
    let reason = causes(error);
    if error.is_connect() && url.scheme() == "https" {
        let failed = fault(format!(
            "the TLS connection to {} fails: {reason}",
            url.authority()
        ))
        .note("step 3 of 4: lookup, connection, TLS, Matrix");
        let plain = format!("http://{}", url.authority());
        return match values::homeserver(&plain) {
            // A URL without TLS is accepted on this machine only.
            Ok(_) => failed.help(format!(
                "write \"{plain}\" if the server does not speak TLS there; else check its certificate"
            )),
            Err(_) => {
                failed.help("check the certificate, its names and its date, and this machine's clock")
            }
        };
    }
    fault(format!(
        "{} does not answer as a web server does: {reason}",
        url.authority()
    ))
    .note("step 4 of 4: lookup, connection, TLS, Matrix")
    .help("set `[matrix] homeserver` to the URL that Matrix clients use")
}

// The innermost cause says most; the outer ones repeat the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    if error.is_timeout() {
        return format!("no answer within {} s", REQUEST_TIMEOUT.as_secs());
    }
    inner.to_string()
}

fn fault(what: String) -> Diagnostic {
    Diagnostic::new("B13", what).exit(Exit::Unavailable)
}
