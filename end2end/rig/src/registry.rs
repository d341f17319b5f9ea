//! A container registry of one's own: Debian's docker-registry on a free port.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::base_image::{MANIFEST_TYPE, base_image, digest};
use crate::cluster::Image;
use crate::home::{free_port, scratch_folder};
use crate::process::Daemon;

/// A user who may push and pull.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
}

#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Only this login is let in; without it, everybody is.
    pub login: Option<Login>,
    /// Instead of a free one.
    pub port: Option<u16>,
    /// Instead of a temporary folder; kept when the registry is dropped.
    pub storage: Option<PathBuf>,
}

/// A running (or stopped) registry.
pub struct Registry {
    // Before the folder: fields are dropped in this order.
    daemon: Option<Daemon>,
    folder: TempDir,
    port: u16,
    login: Option<Login>,
    client: Client,
}

/// What a reference leads to.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub digest: String,
    pub media_type: String,
    pub body: Value,
}

impl Registry {
    pub async fn start(options: RegistryOptions) -> Result<Self> {
        let folder = scratch_folder()?;
        let port = options.port.unwrap_or_else(free_port);
        let storage = options.storage.unwrap_or_else(|| folder.path().join("storage"));
        let mut config = json!({
            "version": 0.1,
            "log": { "level": "warn", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": storage }, "delete": { "enabled": true } },
            // Whoever is in front of it may speak TLS.
            "http": { "addr": format!("127.0.0.1:{port}"), "relativeurls": true },
        });
        if let Some(login) = &options.login {
            // The registry checks the hash at every request: the lowest cost will do.
            let hash = bcrypt::hash_with_result(&login.password, 4)?.format_for_version(bcrypt::Version::TwoY);
            let file = folder.path().join("htpasswd");
            std::fs::write(&file, format!("{}:{hash}\n", login.user))?;
            config["auth"] = json!({ "htpasswd": { "realm": "rig", "path": file } });
        }
        // JSON is YAML.
        std::fs::write(folder.path().join("config.yml"), config.to_string())?;
        let mut registry = Self { daemon: None, folder, port, login: options.login, client: Client::new() };
        registry.start_again().await?;
        Ok(registry)
    }

    /// `127.0.0.1:PORT`, as it stands in image names.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// With the same port and content as before.
    pub async fn start_again(&mut self) -> Result<()> {
        self.stop();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(self.folder.path().join("config.yml"));
        let log = self.folder.path().join("log");
        let mut daemon =
            Daemon::start(command, Signal::KILL, &log).await.context("install the package docker-registry")?;
        let probe = self.client.get(self.url(""));
        daemon
            .wait_until(&log, async || probe.try_clone().expect("a request without a body").send().await.is_ok())
            .await
            .context("docker-registry")?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// The base image as `library/busybox:1` and `library/alpine:3`: as a mirror of docker.io,
    /// this registry then serves `FROM busybox:1`.
    pub async fn push_base_images(&self) -> Result<()> {
        self.push_base_image("library/busybox", "1").await?;
        self.push_base_image("library/alpine", "3").await
    }

    pub async fn push_base_image(&self, repository: &str, tag: &str) -> Result<()> {
        let image = base_image()?;
        self.push_blob(repository, &image.layer).await?;
        self.push_documents(repository, tag, &image.config, image.manifest.clone()).await
    }

    /// An image of a cluster's node.
    pub async fn push(&self, repository: &str, tag: &str, image: &Image) -> Result<()> {
        for blob in image.blobs() {
            self.push_blob(repository, &blob?).await?;
        }
        let (config, manifest) = image.documents()?;
        self.push_documents(repository, tag, &config, manifest).await
    }

    async fn push_documents(&self, repository: &str, tag: &str, config: &[u8], manifest: Vec<u8>) -> Result<()> {
        self.push_blob(repository, config).await?;
        let put = self.request(Method::PUT, &format!("{repository}/manifests/{tag}"));
        succeed(put.header(CONTENT_TYPE, MANIFEST_TYPE).body(manifest)).await?;
        Ok(())
    }

    async fn push_blob(&self, repository: &str, content: &[u8]) -> Result<()> {
        let opened = succeed(self.request(Method::POST, &format!("{repository}/blobs/uploads/"))).await?;
        let location = opened.headers().get(LOCATION).context("an upload's address")?.to_str()?;
        let mut location = opened.url().join(location)?;
        location.query_pairs_mut().append_pair("digest", &digest(content));
        let put = self.authorized(self.client.put(location));
        succeed(put.header(CONTENT_TYPE, "application/octet-stream").body(content.to_vec())).await?;
        Ok(())
    }

    /// By tag or digest; none if there is no such image.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<Option<Manifest>> {
        const KNOWN: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
             application/vnd.docker.distribution.manifest.list.v2+json, \
             application/vnd.docker.distribution.manifest.v2+json";
        let get = self.request(Method::GET, &format!("{repository}/manifests/{reference}")).header(ACCEPT, KNOWN);
        let Some(response) = found(get).await? else { return Ok(None) };
        let header = |name: &str| -> Result<String> {
            Ok(response.headers().get(name).with_context(|| format!("no {name}"))?.to_str()?.to_owned())
        };
        let (digest, media_type) = (header("docker-content-digest")?, header("content-type")?);
        Ok(Some(Manifest { digest, media_type, body: serde_json::from_slice(&response.bytes().await?)? }))
    }

    pub async fn blob(&self, repository: &str, digest: &str) -> Result<Vec<u8>> {
        let get = self.request(Method::GET, &format!("{repository}/blobs/{digest}"));
        Ok(succeed(get).await?.bytes().await?.to_vec())
    }

    /// The configuration (labels, command, history) of an image; of an index, of its first image.
    pub async fn image_config(&self, repository: &str, reference: &str) -> Result<Value> {
        let missing = || format!("no image {repository}:{reference}");
        let mut manifest = self.manifest(repository, reference).await?.with_context(missing)?;
        if let Some(first) = manifest.body["manifests"][0]["digest"].as_str() {
            manifest = self.manifest(repository, first).await?.with_context(missing)?;
        }
        let config = manifest.body["config"]["digest"].as_str().context("a manifest without a config")?;
        Ok(serde_json::from_slice(&self.blob(repository, config).await?)?)
    }

    /// The tags of a repository; none if there is no such repository.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        self.list(&format!("{repository}/tags/list"), "tags").await
    }

    /// The names of all repositories.
    pub async fn catalog(&self) -> Result<Vec<String>> {
        self.list("_catalog", "repositories").await
    }

    async fn list(&self, path: &str, key: &str) -> Result<Vec<String>> {
        let Some(response) = found(self.request(Method::GET, path)).await? else { return Ok(Vec::new()) };
        let mut body: Value = serde_json::from_slice(&response.bytes().await?)?;
        // A repository whose tags are all deleted answers null.
        Ok(serde_json::from_value::<Option<Vec<String>>>(body[key].take())?.unwrap_or_default())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.authorized(self.client.request(method, self.url(path)))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.login {
            Some(login) => request.basic_auth(&login.user, Some(&login.password)),
            None => request,
        }
    }
}

async fn found(request: RequestBuilder) -> Result<Option<Response>> {
    let response = request.send().await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    checked(response).await.map(Some)
}

async fn succeed(request: RequestBuilder) -> Result<Response> {
    checked(request.send().await?).await
}

async fn checked(response: Response) -> Result<Response> {
    let (status, url) = (response.status(), response.url().clone());
    if status.is_success() {
        return Ok(response);
    }
    bail!("{url} answered {status}: {}", response.text().await?)
}
