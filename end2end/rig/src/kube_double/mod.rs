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
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::home::{Server, at_home, keep_running, scratch_folder};
use crate::tls::Authority;
use objects::Objects;
use pod::Attempt;
use replay::Recording;

/// A running double. Dropped, it takes its Pods along.
pub struct KubeDouble {
    _server: Server,
    double: Arc<Double>,
    kubeconfig: PathBuf,
    _authority: Authority,
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
        let authority = Authority::for_addresses(&["127.0.0.1"]).await?;
        let listener = at_home(async { Ok(TcpListener::bind(("127.0.0.1", 0)).await?) }).await?;
        let address = listener.local_addr().context("the double's address")?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_of(&format!("https://{address}"), &authority.file()))?;
        let state = Mutex::default();
        let double = Arc::new(Double { agent: agent.to_owned(), recording, folder: folder.path().to_owned(), state });
        let server = keep_running(serve(listener, authority.acceptor(), double.clone()));
        Ok(Self { _server: server, double, kubeconfig, _authority: authority, _folder: folder })
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

/// JSON is YAML.
fn kubeconfig_of(server: &str, authority: &Path) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "double",
            "cluster": { "server": server, "certificate-authority": authority },
        }],
        "users": [{ "name": "double", "user": {} }],
        "contexts": [{ "name": "double", "context": { "cluster": "double", "user": "double" } }],
        "current-context": "double",
    })
    .to_string()
}
