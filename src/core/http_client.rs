//! Creates all HTTP clients of the bridge. None follows a redirect: a request carries an account's token, or the first frame of a
//! WebSocket does, and the server that answers chooses the target of a redirect. For addresses that need no token and may
//! redirect, the caller follows redirects by hand (see `media_fetcher`).

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use reqwest::{Client, ClientBuilder, Response, dns::Resolve, header::LOCATION, redirect::Policy};
use url::{Origin, Url};

/// The settings that every client has in common.
fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("footbridge/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(20))
        .redirect(Policy::none())
}

fn built(builder: ClientBuilder) -> anyhow::Result<Client> {
    builder.build().context("cannot set up HTTPS")
}

/// The shared client. It has no overall timeout: a sync request is held open on purpose.
pub fn client() -> anyhow::Result<Client> {
    built(builder())
}

/// A client for WebSocket connections, which begin in HTTP/1.1, and for streams without an end.
pub fn streaming() -> anyhow::Result<Client> {
    built(lasting_builder())
}

/// The same without kept connections: it is unknown whether a request arrived that was written into a connection which the other
/// side had just closed.
pub fn unpooled() -> anyhow::Result<Client> {
    built(lasting_builder().pool_max_idle_per_host(0))
}

fn lasting_builder() -> ClientBuilder {
    builder()
        .http1_only()
        .no_gzip()
        .tcp_keepalive(Duration::from_mins(1))
}

/// A client for media at addresses that others choose, without a token: it uses its own resolver and no proxy, and limits each
/// request to `patience`.
pub fn for_media(
    resolver: Arc<impl Resolve + 'static>,
    patience: Duration,
) -> anyhow::Result<Client> {
    let builder = builder().dns_resolver(resolver).no_proxy().no_gzip();
    built(builder.timeout(patience))
}

/// The origin that a redirect leads to, without the rest of the address, which may be private; `None` if the response is no
/// redirect.
#[must_use]
pub fn redirect_target(response: &Response) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let target = response.headers().get(LOCATION)?.to_str().ok()?;
    let target: Url = response.url().join(target).ok()?;
    Some(match target.origin() {
        origin @ Origin::Tuple(..) => origin.ascii_serialization(),
        Origin::Opaque(_) => format!("another scheme, `{}`", target.scheme()),
    })
}

/// The error text for a request that was answered by a redirect, with the remedy. `key` is the configuration key of the address.
#[must_use]
pub fn redirect_error(key: &str, to: &str) -> String {
    format!(
        "the address in `{key}` redirects to {to}, and the token is not sent there: write the right address into \
         `{key}`"
    )
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// No client of the bridge follows a redirect.
    #[tokio::test]
    async fn b16_no_client_follows_a_redirect() {
        struct Nowhere;
        impl Resolve for Nowhere {
            fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
                Box::pin(std::future::pending())
            }
        }
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = elsewhere.local_addr().unwrap();
        for client in [
            client(),
            streaming(),
            unpooled(),
            for_media(Arc::new(Nowhere), Duration::from_mins(1)),
        ] {
            let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", here.local_addr().unwrap());
            let answering = async {
                let (mut socket, _) = here.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(socket.read_u8().await.unwrap());
                }
                let answer = format!(
                    "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{there}/secret\r\ncontent-length: 0\r\n\r\n"
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
                socket
            };
            let client = client.unwrap();
            let asked = client.get(&url).bearer_auth("token").send();
            let both = async { tokio::join!(asked, answering) };
            let (response, _socket) = tokio::select! {
                both = both => both,
                _ = elsewhere.accept() => panic!("it went where it was led"),
            };
            let response = response.unwrap();
            assert_eq!(response.status(), 307);
            assert_eq!(
                redirect_target(&response).unwrap(),
                format!("http://{there}")
            );
        }
    }

    #[test]
    fn the_redirect_error_names_the_target_and_the_configuration_key() {
        let error = redirect_error("realtime", "https://other.example");
        assert!(error.contains("to https://other.example") && error.contains("into `realtime`"));
    }
}
