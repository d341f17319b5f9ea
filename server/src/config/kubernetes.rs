//! Settings of builds in Pods.

use super::values::between;
use crate::runner::kubernetes::{Isolation, Patience, StateStorage};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where builds run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerKind {
    Local,
    Kubernetes,
}

#[derive(Clone, Debug, Args)]
pub struct Kubernetes {
    /// Kubeconfig of the cluster that builds run in [default: the Pod's own account, then KUBECONFIG or ~/.kube/config]
    #[arg(long, env = "KIOPS_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the build Pods; deploy/kubernetes/builds.yaml makes it
    #[arg(long, env = "KIOPS_NAMESPACE", value_name = "NAME", default_value = "kiwi-builds")]
    pub namespace: String,

    /// BuildKit's image; in production with a digest, from a registry of your own [default:
    /// docker.io/moby/buildkit:v0.32.2-rootless; with the other isolations the one without -rootless]
    #[arg(long, env = "KIOPS_BUILDER_IMAGE", value_name = "IMAGE")]
    pub builder_image: Option<String>,

    /// This product's own image, whose agent checks out and serves the log; needed for builds in Pods
    #[arg(long, env = "KIOPS_IMAGE", value_name = "IMAGE")]
    pub own_image: Option<String>,

    /// How a build is kept apart from its node: rootless, userns or privileged
    #[arg(long, env = "KIOPS_ISOLATION", value_name = "HOW", default_value = "rootless", value_parser = isolation)]
    pub isolation: Isolation,

    /// Secrets of the namespace that hold the logins for the two images
    #[arg(long, env = "KIOPS_IMAGE_PULL_SECRETS", value_name = "NAME,…", value_delimiter = ',')]
    pub image_pull_secrets: Vec<String>,

    /// Labels of the nodes that builds may use
    #[arg(long, env = "KIOPS_NODE_SELECTOR", value_name = "LABEL=VALUE,…", value_delimiter = ',', value_parser = label)]
    pub node_selector: Vec<(String, String)>,

    /// Taints that build Pods tolerate, as the JSON list that a Pod has
    #[arg(long, env = "KIOPS_TOLERATIONS", value_name = "JSON", default_value = "[]", value_parser = tolerations)]
    pub tolerations: Value,

    /// Storage for each service's cache mounts, such as 20Gi [default: none: they begin empty in every build]
    #[arg(long, env = "KIOPS_STATE_SIZE", value_name = "SIZE", value_parser = quantity)]
    pub state_size: Option<String>,

    /// Storage class of it [default: the cluster's]
    #[arg(long, env = "KIOPS_STATE_CLASS", value_name = "NAME")]
    pub state_class: Option<String>,

    /// Platform that images are built for, such as linux/amd64 [default: the node's]
    #[arg(long, env = "KIOPS_PLATFORM", value_name = "PLATFORM")]
    pub platform: Option<String>,

    /// Seconds that a Pod may wait for a node with room
    #[arg(long, env = "KIOPS_WAIT_CAPACITY_S", value_name = "SECONDS", default_value = "600", value_parser = seconds("KIOPS_WAIT_CAPACITY_S"))]
    pub wait_capacity_s: u64,

    /// Seconds that a Pod may wait for an image that cannot be fetched
    #[arg(long, env = "KIOPS_WAIT_IMAGE_S", value_name = "SECONDS", default_value = "300", value_parser = seconds("KIOPS_WAIT_IMAGE_S"))]
    pub wait_image_s: u64,

    /// Seconds that a Pod may wait for a container that cannot be made
    #[arg(long, env = "KIOPS_WAIT_CONTAINER_S", value_name = "SECONDS", default_value = "60", value_parser = seconds("KIOPS_WAIT_CONTAINER_S"))]
    pub wait_container_s: u64,

    /// Seconds that a Pod may take to start, or to end on a node that does not answer, where nothing more is known
    #[arg(long, env = "KIOPS_WAIT_POD_S", value_name = "SECONDS", default_value = "300", value_parser = seconds("KIOPS_WAIT_POD_S"))]
    pub wait_pod_s: u64,

    /// Seconds that the cluster's API may be away before a build that is to start there is tried again, and then given up
    #[arg(long, env = "KIOPS_WAIT_CLUSTER_S", value_name = "SECONDS", default_value = "600", value_parser = seconds("KIOPS_WAIT_CLUSTER_S"))]
    pub wait_cluster_s: u64,
}

const BUILDER_IMAGE: &str = "docker.io/moby/buildkit:v0.32.2";

impl Kubernetes {
    /// The one that is made for this isolation, where no other is named.
    pub fn builder_image(&self) -> String {
        let suited = || match self.isolation {
            Isolation::Rootless => format!("{BUILDER_IMAGE}-rootless"),
            Isolation::Userns | Isolation::Privileged => BUILDER_IMAGE.to_owned(),
        };
        self.builder_image.clone().unwrap_or_else(suited)
    }

