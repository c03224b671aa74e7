//! Fetches media for a silo: from hosts that the operator named, at public addresses, and from nowhere else (C16). No text of a
//! user makes the bridge fetch anything.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::anyhow;
use reqwest::{
    Client, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, HeaderValue, LOCATION},
};
use url::{Host, Url};

use crate::{
    http_client,
    image::{self, Image},
    outlet::{Outcome, SendError},
    spool::Spool,
};

/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_mins(5);
/// The largest number of redirects.
const REDIRECTS: usize = 3;

/// A host that media are fetched from, its subdomains included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaHost {
    host: Host<String>,
    /// `None`: the default port of `http` or `https`.
    port: Option<u16>,
}

impl FromStr for MediaHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NO_HOST: &str = "not the name of a host";
        let is_bare = !text.contains(['/', '@', '?', '#', '\\', '*']);
        let url = Url::parse(&format!("https://{text}")).map_err(|_| NO_HOST)?;
        let host = url.host().filter(|_| is_bare).ok_or(NO_HOST)?;
        Ok(Self {
            host: host.to_owned(),
            port: url.port(),
        })
    }
}

impl fmt::Display for MediaHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

impl MediaHost {
    /// The host of an address, without a leading `api.`.
    #[must_use]
    pub fn around(url: &Url) -> Option<Self> {
        let host = match url.host()? {
            Host::Domain(name) => Host::Domain(name.strip_prefix("api.").unwrap_or(name)),
            other => other,
        };
        Some(Self {
            host: host.to_owned(),
            port: url.port(),
        })
    }

    fn has(&self, url: &Url) -> bool {
        let same_host = match (&self.host, url.host()) {
            (Host::Domain(own), Some(Host::Domain(other))) => {
                let below = other.strip_suffix(own.as_str());
                below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
            (own, Some(other)) => *own == other.to_owned(),
            (_, None) => false,
        };
        same_host && self.port == url.port()
    }
}

/// Fetches from these hosts.
#[derive(Clone, Debug)]
pub struct MediaFetcher {
    http: Client,
    hosts: Arc<[MediaHost]>,
}

impl MediaFetcher {
    /// Prepares requests; sends none.
    pub fn new(hosts: Vec<MediaHost>) -> anyhow::Result<Self> {
        let hosts: Arc<[MediaHost]> = hosts.into();
        let addresses = hosts.iter().filter_map(|host| match host.host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        });
        let resolver = Arc::new(Resolver(addresses.collect()));
        let http = http_client::for_media(resolver, FETCH_TIMEOUT)?;
        Ok(Self { http, hosts })
    }

    /// Whether this address is on a host that media are fetched from.
    #[must_use]
    pub fn allows_url(&self, url: &str) -> bool {
        Url::parse(url).is_ok_and(|url| self.allows(&url))
    }

    fn allows(&self, url: &Url) -> bool {
        let is_web = matches!(url.scheme(), "http" | "https");
        let is_bare = url.username().is_empty() && url.password().is_none();
        is_web && is_bare && self.hosts.iter().any(|host| host.has(url))
    }

    /// The image at this address.
    pub async fn picture(&self, url: &str, spool: &Spool) -> Result<Image, SendError> {
        let answer = self.get(url).await?;
        picture_of(answer, spool).await
    }

    /// The response for this address; the caller reads its bytes.
    pub async fn get(&self, url: &str) -> Result<Response, SendError> {
        let mut url = Url::parse(url).map_err(|_| refused("its address is not a URL"))?;
        for _ in 0..=REDIRECTS {
            if !self.allows(&url) {
                return Err(refused("its host is not in `media_hosts`"));
            }
            let answer = self
                .http
                .get(url.clone())
                .send()
                .await
                .map_err(connect_error)?;
            let status = answer.status();
            if !status.is_redirection() {
                return check_status(answer);
            }
            let target = answer.headers().get(LOCATION);
            let target = target.and_then(|target| url.join(target.to_str().ok()?).ok());
            url = target.ok_or_else(|| refused("its host sent a redirect without a target"))?;
        }
        Err(refused("too many redirects"))
    }
}

/// The image in a response.
pub async fn picture_of(answer: Response, spool: &Spool) -> Result<Image, SendError> {
    let header = answer.headers().get(CONTENT_TYPE);
    let mime = image::type_of(header.map(HeaderValue::as_bytes));
    let mime = mime.ok_or_else(|| refused("it is not an image"))?;
    let bytes = spool.seal(answer.bytes_stream()).await?;
    Ok(Image { bytes, mime })
}

fn check_status(answer: Response) -> Result<Response, SendError> {
    match answer.status().as_u16() {
        200 => Ok(answer),
        status @ (408 | 425 | 429 | 500..) => Err(not_now(&format!("its host answered {status}"))),
        status => Err(refused(&format!(
            "its host does not have it (status {status})"
        ))),
    }
}

fn refused(why: &str) -> SendError {
    SendError::Refused {
        reason: format!("the file was not fetched: {why}"),
    }
}

fn not_now(why: &str) -> SendError {
    SendError::Retry {
        after: None,
        outcome: Outcome::NotDone,
        source: anyhow!("a file was not fetched: {why}"),
    }
}

/// The error's URL would name the file; the cause is enough.
fn connect_error(error: reqwest::Error) -> SendError {
    let error = anyhow::Error::new(error.without_url());
    let is_refused = <dyn std::error::Error>::is::<NotPublic>;
    if error.chain().any(is_refused) {
        return refused(
            "its host has an address that is not public; if that is right, add the address itself to `media_hosts`",
        );
    }
    not_now("its host does not answer")
}

/// A host name without a public address.
#[derive(Debug, thiserror::Error)]
#[error("no address of this host is permitted")]
struct NotPublic;

