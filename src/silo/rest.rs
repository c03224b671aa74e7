//! A silo's REST API: addresses that a value cannot leave, one time limit, a circuit breaker, bounded answers. A silo adds its
//! own calls, its own table of errors, and what its headers say about its limits.

use std::time::Duration;

use footbridge_core::{
    bounded::{self, BodyError},
    secret::Secret,
};
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::{
    circuit_breaker::{CircuitBreaker, Probe},
    request_error::{RepeatSafety, RequestError, Service, Subject},
};

/// The time limit of a request, up to the last byte of the answer.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// The REST client of one account.
pub struct RestClient {
    /// The silo.
    pub service: &'static Service,
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
    breaker: Option<CircuitBreaker>,
    /// The longest answer, in bytes.
    longest: usize,
}

/// A request, before it is sent.
pub struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    /// What it is about.
    pub subject: Subject,
    /// Whether it may be repeated.
    pub repeat: RepeatSafety,
}

impl<'a> Call<'a> {
    /// A request with this method. It may be repeated.
    pub fn new(method: Method, subject: Subject, path: &'a [&'a str]) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            subject,
            repeat: RepeatSafety::Safe,
        }
    }

    /// A request that reads.
    pub fn get(subject: Subject, path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, subject, path)
    }

    /// Adds a parameter to the query.
    #[must_use]
    pub fn query(mut self, key: &'static str, value: impl std::fmt::Display) -> Self {
        self.query.push((key, value.to_string()));
        self
    }

    /// Sets the body. It is sent in one piece, with its length: Gitter refuses chunked ones.
    #[must_use]
    pub fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Each such request makes something new.
    #[must_use]
    pub fn unrepeatable(mut self) -> Self {
        self.repeat = RepeatSafety::Unsafe;
        self
    }
}

impl RestClient {
    /// Builds the client; sends no request.
    pub fn new(
        service: &'static Service,
        http: reqwest::Client,
        base: Url,
        token: Option<Secret>,
        longest: usize,
    ) -> Self {
        Self {
            service,
            http,
            base,
            token,
            breaker: Some(CircuitBreaker::default()),
            longest,
        }
    }

    /// The same without a circuit breaker: each request is sent.
    #[must_use]
    pub fn without_breaker(mut self) -> Self {
        self.breaker = None;
        self
    }

    /// The address of a path.
    pub fn address(&self, path: &[&str]) -> Result<Url, RequestError> {
        address(self.service, &self.base, path)
    }

    /// A request to this address with the account's token.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url).timeout(RESPONSE_TIMEOUT);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// The request of a call.
    pub fn request_of(&self, call: &Call<'_>) -> Result<RequestBuilder, RequestError> {
        let mut url = self.address(call.path)?;
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let request = self.request(call.method.clone(), url);
        Ok(match &call.body {
            Some(body) => request.json(body),
            None => request,
        })
    }

    /// Fails while the service is out and no probe is due.
    pub fn check_breaker(&self) -> Result<(), RequestError> {
        match &self.breaker {
            Some(breaker) => breaker.admits().map_err(|after| self.open(after)),
            None => Ok(()),
        }
    }

    /// Whether the service is out.
    pub fn is_out(&self) -> bool {
        self.breaker.as_ref().is_some_and(CircuitBreaker::is_open)
    }

    /// Sends a request, if the service is not out, and returns the answer whatever its status.
    pub async fn send(
        &self,
        request: RequestBuilder,
        repeat: RepeatSafety,
    ) -> Result<Response, RequestError> {
        let acquired = self.breaker.as_ref().map(CircuitBreaker::acquire);
        let probe = acquired.transpose().map_err(|after| self.open(after))?;
        let again = request.try_clone().filter(|_| repeat == RepeatSafety::Safe);
        let mut sent = request.send().await;
        if let (Err(error), Some(again)) = (&sent, again)
            && !error.is_connect()
            && !error.is_timeout()
        {
            // The server may have closed a reused connection.
            sent = again.send().await;
        }
        let status = sent.as_ref().map(|response| response.status().as_u16());
        let name = self.service.name;
        // A proxy's error status for a service that does not answer counts as no answer.
        if matches!(status, Err(_) | Ok(502..=504)) {
            if probe.is_some_and(Probe::silent) {
                tracing::error!("{name} is unavailable; retrying periodically");
            }
        } else if probe.is_some_and(Probe::answered) {
            tracing::info!("{name} answers again");
        }
        sent.map_err(|error| self.service.no_response(repeat, error))
    }

    /// The body of an answer, if it is not too long.
    pub async fn body(
        &self,
        response: Response,
        repeat: RepeatSafety,
    ) -> Result<Vec<u8>, RequestError> {
        let body = bounded::body(response, self.longest).await;
        body.map_err(|unread| match unread {
            BodyError::Broken(error) => self.service.no_response(repeat, error),
            BodyError::TooLong(_) | BodyError::NotJson(_) => RequestError::TooLong(self.service),
        })
    }

    /// An answer as JSON.
    pub fn read<T: DeserializeOwned>(
        &self,
        body: &[u8],
        repeat: RepeatSafety,
    ) -> Result<T, RequestError> {
        serde_json::from_slice(body).map_err(|_| self.service.unexpected_format(repeat))
    }

    fn open(&self, after: Duration) -> RequestError {
        RequestError::CircuitOpen {
            service: self.service,
            after,
        }
    }
}

/// The address of a path below a base; every segment is encoded.
pub fn address(service: &Service, base: &Url, path: &[&str]) -> Result<Url, RequestError> {
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| {
            let key = service.address_key;
            RequestError::Refused(format!("the configured `{key}` cannot have a path"))
        })?
        .pop_if_empty()
        .extend(path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_cannot_change_the_path() {
        static SERVICE: Service = Service {
            name: "Chat",
            signed_out: "",
            address_key: "api",
        };
        let base: Url = "https://api.chat.example/v1/".parse().unwrap();
        let url = address(&SERVICE, &base, &["rooms", "../x?y#z", "messages"]).unwrap();
        assert_eq!(
            url.as_str(),
            "https://api.chat.example/v1/rooms/..%2Fx%3Fy%23z/messages"
        );
        let base: Url = "mailto:a@b.example".parse().unwrap();
        assert!(address(&SERVICE, &base, &["rooms"]).is_err());
    }
}