    pub fn patience(&self) -> Patience {
        let seconds = Duration::from_secs;
        Patience {
            capacity: seconds(self.wait_capacity_s),
            image: seconds(self.wait_image_s),
            container: seconds(self.wait_container_s),
            starting: seconds(self.wait_pod_s),
            absence: seconds(self.wait_cluster_s),
            ..Patience::default()
        }
    }

    pub fn state(&self) -> Option<StateStorage> {
        let size = self.state_size.clone()?;
        Some(StateStorage { class: self.state_class.clone(), size })
    }

    pub fn node_selector(&self) -> BTreeMap<String, String> {
        self.node_selector.iter().cloned().collect()
    }

    pub fn tolerations(&self) -> Vec<Value> {
        self.tolerations.as_array().cloned().unwrap_or_default()
    }
}

pub(super) fn runner(text: &str) -> Result<RunnerKind, String> {
    match text {
        "local" => Ok(RunnerKind::Local),
        "kubernetes" => Ok(RunnerKind::Kubernetes),
        _ => Err("KIOPS_RUNNER should be local or kubernetes".to_owned()),
    }
}

fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "rootless" => Ok(Isolation::Rootless),
        "userns" => Ok(Isolation::Userns),
        "privileged" => Ok(Isolation::Privileged),
        _ => Err("KIOPS_ISOLATION should be rootless, userns or privileged".to_owned()),
    }
}

/// A whole number of bytes, with one of Kubernetes' binary or decimal units.
fn quantity(text: &str) -> Result<String, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let units = ["", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
    match digits.parse::<u64>() {
        Ok(1..) if units.contains(&&text[digits.len()..]) => Ok(text.to_owned()),
        _ => Err("KIOPS_STATE_SIZE should be a size as Kubernetes writes it, such as 20Gi".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
    let (name, value) = parts
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| "KIOPS_NODE_SELECTOR should be labels such as disk=ssd, parted by commas".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn tolerations(text: &str) -> Result<Value, String> {
    let value: Option<Value> = serde_json::from_str(text).ok();
    value.filter(|value| value.as_array().is_some_and(|all| all.iter().all(Value::is_object))).ok_or_else(|| {
        "KIOPS_TOLERATIONS should be a JSON list as a Pod has it, such as [{\"key\": \"builds\", \"operator\": \"Exists\"}]"
            .to_owned()
    })
}

fn seconds(name: &'static str) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    between(name, 1, 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn each_isolation_has_the_image_that_suits_it() {
        #[derive(clap::Parser)]
        struct Settings {
            #[command(flatten)]
            kubernetes: Kubernetes,
        }
        let image = |arguments: &[&str]| Settings::parse_from(arguments).kubernetes.builder_image();
        assert!(image(&["kiops"]).ends_with("-rootless"));
        assert!(image(&["kiops", "--isolation", "userns"]).ends_with(&buildkit_version()));
        assert_eq!(image(&["kiops", "--isolation", "privileged", "--builder-image", "x:1"]), "x:1");
    }

    /// What everything else is tried with.
    fn buildkit_version() -> String {
        let versions = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/versions.env");
        let versions = std::fs::read_to_string(versions).unwrap();
        let version = versions.lines().find_map(|line| line.strip_prefix("BUILDKIT_VERSION=")).unwrap();
        format!("v{}", version.trim_matches('"'))
    }

    #[test]
    fn values_are_read_or_refused_by_name() {
        assert_eq!(label(" disk = ssd "), Ok(("disk".into(), "ssd".into())));
        assert_eq!(quantity("20Gi"), Ok("20Gi".into()));
        assert_eq!(isolation("userns"), Ok(Isolation::Userns));
        assert_eq!(runner("kubernetes"), Ok(RunnerKind::Kubernetes));
        assert_eq!(tolerations(r#"[{"key": "x"}]"#).unwrap().as_array().unwrap().len(), 1);
        for (refusal, name) in [
            (quantity("20 Gigs").unwrap_err(), "KIOPS_STATE_SIZE"),
            (quantity("0").unwrap_err(), "KIOPS_STATE_SIZE"),
            (label("disk").unwrap_err(), "KIOPS_NODE_SELECTOR"),
            (label("=x").unwrap_err(), "KIOPS_NODE_SELECTOR"),
            (isolation("root").unwrap_err(), "KIOPS_ISOLATION"),
            (runner("docker").unwrap_err(), "KIOPS_RUNNER"),
            (tolerations("{}").unwrap_err(), "KIOPS_TOLERATIONS"),
            (tolerations("[1]").unwrap_err(), "KIOPS_TOLERATIONS"),
            (seconds("KIOPS_WAIT_CLUSTER_S")("soon").unwrap_err(), "KIOPS_WAIT_CLUSTER_S"),
            (seconds("KIOPS_WAIT_POD_S")("0").unwrap_err(), "KIOPS_WAIT_POD_S"),
        ] {
            assert!(refusal.contains(name) && refusal.contains("should be"), "{refusal}");
        }
    }
}
