//! The one HTTP client for what this program asks of others: TLS by the machine's own certificates, plain HTTP where an
//! address says so. What is asked, and what an answer means, is its callers' business.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use kiops_events::address::AddressPolicy;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

pub type HttpsClient = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// For addresses that whoever runs this program has named. Reading the machine's certificates takes its time: keep what
/// this makes.
pub fn https_client() -> Result<HttpsClient, String> {
    client(Resolver { within: None })
}

/// For addresses that come from others: names that lead to what may not be reached are refused with [`Forbidden`].
/// Literal addresses are not looked up, so they are the caller's to judge.
pub fn https_client_within(policy: AddressPolicy) -> Result<HttpsClient, String> {
    client(Resolver { within: Some(policy) })
}

fn client(resolver: Resolver) -> Result<HttpsClient, String> {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(Arc::new(rustls::crypto::ring::default_provider()))
        .map_err(|e| format!("the machine's certificates: {e}"))?
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let mut client = Client::builder(TokioExecutor::new());
    // Asked now and then: no connection is worth keeping open in between.
    client.pool_max_idle_per_host(0);
    Ok(client.build(https))
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this address may not be reached")]
pub struct Forbidden;

/// The machine's own look-up, judged: what is connected to is what was judged.
#[derive(Clone, Copy, Debug)]
pub struct Resolver {
    within: Option<AddressPolicy>,
}

type Failure = Box<dyn Error + Send + Sync>;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let within = self.within;
        Box::pin(async move {
            // The port is put in by whoever connects.
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match within {
                Some(policy) if !found.iter().all(|address| policy.allows(address.ip())) => Err(Forbidden.into()),
                _ => Ok(found.into_iter()),
            }
        })
    }
}
