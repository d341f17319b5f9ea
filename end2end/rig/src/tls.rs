//! HTTPS in front of a server that speaks plain HTTP, under a certificate that nobody trusts who was not told to.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::home::{Server, at_home, keep_running, scratch_folder};
use crate::process::output;

const AUTHORITY: &str = "authority.crt";
const AUTHORITY_KEY: &str = "authority.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// It has signed one certificate, for some addresses.
pub struct Authority {
    folder: TempDir,
    acceptor: TlsAcceptor,
}

impl Authority {
    pub async fn for_addresses(addresses: &[&str]) -> Result<Self> {
        let folder = scratch_folder()?;
        let names: Vec<String> = addresses.iter().map(|address| format!("IP:{address}")).collect();
        let names = format!("subjectAltName={}", names.join(","));
        let own = ["-subj", "/CN=The rig's authority", "-addext", "basicConstraints=critical,CA:TRUE"];
        let signed = ["-subj", "/CN=rig", "-addext", "basicConstraints=critical,CA:FALSE", "-addext", &names];
        let signed = [&signed[..], &["-CA", AUTHORITY, "-CAkey", AUTHORITY_KEY]].concat();
        for (options, key, certificate) in [(&own[..], AUTHORITY_KEY, AUTHORITY), (&signed[..], KEY, CERTIFICATE)] {
            let mut make = Command::new("openssl");
            make.args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "30",
            ])
            .args(options)
            .args(["-keyout", key, "-out", certificate])
            .current_dir(folder.path());
            output(make).await.context("install the package openssl")?;
        }
        let certificate = CertificateDer::from_pem_file(folder.path().join(CERTIFICATE)).context("the certificate")?;
        let key = PrivateKeyDer::from_pem_file(folder.path().join(KEY)).context("the certificate's key")?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(Self { folder, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Of what is to be trusted.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join(AUTHORITY)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Serves what this machine's loopback has at `port`.
    pub async fn in_front_of(&self, port: u16) -> Result<TlsDoor> {
        let listener = at_home(async { Ok(TcpListener::bind(("127.0.0.1", 0)).await?) }).await?;
        let own = listener.local_addr().context("the door's address")?.port();
        Ok(TlsDoor { port: own, _server: keep_running(serve(listener, self.acceptor(), port)) })
    }
}

pub struct TlsDoor {
    port: u16,
    _server: Server,
}

impl TlsDoor {
    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, port: u16) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let Ok(mut from) = acceptor.accept(from).await else { return };
            let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        });
    }
}
