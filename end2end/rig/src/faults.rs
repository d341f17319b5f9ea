//! A registry that misbehaves on demand: a proxy in front of a real one.

use std::error::Error;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::Client;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::home::{Server, at_home, keep_running};

/// Which requests are hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    Everything,
    /// Everything that writes.
    Pushes,
    /// Only the last step of a push, which gives the image its name.
    ManifestPushes,
}

/// What happens to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Answered with this status (401, 403, 413, 500 …) without asking the registry.
    Status(u16),
    /// The connection ends without an answer.
    Drop,
    /// The registry does what it was asked to; its answer is lost.
    LoseAnswer,
}

/// The proxy. Without a fault it hands everything on.
pub struct FaultyRegistry {
    address: String,
    state: Arc<State>,
    _server: Server,
}

struct State {
    behind: String,
    client: Client,
    fault: Mutex<Option<(On, Fault)>>,
}

type Failure = Box<dyn Error + Send + Sync>;

impl FaultyRegistry {
    /// `address` is that of the real registry.
    pub async fn in_front_of(address: String) -> Result<Self> {
        let listener = at_home(async { Ok(TcpListener::bind(("127.0.0.1", 0)).await?) }).await?;
        let own = listener.local_addr().context("the proxy's address")?.to_string();
        let state = Arc::new(State { behind: address, client: Client::new(), fault: Mutex::new(None) });
        let server = keep_running(serve(listener, state.clone()));
        Ok(Self { address: own, state, _server: server })
    }

    /// `127.0.0.1:PORT`, to be used instead of the registry's.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn fail(&self, on: On, fault: Fault) {
        *self.state.fault.lock().expect("no holder panics") = Some((on, fault));
    }

    pub fn recover(&self) {
        *self.state.fault.lock().expect("no holder panics") = None;
    }
}

/// On hyper itself: a service that fails there ends the connection without an answer.
async fn serve(listener: TcpListener, state: Arc<State>) {
    // Ends with the task, so that a dropped proxy also cuts its open connections.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        let service = service_fn(move |request| answer(state.clone(), request));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let fault = *state.fault.lock().expect("no holder panics");
    match fault.filter(|(on, _)| on.hits(&request)).map(|(_, fault)| fault) {
        None => hand_on(&state, request).await,
        Some(Fault::Drop) => Err("dropped on demand".into()),
        Some(Fault::LoseAnswer) => {
            hand_on(&state, request).await?;
            Err("the answer is lost on demand".into())
        }
        Some(Fault::Status(status)) => {
            // In the words that registries use: clients tell faults apart by them.
            let (code, message) = match status {
                401 => ("UNAUTHORIZED", "authentication required"),
                403 => ("DENIED", "requested access to the resource is denied"),
                404 => ("NAME_UNKNOWN", "repository name not known to registry"),
                429 => ("TOOMANYREQUESTS", "too many requests"),
                _ => ("UNKNOWN", "unknown error"),
            };
            let errors = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
            let mut response = Response::new(Body::from(errors.to_string()));
            *response.status_mut() = StatusCode::from_u16(status)?;
            if status == 401 {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, "Basic realm=\"rig\"".parse()?);
            }
            Ok(response)
        }
    }
}

impl On {
    fn hits(self, request: &Request<Incoming>) -> bool {
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        match self {
            Self::Everything => true,
            Self::Pushes => writes,
            Self::ManifestPushes => writes && request.uri().path().contains("/manifests/"),
        }
    }
}

async fn hand_on(state: &State, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let (parts, body) = request.into_parts();
    // The Host header goes along: the registry builds the addresses of uploads from it.
    let sent = state.client.request(parts.method, format!("http://{}{}", state.behind, parts.uri));
    let body = reqwest::Body::wrap_stream(Body::new(body).into_data_stream());
    let received = sent.headers(end_to_end(parts.headers)).body(body).send().await?;
    let mut response = Response::builder().status(received.status());
    *response.headers_mut().ok_or("a status")? = end_to_end(received.headers().clone());
    Ok(response.body(Body::from_stream(received.bytes_stream()))?)
}

/// Without the headers that are about one connection only.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers
}
