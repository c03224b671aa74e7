//! How HTTP clients are made: here and nowhere else. None follows a redirect: a request carries an account's token, or
//! what is said over the answer does (a WebSocket's first frame), and the address that a redirect names is chosen by
//! whoever answers. What may lie elsewhere, and needs no token, is followed by hand (see `fetch`).

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use reqwest::{Client, ClientBuilder, Response, dns::Resolve, header::LOCATION, redirect::Policy};
use url::{Origin, Url};

/// What every client has in common.
fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("footbridge/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(20))
        .redirect(Policy::none())
}

fn built(builder: ClientBuilder) -> anyhow::Result<Client> {
    builder.build().context("cannot set up HTTPS")
}

/// The client that everything shares. It has no overall timeout: a sync is held open on purpose.
pub fn client() -> anyhow::Result<Client> {
    built(builder())
}

/// A client for web sockets, which begin in HTTP/1.1, and for answers without an end.
pub fn lasting() -> anyhow::Result<Client> {
    built(lasting_builder())
}

/// The same without kept connections: a request that is written into one that the other side has just closed might have
/// arrived, and nobody could tell.
pub fn unpooled() -> anyhow::Result<Client> {
    built(lasting_builder().pool_max_idle_per_host(0))
}

fn lasting_builder() -> ClientBuilder {
    builder()
        .http1_only()
        .no_gzip()
        .tcp_keepalive(Duration::from_mins(1))
}

/// A client for what lies where others say, and has no token: by its own resolver, past every proxy, each answer
/// within `patience`.
pub fn fetching(
    resolver: Arc<impl Resolve + 'static>,
    patience: Duration,
) -> anyhow::Result<Client> {
    let builder = builder().dns_resolver(resolver).no_proxy().no_gzip();
    built(builder.timeout(patience))
}

/// Where a redirect leads, without what of the address might be nobody's business; `None` if it is none.
#[must_use]
pub fn redirected(response: &Response) -> Option<String> {
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

/// What is wrong where a request was answered by a redirect, and the cure. `key` is that of the address in the
/// configuration.
#[must_use]
pub fn elsewhere(key: &str, to: &str) -> String {
    format!(
        "the address in `{key}` leads elsewhere, to {to}, and the token is not sent there: write the address that is \
         meant into `{key}`"
    )
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// No client of ours goes where an answer leads.
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
            lasting(),
            unpooled(),
            fetching(Arc::new(Nowhere), Duration::from_mins(1)),
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
            assert_eq!(redirected(&response).unwrap(), format!("http://{there}"));
        }
    }

    #[test]
    fn what_is_wrong_names_the_cure_and_keeps_the_rest_to_itself() {
        let said = elsewhere("realtime", "https://other.example");
        assert!(said.contains("to https://other.example") && said.contains("into `realtime`"));
    }
}
