//! A small client for the registries that builds push to: what an image weighs, whose it is, and whether a push would be
//! let in. Pushing itself is BuildKit's business.
//!
//! What never enters: what an answer means for a build.

mod docker_config;
mod http;
mod parse;

pub use docker_config::docker_config;

use bytes::Bytes;
use http::{Http, Reply};
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use kiops_app::error::{Problem, ProblemStatus};
use kiops_app::model::{DOCKER_HUB_HOST, RegistryConfig};
use kiops_events::address::AddressPolicy;
use parse::Challenge;
use std::collections::BTreeMap;
use std::fmt;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// Why a registry gave no answer to build on.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the login was refused: {0}")]
    Auth(String),
    #[error("the login is right and may not do this: {0}")]
    Denied(String),
    #[error("this does not speak the registry protocol: {0}")]
    NotARegistry(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("the name cannot be resolved: {0}")]
    Dns(String),
    #[error("no connection: {0}")]
    Network(String),
    #[error("the registry failed: {0}")]
    Server(String),
    #[error("the registry takes no more requests for now: {0}")]
    Busy(String),
    #[error("the address may not be reached")]
    Address,
}

impl RegistryError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Auth(_) => "registry_auth",
            Self::Denied(_) => "registry_denied",
            Self::NotARegistry(_) => "registry_not_a_registry",
            Self::Tls(_) => "tls",
            Self::Dns(_) => "dns",
            Self::Network(_) => "network",
            Self::Server(_) => "registry_server",
            Self::Busy(_) => "registry_busy",
            Self::Address => "address_refused",
        }
    }

    /// As a person meets it, at the field that is about it; the inner text is for the log.
    pub fn problem(&self, host: &str) -> Problem {
        let field = match self {
            Self::Auth(_) => "registry_config.password",
            Self::Denied(_) => "registry_config.username",
            _ => "registry_config.url",
        };
        match self {
            Self::Address => Problem::invalid(self.code(), field),
            _ => Problem::new(ProblemStatus::Upstream, self.code()).with("host", host).at(field),
        }
    }
}

type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// One repository and who asks.
#[derive(Clone)]
pub struct Repository {
    base: String,
    path: String,
    credential: Option<(String, String)>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.path)
    }
}

impl Repository {
    pub fn of(config: &RegistryConfig, password: Option<&str>) -> Self {
        let credential = match password {
            Some(password) if !config.username.is_empty() => Some((config.username.clone(), password.to_owned())),
            _ => None,
        };
        Self { base: base(&config.host, config.plain_http), path: config.repository_path(), credential }
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.path)
    }
}

/// A registry's address.
fn base(host: &str, plain_http: bool) -> String {
    let host = if host == DOCKER_HUB_HOST { "registry-1.docker.io" } else { host };
    // As BuildKit does: the loopback is spoken to in the clear.
    let scheme = if plain_http || is_loopback(host) { "http" } else { "https" };
    format!("{scheme}://{host}")
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback())
}

/// An image as its registry holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Of what the reference names: with an index the index's.
    pub digest: String,
    /// Config and layers as they are stored, compressed. Of an index: of the image for this kind of machine.
    pub size_bytes: i64,
    config_digest: String,
}

#[cfg(test)]
impl Image {
    pub(crate) fn sample(digest: &str) -> Self {
        Self { digest: digest.to_owned(), size_bytes: 1, config_digest: "sha256:config".to_owned() }
    }
}

pub struct RegistryClient {
    http: Http,
}

impl RegistryClient {
    /// Whatever a registry leads to (redirects, token services) is asked within `addresses` only.
    pub fn new(addresses: AddressPolicy) -> Self {
        Self { http: Http::new(addresses) }
    }

    /// By tag or digest; none when there is no such image.
    pub async fn image(&self, at: &Repository, reference: &str) -> Result<Option<Image>> {
        let Some((digest, manifest)) = self.manifest(at, reference).await? else { return Ok(None) };
        let manifest = match parse::image_of_index(&manifest, std::env::consts::ARCH) {
            Some(inner) => match self.manifest(at, &inner).await? {
                Some((_, manifest)) => manifest,
                None => return Ok(None),
            },
            None => manifest,
        };
        let (config_digest, size_bytes) = parse::size(&manifest)
            .ok_or_else(|| RegistryError::NotARegistry("a manifest without config or layers".into()))?;
        Ok(Some(Image { digest, size_bytes, config_digest }))
    }

