//! The rig for programs that are not Rust: JSON lines in, JSON lines out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Fault, FaultyRegistry, Furnished, GitFault, GitOptions, GitServer, KubeDouble, Login, On, Postgres, Registry,
    RegistryOptions, free_port,
};

/// What the first line tells the addresses of.
pub struct Rig {
    mirror: Registry,
    registry: Registry,
    faulty: FaultyRegistry,
    git: GitServer,
    postgres: Option<Postgres>,
    cluster: Option<Furnished>,
    kube_double: Option<KubeDouble>,
}

/// One line of input.
#[derive(Debug, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
enum Order {
    NewRepo { repo: String },
    Commit { repo: String, branch: String, files: BTreeMap<String, String>, message: Option<String> },
    RemoveFiles { repo: String, branch: String, paths: Vec<String>, message: Option<String> },
    AddSubmodule { repo: String, branch: String, path: String, url: String, commit: String },
    Head { repo: String, branch: String },
    Branch { repo: String, name: String, from: String },
    DeleteBranch { repo: String, name: String },
    Reset { repo: String, branch: String, to: String },
    Tag { repo: String, name: String, at: String },
    Prune { repo: String },
    GitFault { status: Option<u16>, hang: Option<bool> },
    RegistryStop,
    RegistryStart,
    RegistryFault { on: Option<On>, fault: Option<Fault> },
    Manifest { name: String, reference: String },
    ImageConfig { name: String, reference: String },
    Tags { name: String },
    Catalog,
    Postgres,
    FreePort,
    Cluster { agent: PathBuf },
    Kubectl { arguments: Vec<String> },
    KubeDouble { agent: PathBuf, recording: PathBuf },
    KubeDoubleStop,
}

impl Rig {
    pub async fn start(login: Option<Login>, git_token: Option<String>) -> Result<Self> {
        let mirror = Registry::start(RegistryOptions::default()).await?;
        mirror.push_base_images().await?;
        let registry = Registry::start(RegistryOptions { login, ..RegistryOptions::default() }).await?;
        let faulty = FaultyRegistry::in_front_of(registry.address()).await?;
        let git = GitServer::start(GitOptions { token: git_token, ..GitOptions::default() }).await?;
        Ok(Self { mirror, registry, faulty, git, postgres: None, cluster: None, kube_double: None })
    }

    pub fn addresses(&self) -> Value {
        json!({
            "mirror": self.mirror.address(),
            "registry": self.registry.address(),
            "faulty_registry": self.faulty.address(),
            "git_url": self.git.url(),
            "token": self.git.token(),
        })
    }

    /// The answer to one line of input, whatever it holds.
    pub async fn obey(&mut self, line: &str) -> Value {
        match self.try_obey(line).await {
            Ok(result) => json!({ "ok": true, "result": result }),
            Err(error) => json!({ "ok": false, "error": format!("{error:#}") }),
        }
    }

    async fn try_obey(&mut self, line: &str) -> Result<Value> {
        let order = serde_json::from_str(line).context("not a command")?;
        let repo = |name: &str| self.git.repo(name);
        Ok(match order {
            Order::NewRepo { repo } => json!(self.git.new_repo(&repo).await?.url()),
            Order::Commit { repo: name, branch, files, message } => {
                let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_bytes())).collect();
                json!(repo(&name).commit(&branch, &files, message.as_deref().unwrap_or("Change files")).await?)
            }
            Order::RemoveFiles { repo: name, branch, paths, message } => {
                let paths: Vec<_> = paths.iter().map(String::as_str).collect();
                json!(repo(&name).remove(&branch, &paths, message.as_deref().unwrap_or("Remove files")).await?)
            }
            Order::AddSubmodule { repo: name, branch, path, url, commit } => {
                json!(repo(&name).add_submodule(&branch, &path, &url, &commit).await?)
            }
            Order::Head { repo: name, branch } => json!(repo(&name).head(&branch).await?),
            Order::Branch { repo: name, name: branch, from } => json!(repo(&name).branch(&branch, &from).await?),
            Order::DeleteBranch { repo: name, name: branch } => json!(repo(&name).delete_branch(&branch).await?),
            Order::Reset { repo: name, branch, to } => json!(repo(&name).reset(&branch, &to).await?),
            Order::Tag { repo: name, name: tag, at } => json!(repo(&name).tag(&tag, &at).await?),
            Order::Prune { repo: name } => json!(repo(&name).prune().await?),
            Order::GitFault { status, hang } => {
                let hang = hang.unwrap_or_default().then_some(GitFault::Hang);
                json!(self.git.set_fault(status.map(GitFault::Status).or(hang)))
            }
            Order::RegistryStop => json!(self.registry.stop()),
            Order::RegistryStart => json!(self.registry.start_again().await?),
            Order::RegistryFault { on, fault } => match fault {
                Some(fault) => json!(self.faulty.fail(on.unwrap_or(On::Pushes), fault)),
                None => json!(self.faulty.recover()),
            },
            Order::Manifest { name, reference } => match self.registry.manifest(&name, &reference).await? {
                Some(found) => json!({ "digest": found.digest, "media_type": found.media_type, "body": found.body }),
                None => Value::Null,
            },
            Order::ImageConfig { name, reference } => self.registry.image_config(&name, &reference).await?,
            Order::Tags { name } => json!(self.registry.tags(&name).await?),
            Order::Catalog => json!(self.registry.catalog().await?),
            Order::FreePort => json!(free_port()),
            Order::Cluster { agent } => {
                let ports = [self.mirror.address(), self.registry.address(), self.git.url()].map(|a| port_of(&a));
                let ports = ports.into_iter().collect::<Result<Vec<_>>>()?;
                self.cluster.insert(Furnished::start(&agent, &ports).await?).addresses()
            }
            Order::Kubectl { arguments } => {
                let cluster = &self.cluster.as_ref().context("no cluster was asked for")?.cluster;
                json!(cluster.kubectl(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await?)
            }
            Order::KubeDouble { agent, recording } => {
                // One at a time: the last one's Pods go first.
                self.kube_double = None;
                json!(self.kube_double.insert(KubeDouble::start(&agent, &recording).await?).kubeconfig())
            }
            Order::KubeDoubleStop => json!(self.kube_double = None),
            Order::Postgres => {
                if self.postgres.is_none() {
                    self.postgres = Some(Postgres::start().await?);
                }
                json!(self.postgres.as_ref().context("just started")?.create_database().await?)
            }
        })
    }
}

fn port_of(address: &str) -> Result<u16> {
    let port = address.trim_end_matches('/').rsplit_once(':').context("an address with a port")?.1;
    Ok(port.parse()?)
}
