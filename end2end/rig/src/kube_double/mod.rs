//! A double of a Kubernetes cluster, for more builds at once than any cluster of one machine has room for.
//!
//! It speaks as much of the API as the runner `kubernetes` asks for, over TLS as every API server does: Pods, Secrets and
//! claims are created, read, listed, patched and deleted, and a Pod's port is forwarded over a WebSocket. It is no
//! Kubernetes: there are no rights, no namespaces apart from each other, no quotas, no scheduler and no garbage
//! collection, and whoever is deleted goes without a grace period. What it must prove about Kubernetes is proven on a
//! [`Cluster`](crate::Cluster).
//!
//! In each of its Pods the real agent's `relay` runs, a process of its own; in place of its checkout and its build a
//! recorded build is played again (see [`replay`]).

mod api;
mod forward;
mod objects;
mod pod;
mod replay;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::home::{Server, at_home, keep_running, scratch_folder};
use crate::process::output;
use objects::Objects;
use pod::Attempt;
use replay::Recording;

/// A running double. Dropped, it takes its Pods along.
pub struct KubeDouble {
    _server: Server,
    double: Arc<Double>,
    kubeconfig: PathBuf,
    // After everything that works in it: fields are dropped in this order.
    _folder: TempDir,
}

struct Double {
    /// `kiops-agent`.
    agent: PathBuf,
    recording: Recording,
    /// Holds a folder for each Pod.
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    /// What is at work, by the names of its Pods.
    attempts: HashMap<String, Attempt>,
}

impl KubeDouble {
    /// `agent` is the agent's program, `recording` the spool of a build that came to its end.
    pub async fn start(agent: &Path, recording: &Path) -> Result<Self> {
        let recording = Recording::read(recording).with_context(|| format!("the spool {}", recording.display()))?;
        let folder = scratch_folder()?;
        let tls = certificate(folder.path()).await?;
        let listener = at_home(async { Ok(TcpListener::bind(("127.0.0.1", 0)).await?) }).await?;
        let address = listener.local_addr().context("the double's address")?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_of(&format!("https://{address}"), folder.path()))?;
        let state = Mutex::default();
        let double = Arc::new(Double { agent: agent.to_owned(), recording, folder: folder.path().to_owned(), state });
        let server = keep_running(serve(listener, tls, double.clone()));
        Ok(Self { _server: server, double, kubeconfig, _folder: folder })
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }
}

impl Drop for KubeDouble {
    fn drop(&mut self) {
        // Without its object, a Pod that is being started does not come to work.
        let left = std::mem::take(&mut *self.double.state());
        drop(left);
    }
}

impl Double {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, double: Arc<Double>) {
    // Ends with the task, so that a dropped double also cuts its open connections.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (tls, double) = (tls.clone(), double.clone());
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request| api::answer(double.clone(), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

const CERTIFICATE: &str = "double.crt";
const KEY: &str = "double.key";

/// Signed by itself, for the loopback.
async fn certificate(folder: &Path) -> Result<TlsAcceptor> {
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=double", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", KEY, "-out", CERTIFICATE])
        .current_dir(folder);
    output(make).await?;
    let certificate = CertificateDer::from_pem_file(folder.join(CERTIFICATE)).context("the double's certificate")?;
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY)).context("the double's key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// JSON is YAML.
fn kubeconfig_of(server: &str, folder: &Path) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "double",
            "cluster": { "server": server, "certificate-authority": folder.join(CERTIFICATE) },
        }],
        "users": [{ "name": "double", "user": {} }],
        "contexts": [{ "name": "double", "context": { "cluster": "double", "user": "double" } }],
        "current-context": "double",
    })
    .to_string()
}