    async fn manifest(&self, at: &Repository, reference: &str) -> Result<Option<(String, serde_json::Value)>> {
        let url = at.url(&format!("manifests/{reference}"));
        let accept = [(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES))];
        let reply = self.ask(at, Method::GET, &url, HeaderMap::from_iter(accept), "pull").await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let reply = succeeded(reply)?;
        let body = serde_json::from_slice(&reply.body)
            .map_err(|_| RegistryError::NotARegistry("a manifest that is not JSON".into()))?;
        let digest = reply.header("docker-content-digest").map_or_else(|| parse::digest(&reply.body), str::to_owned);
        Ok(Some((digest, body)))
    }

    /// What stands in the image's config: whose it is.
    pub async fn labels(&self, at: &Repository, image: &Image) -> Result<BTreeMap<String, String>> {
        let url = at.url(&format!("blobs/{}", image.config_digest));
        let reply = succeeded(self.ask(at, Method::GET, &url, HeaderMap::new(), "pull").await?)?;
        let config: serde_json::Value = serde_json::from_slice(&reply.body)
            .map_err(|_| RegistryError::NotARegistry("a config that is not JSON".into()))?;
        Ok(serde_json::from_value(config["config"]["Labels"].clone()).unwrap_or_default())
    }

    /// Opens an upload and takes it back: the only sure way to learn whether a push would be let in.
    pub async fn check_push(&self, at: &Repository) -> Result<()> {
        let url = at.url("blobs/uploads/");
        let reply = self.ask(at, Method::POST, &url, HeaderMap::new(), "pull,push").await?;
        if reply.status == StatusCode::NOT_FOUND && !parse::is_registry_error(&reply.body) {
            return Err(RegistryError::NotARegistry(reply.summary()));
        }
        let reply = succeeded(reply)?;
        if reply.status != StatusCode::ACCEPTED {
            return Err(RegistryError::NotARegistry(reply.summary()));
        }
        let upload = reply.header(LOCATION.as_str()).and_then(|place| parse::absolute(place, &url));
        if let Some(upload) = upload.filter(|upload| upload.starts_with(&format!("{}/", at.base))) {
            // An upload that stays open is swept by the registry itself: not worth a failure.
            if let Err(e) = self.ask(at, Method::DELETE, &upload, HeaderMap::new(), "pull,push").await {
                tracing::debug!(registry = ?at, error = %e, "an opened upload was not taken back");
            }
        }
        Ok(())
    }

    /// Whether a registry answers at all, to somebody without a login.
    pub async fn reach(&self, host: &str, plain_http: bool) -> Result<()> {
        let url = format!("{}/v2/", base(host, plain_http));
        let reply = self.http.send(Method::GET, &url, &HeaderMap::new(), Bytes::new()).await?;
        match reply.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(()),
            StatusCode::NOT_FOUND => Err(RegistryError::NotARegistry(reply.summary())),
            _ => succeeded(reply).map(drop),
        }
    }

    /// Asks, and once more with what the registry wants to know of the asker.
    async fn ask(
        &self,
        at: &Repository,
        method: Method,
        url: &str,
        headers: HeaderMap,
        actions: &str,
    ) -> Result<Reply> {
        let reply = self.http.send(method.clone(), url, &headers, Bytes::new()).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        let challenge = reply
            .header(WWW_AUTHENTICATE.as_str())
            .and_then(parse::challenge)
            .ok_or_else(|| RegistryError::Auth("401 without a challenge that can be answered".into()))?;
        let authorization = match (&challenge, &at.credential) {
            (Challenge::Basic, Some((user, password))) => parse::basic(user, password),
            (Challenge::Basic, None) => return Err(RegistryError::Auth("a login is needed".into())),
            (Challenge::Bearer { realm, service, scope }, _) => {
                let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:{actions}", at.path));
                format!("Bearer {}", self.token(at, realm, service.as_deref(), &scope).await?)
            }
        };
        let mut headers = headers;
        let mut value = HeaderValue::from_str(&authorization)
            .map_err(|_| RegistryError::Auth("a login that does not fit into a header".into()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        let reply = self.http.send(method, url, &headers, Bytes::new()).await?;
        match reply.status {
            // Who was let in for a token and is turned away with it lacks the right, not the password.
            StatusCode::UNAUTHORIZED if matches!(challenge, Challenge::Bearer { .. }) => {
                Err(RegistryError::Denied(reply.summary()))
            }
            StatusCode::UNAUTHORIZED => Err(RegistryError::Auth(reply.summary())),
            _ => Ok(reply),
        }
    }

    async fn token(&self, at: &Repository, realm: &str, service: Option<&str>, scope: &str) -> Result<String> {
        // A registry that is spoken to in private sends nobody's password elsewhere in the clear.
        if at.base.starts_with("https:") && !realm.starts_with("https://") {
            return Err(RegistryError::NotARegistry("it wants the login sent in the clear".into()));
        }
        let url = parse::token_url(realm, service, scope);
        let mut headers = HeaderMap::new();
        if let Some((user, password)) = &at.credential
            && let Ok(mut value) = HeaderValue::from_str(&parse::basic(user, password))
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let reply = self.http.send(Method::GET, &url, &headers, Bytes::new()).await?;
        match reply.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                Err(RegistryError::Auth(reply.summary()))
            }
            _ => parse::token(&succeeded(reply)?.body)
                .ok_or_else(|| RegistryError::NotARegistry("a token that cannot be read".into())),
        }
    }
}

fn succeeded(reply: Reply) -> Result<Reply> {
    match reply.status {
        s if s.is_success() => Ok(reply),
        StatusCode::UNAUTHORIZED => Err(RegistryError::Auth(reply.summary())),
        // Harbor answers 404 for a project that is not there or not to be seen.
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Err(RegistryError::Denied(reply.summary()))
        }
        StatusCode::TOO_MANY_REQUESTS => Err(RegistryError::Busy(reply.summary())),
        s if s.is_server_error() => Err(RegistryError::Server(reply.summary())),
        _ => Err(RegistryError::NotARegistry(reply.summary())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_words() {
        let said = String::new;
        for error in [
            RegistryError::Auth(said()),
            RegistryError::Denied(said()),
            RegistryError::NotARegistry(said()),
            RegistryError::Tls(said()),
            RegistryError::Dns(said()),
            RegistryError::Network(said()),
            RegistryError::Server(said()),
            RegistryError::Busy(said()),
            RegistryError::Address,
        ] {
            assert_eq!(kiops_app::locales::unmatched(&error.problem("registry.example")), None, "{error:?}");
        }
    }
}
