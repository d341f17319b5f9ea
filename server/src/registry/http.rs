//! HTTP as far as a registry needs it: small bodies, a time limit, and redirects that carry no login elsewhere.

use super::RegistryError;
use crate::outgoing::{Forbidden, HttpsClient, https_client_within};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, HeaderMap, LOCATION, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use kiops_events::address::{AddressPolicy, host_and_port, literal};
use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;

const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Manifests and configs; a registry refuses larger manifests itself.
const BODY_LIMIT: usize = 8 * 1024 * 1024;
/// How much of an answer an error quotes, for the log.
const QUOTE_BYTES: usize = 300;
const REDIRECTS: usize = 4;

pub struct Http {
    /// Made at the first use: reading the machine's certificates takes its time.
    client: OnceLock<Result<HttpsClient, String>>,
    addresses: AddressPolicy,
}

pub struct Reply {
    pub status: StatusCode,
    headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// For the log.
    pub fn summary(&self) -> String {
        let quote = String::from_utf8_lossy(&self.body[..self.body.len().min(QUOTE_BYTES)]).replace(['\n', '\r'], " ");
        format!("{} {}", self.status, quote.trim())
    }
}

impl Http {
    pub fn new(addresses: AddressPolicy) -> Self {
        Self { client: OnceLock::new(), addresses }
    }

    fn client(&self) -> Result<&HttpsClient, RegistryError> {
        let client = self.client.get_or_init(|| https_client_within(self.addresses));
        client.as_ref().map_err(|e| RegistryError::Tls(e.clone()))
    }

    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Reply, RegistryError> {
        tokio::time::timeout(TIME_LIMIT, self.follow(method, url, headers, body))
            .await
            .map_err(|_| RegistryError::Network(format!("no answer within {} s", TIME_LIMIT.as_secs())))?
    }

    async fn follow(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Reply, RegistryError> {
        let mut url = url.to_owned();
        let mut headers = headers.clone();
        for _ in 0..=REDIRECTS {
            let reply = self.once(method.clone(), &url, &headers, body.clone()).await?;
            // Only reading is sent elsewhere (layers and configs lie in object stores).
            let next = match (method == Method::GET && reply.status.is_redirection(), reply.header(LOCATION.as_str())) {
                (true, Some(place)) => super::parse::absolute(place, &url),
                _ => return Ok(reply),
            };
            let Some(next) = next else { return Ok(reply) };
            if url.starts_with("https:") && !next.starts_with("https:") {
                return Err(RegistryError::NotARegistry("it redirects from HTTPS to plain HTTP".into()));
            }
            if super::parse::origin(&next) != super::parse::origin(&url) {
                headers.remove(AUTHORIZATION);
            }
            url = next;
        }
        Err(RegistryError::NotARegistry("it redirects without end".into()))
    }

    async fn once(&self, method: Method, url: &str, headers: &HeaderMap, body: Bytes) -> Result<Reply, RegistryError> {
        // Names are judged where they are looked up; what is no name is looked up nowhere.
        let ip = host_and_port(url).and_then(|(host, _)| literal(&host));
        if ip.is_some_and(|ip| !self.addresses.allows(ip)) {
            return Err(RegistryError::Address);
        }
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(USER_AGENT, concat!("kiops/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|_| RegistryError::Network("not an address".into()))?;
        request.headers_mut().extend(headers.clone());
        let response = self.client()?.request(request).await.map_err(|e| classified(&e))?;
        let (parts, body) = response.into_parts();
        let mut body = Limited::new(body, BODY_LIMIT);
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| RegistryError::Network(e.to_string()))?;
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Reply { status: parts.status, headers: parts.headers, body: bytes.freeze() })
    }
}

/// Which of the ways a connection can fail this was.
fn classified(error: &(dyn Error + 'static)) -> RegistryError {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let part = e.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = e.source();
    }
    if is(error, &|e| e.is::<Forbidden>()) {
        RegistryError::Address
    } else if is(error, &|e| e.is::<rustls::Error>()) {
        RegistryError::Tls(text)
    } else if text.contains("dns error") {
        RegistryError::Dns(text)
    } else {
        RegistryError::Network(text)
    }
}

/// An IO error hides what it was made of from `source`, and they come one inside the other.
fn is(error: &(dyn Error + 'static), wanted: &dyn Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let within = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    wanted(error) || within.is_some_and(|e| is(e, wanted)) || error.source().is_some_and(|e| is(e, wanted))
}
