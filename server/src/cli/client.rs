//! Requests to the JSON API, and what can go wrong with them as sentences.

use crate::outgoing::{HttpsClient, https_client};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;

pub(super) struct Client {
    http: HttpsClient,
    /// Without a slash at its end.
    url: String,
    token: String,
}

/// Why a command has no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A whole sentence, also the server's own.
    Said(String),
    /// The connection broke: what was going on may be taken up again.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(sentence) => f.write_str(sentence),
            Self::Broken(cause) => {
                write!(f, "The server does not answer ({cause}). Check KIOPS_URL, and that the server runs.")
            }
        }
    }
}

impl Client {
    pub(super) fn from_env() -> Result<Self, Trouble> {
        let set = |name: &str, what: &str| {
            std::env::var(name).map_err(|_| Trouble::Said(format!("{name} is not set: it is {what}.")))
        };
        let url = set("KIOPS_URL", "the server's address, such as http://127.0.0.1:3000")?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Trouble::Said("KIOPS_URL should begin with http:// or https://.".into()));
        }
        Ok(Self {
            http: https_client().map_err(Trouble::Said)?,
            url: url.trim_end_matches('/').to_owned(),
            token: set("KIOPS_TOKEN", "the token that POST /api/v1/sessions gives")?,
        })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        parsed(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Trouble> {
        let body = serde_json::to_vec(body).map_err(|e| Trouble::Said(e.to_string()))?;
        parsed(self.send(Method::POST, path, body.into()).await?).await
    }

    pub(super) async fn post_nothing(&self, path: &str) -> Result<(), Trouble> {
        self.send(Method::POST, path, Bytes::new()).await.map(drop)
    }

    /// Hands a reply's body on piece by piece.
    pub(super) async fn copy(
        &self,
        path: &str,
        mut piece: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Trouble> {
        let mut body = self.send(Method::GET, path, Bytes::new()).await?.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|e| Trouble::Broken(e.to_string()))?.into_data() {
                piece(&data).map_err(|e| Trouble::Said(format!("The log could not be written: {e}.")))?;
            }
        }
        Ok(())
    }

    /// Sends, and turns any reply that is no success into its sentence.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Trouble> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1/{path}", self.url))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| Trouble::Said("KIOPS_URL or KIOPS_TOKEN holds letters that cannot be sent.".into()))?;
        let reply = self.http.request(request).await.map_err(|e| Trouble::Broken(e.to_string()))?;
        if reply.status().is_success() {
            return Ok(reply);
        }
        let status = reply.status();
        let bytes = whole(reply).await?;
        let said = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
        let message = said.as_ref().and_then(|v| v.get("message")).and_then(|m| m.as_str());
        Err(Trouble::Said(message.map_or_else(|| format!("The server answered {status}."), str::to_owned)))
    }
}

async fn whole(reply: Response<Incoming>) -> Result<Bytes, Trouble> {
    reply.into_body().collect().await.map(|b| b.to_bytes()).map_err(|e| Trouble::Broken(e.to_string()))
}

async fn parsed<T: DeserializeOwned>(reply: Response<Incoming>) -> Result<T, Trouble> {
    let bytes = whole(reply).await?;
    serde_json::from_slice(&bytes).map_err(|_| {
        Trouble::Said("The server's answer cannot be read: is KIOPS_URL a KIOPS Build of this version?".into())
    })
}