/// Resolves host names, and leaves out addresses that are not public, except for these. The client connects to the resolved
/// addresses, so that they cannot change in between.
struct Resolver(Arc<[IpAddr]>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let known = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed = |found: &SocketAddr| is_public(found.ip()) || known.contains(&found.ip());
            let found: Vec<SocketAddr> = found.filter(allowed).collect();
            if found.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is public (IANA special-purpose address registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let special = match (first, second, third) {
        // This network, loopback, private, multicast, reserved.
        (0 | 10 | 127 | 224.., ..)
        // Shared by carriers (RFC 6598), link-local, private.
        | (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _)
        // Protocol assignments, documentation, 6to4 relays, private.
        | (192, 0, 0 | 2) | (192, 88, 99) | (192, 168, _)
        // Benchmarks, documentation.
        | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, fourth, fifth, sixth, high, low] = address.segments();
    let inner = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (first, second) {
        // NAT64 (RFC 6052): its last 32 bits are an IPv4 address.
        (0x64, 0xff9b) => [third, fourth, fifth, sixth] == [0; 4] && is_public_v4(inner),
        (0, 0) => [third, fourth, fifth, sixth] == [0, 0, 0, 0xffff] && is_public_v4(inner),
        // Protocol assignments and Teredo, documentation, 6to4.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x2002 | 0x3fff, _) => false,
        _ => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinSet,
    };

    use super::*;

    fn hosts(all: &[&str]) -> MediaFetcher {
        MediaFetcher::new(all.iter().map(|host| host.parse().unwrap()).collect()).unwrap()
    }

    #[test]
    fn c16_only_addresses_of_the_open_network_are_asked() {
        let open = [
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ];
        let ours = [
            "0.0.0.0",
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::8.8.8.8",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ];
        for address in open {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in ours {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn c16_only_hosts_that_were_named_are_asked() {
        let fetcher = hosts(&[
            "media.example.org",
            "files.example:8443",
            "10.0.0.5",
            "[fd00::1]:81",
        ]);
        for url in [
            "https://media.example.org/a.png",
            "http://MEDIA.example.org/a.png",
            "https://cdn.media.example.org/a.png",
            "https://files.example:8443/",
            "http://10.0.0.5/a",
            "http://0x0a.5/a",
            "http://[fd00::1]:81/",
        ] {
            assert!(fetcher.allows_url(url), "{url}");
        }
        for url in [
            "https://example.org/a.png",
            "https://evilmedia.example.org/a.png",
            "https://media.example.org.evil.example/",
            "https://media.example.org:8080/",
            "https://me@media.example.org/",
            "https://files.example/",
            "file:///etc/passwd",
            "ftp://media.example.org/a",
            "http://127.0.0.1/",
            "http://10.0.0.5:22/",
            "https:media.example.org@evil.example/",
            "//media.example.org/a",
            "",
        ] {
            assert!(!fetcher.allows_url(url), "{url}");
        }
    }

    #[test]
    fn a_media_host_has_no_scheme_user_or_path() {
        for good in ["media.example.org", "word", "10.0.0.5:8080", "[fd00::1]"] {
            let host: MediaHost = good.parse().unwrap();
            assert_eq!(host.to_string(), good);
        }
        for bad in [
            "",
            "https://a.example",
            "a.example/x",
            "me@a.example",
            "a b.example",
            "*.example",
        ] {
            assert!(bad.parse::<MediaHost>().is_err(), "{bad}");
        }
        let api = |url: &str| {
            MediaHost::around(&url.parse().unwrap())
                .unwrap()
                .to_string()
        };
        assert_eq!(api("https://api.gitter.im/v1"), "gitter.im");
        assert_eq!(api("http://127.0.0.1:81/v1"), "127.0.0.1:81");
    }

    /// Answers each connection with the next of these responses.
    async fn host(answers: Vec<String>) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                assert!(socket.read(&mut request).await.unwrap() > 0);
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address.to_string(), serving)
    }

    fn led_to(url: &str) -> String {
        format!(
            "HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
    }

    async fn why(fetcher: &MediaFetcher, url: &str) -> String {
        match fetcher.get(url).await {
            Err(SendError::Refused { reason }) => reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("fetched"),
        }
    }

    #[tokio::test]
    async fn c16_being_led_on_opens_no_other_door() {
        let found = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        let (here, _serving) = host(vec![
            led_to("/b"),
            led_to("/c"),
            led_to("/d"),
            found.to_owned(),
        ])
        .await;
        let fetcher = hosts(&[&here]);
        let answer = fetcher.get(&format!("http://{here}/a")).await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "hi");
        let (endless, _serving) =
            host(vec![led_to("/b"), led_to("/c"), led_to("/d"), led_to("/e")]).await;
        let url = format!("http://{endless}/a");
        assert!(
            why(&hosts(&[&endless]), &url)
                .await
                .contains("too many redirects")
        );
        let (away, _serving) = host(vec![led_to("http://127.0.0.1:1/metadata")]).await;
        let url = format!("http://{away}/a");
        assert!(
            why(&hosts(&[&away]), &url)
                .await
                .contains("not in `media_hosts`")
        );
    }

    #[tokio::test]
    async fn c16_a_name_that_leads_home_is_not_followed() {
        let (here, _serving) = host(vec![
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ])
        .await;
        let port = here.rsplit(':').next().unwrap();
        let named = format!("localhost:{port}");
        let url = format!("http://{named}/a");
        assert!(why(&hosts(&[&named]), &url).await.contains("not public"));
        // Unless the operator configured that address.
        let addresses = ["127.0.0.1", "[::1]", named.as_str()];
        assert!(hosts(&addresses).get(&url).await.is_ok());
    }
}
