//! A cluster with everything that builds in Pods need: the two images, and the product's own manifests applied.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Cluster, Image};

/// The very file that an administrator applies.
const MANIFESTS: &str = include_str!("../../../../deploy/kubernetes/builds.yaml");
const NAMESPACE: &str = "kiwi-builds";
const STORAGE_CLASS: &str = "kept";
/// More have no volume, and their builds go on without.
const KEPT_SERVICES: usize = 16;

pub struct Furnished {
    pub cluster: Cluster,
    /// Of the server's own account: with the rights that the manifests give, and no others.
    pub kubeconfig: PathBuf,
    pub builder_image: &'static str,
    pub own_image: &'static str,
}

impl Furnished {
    /// `agent`: the program that goes into the product's image, linked statically. `ports`: of this machine's loopback, for Pods.
    pub async fn start(agent: &Path, ports: &[u16]) -> Result<Self> {
        let (builder_image, own_image) = ("rig.invalid/builder:1", "rig.invalid/kiops:1");
        let cluster = Cluster::start().await?;
        for port in ports {
            cluster.let_in(*port).await?;
        }
        cluster.load(&Image::builder(builder_image)?).await?;
        cluster.load(&Image::of_programs(own_image, &[("usr/bin/kiops-agent", agent)])?).await?;
        let file = cluster.at("builds.yaml");
        std::fs::write(&file, MANIFESTS)?;
        cluster
            .kubectl(&["apply", "-f", &file.display().to_string()])
            .await
            .context("deploy/kubernetes/builds.yaml")?;
        // What there is at once is counted before anything may be made.
        let counted = "--for=jsonpath={.status.hard.pods}";
        cluster.kubectl(&["-n", NAMESPACE, "wait", counted, "--timeout=60s", "resourcequota/kiops-builds"]).await?;
        let token = cluster.kubectl(&["-n", NAMESPACE, "create", "token", "kiops", "--duration=24h"]).await?;
        let kubeconfig = cluster.kubeconfig_for(&token, "server.kubeconfig")?;
        Ok(Self { cluster, kubeconfig, builder_image, own_image })
    }

    /// Also with volumes for cache mounts, for whom it stays longer than a test.
    pub async fn with_storage(self) -> Result<Self> {
        self.cluster.storage(STORAGE_CLASS, KEPT_SERVICES).await?;
        Ok(self)
    }

    /// What the server is told about it.
    pub fn addresses(&self) -> Value {
        json!({
            "kubeconfig": self.kubeconfig,
            "admin_kubeconfig": self.cluster.kubeconfig(),
            "builder_image": self.builder_image,
            "own_image": self.own_image,
            "storage_class": STORAGE_CLASS,
            "host": self.cluster.host_address(),
        })
    }
}
