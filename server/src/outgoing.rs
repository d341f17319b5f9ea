//! The one HTTP client for what this program asks of others: TLS by the machine's own certificates, plain HTTP where an
//! address says so. What is asked, and what an answer means, is its callers' business.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::Duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

pub type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Reading the machine's certificates takes its time: keep what this makes.
pub fn https_client() -> Result<HttpsClient, String> {
    let mut tcp = HttpConnector::new();
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
