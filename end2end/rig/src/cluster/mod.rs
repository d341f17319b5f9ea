//! A Kubernetes of one node: etcd, API server, controller manager, scheduler, kubelet and containerd, all real.
//!
//! Its processes live in a mount namespace and in control groups of their own ([`Den`]), named after the process that owns
//! them: they end with it, and a later cluster ends what a killed one has left. With the last of them go all mounts and all
//! network namespaces.

mod den;
mod furnished;
mod guard;
mod image;
mod net;

pub use furnished::Furnished;
pub use image::Image;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::home::{Server, cache, free_port, pinned, scratch_folder};
use crate::process::{Daemon, output};
use den::Den;
use guard::Guard;
use net::Net;
pub use net::TakenAddresses;

/// Every request with it may do everything.
const ADMIN: &str = "rig-admin";
const POD_LOG_LIMIT: &str = "1Mi";

/// A part that a test may stop and start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    ApiServer,
    Kubelet,
    Containerd,
}

pub struct Cluster {
    // In the order in which they end.
    parts: Mutex<Vec<(&'static str, Daemon)>>,
    doors: Mutex<Vec<Server>>,
    net: Net,
    den: Den,
    folder: TempDir,
    _guard: Guard,
    program: PathBuf,
    ports: Ports,
}

struct Ports {
    etcd: u16,
    etcd_peers: u16,
    api: u16,
    controllers: u16,
    scheduler: u16,
    kubelet: u16,
}

impl Cluster {
    /// Ready when its node is.
    pub async fn start() -> Result<Self> {
        if !rustix::process::getuid().is_root() {
            bail!("a cluster's node needs root");
        }
        let program = cache()?.join("tools").join(format!("kubernetes-{}", pinned("KUBERNETES_VERSION")?)).join("kube");
        if !program.exists() {
            bail!("{} is missing: run `scripts/setup/kubernetes.sh`", program.display());
        }
        let folder = scratch_folder()?;
        let net = Net::new().await?;
        let den = Den::start(folder.path()).await?;
        let guard = Guard::start(net.bridge(), folder.path().to_owned(), den.folders()).context("who cleans up")?;
        let ports = Ports {
            etcd: free_port(),
            etcd_peers: free_port(),
            api: free_port(),
            controllers: free_port(),
            scheduler: free_port(),
            kubelet: free_port(),
        };
        let cluster =
            Self { parts: Mutex::default(), doors: Mutex::default(), net, den, folder, _guard: guard, program, ports };
        cluster.keep(cluster.net.let_in_to_api(cluster.ports.api).await?);
        cluster.write_files().await?;
        for part in ["etcd", "containerd", "kube-apiserver"] {
            cluster.launch(part).await?;
        }
        cluster.wait_for("the API server", &["get", "--raw", "/readyz"], "ok").await?;
        for part in ["kube-controller-manager", "kube-scheduler"] {
            cluster.launch(part).await?;
        }
        cluster.load(&image::pause()?).await?;
        cluster.launch("kubelet").await?;
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        cluster.wait_for("the node", &["get", "node", "localhost", "-o", ready], "True").await?;
        // Pods wait for their namespace's own account.
        cluster
            .wait_for("accounts", &["get", "serviceaccount", "default", "-o", "name"], "serviceaccount/default")
            .await?;
        Ok(cluster)
    }

    /// Of the administrator. Tests of the product use one with the rights that the product's manifests give.
    pub fn kubeconfig(&self) -> PathBuf {
        self.at("admin.kubeconfig")
    }

    /// The same account, by another way to the API server: a server on this port of the loopback.
    pub fn kubeconfig_by(&self, kubeconfig: &Path, port: u16) -> Result<PathBuf> {
        let mut known: Value = serde_json::from_slice(&fs::read(kubeconfig)?)?;
        known["clusters"][0]["cluster"]["server"] = format!("https://127.0.0.1:{port}").into();
        let path = self.at(&format!("by-{port}.kubeconfig"));
        fs::write(&path, known.to_string())?;
        Ok(path)
    }

    /// Where the API server listens on this machine's loopback.
    pub fn api_port(&self) -> u16 {
        self.ports.api
    }

    /// A kubeconfig for another token, such as a service account's.
    pub fn kubeconfig_for(&self, token: &str, file: &str) -> Result<PathBuf> {
        let path = self.at(file);
        fs::write(&path, self.kubeconfig_of(token).to_string())?;
        Ok(path)
    }

    /// Where Pods reach this machine; a server that listens there is not reachable from any other.
    pub fn host_address(&self) -> String {
        self.net.host()
    }

    /// Lets Pods reach a server of this machine's loopback at the host address, under the same port.
    pub async fn let_in(&self, port: u16) -> Result<()> {
        self.keep(self.net.let_in(port).await?);
        Ok(())
    }

    fn keep(&self, door: Server) {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).push(door);
    }

    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        self.ask(&mut command).args(arguments);
        output(command).await
    }

    /// For one that stays.
    pub fn kubectl_command(&self) -> tokio::process::Command {
        let mut command = Command::new(&self.program);
        self.ask(&mut command);
        command.into()
    }

    fn ask<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.arg("kubectl").arg("--kubeconfig").arg(self.kubeconfig());
        command.env("KUBECACHEDIR", self.at("kubectl"))
    }

    pub async fn apply(&self, manifest: &Value) -> Result<String> {
        // One of its own: several may be applied at once.
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), manifest.to_string())?;
        self.kubectl(&["apply", "-f", &file.path().display().to_string()]).await
    }

    /// Storage of a class, in pieces that say to have 20 GiB and belong to the user of build Pods. Nothing provisions more.
    pub async fn storage(&self, class: &str, pieces: usize) -> Result<()> {
        let storage_class = json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": { "name": class },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        });
        let mut objects = vec![storage_class];
        for piece in 0..pieces {
            let path = self.at("volumes").join(format!("{class}-{piece}"));
            fs::create_dir_all(&path)?;
            std::os::unix::fs::chown(&path, Some(1000), Some(1000))?;
            objects.push(json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": { "name": format!("{class}-{piece}") },
                "spec": {
                    "capacity": { "storage": "20Gi" },
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": class,
                    "local": { "path": path },
                    "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                        { "key": "kubernetes.io/hostname", "operator": "In", "values": ["localhost"] },
                    ] }] } },
                },
            }));
        }
        self.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects })).await?;
        Ok(())
    }

    /// Puts an image on the node.
    pub async fn load(&self, image: &Image) -> Result<()> {
        let archive = self.at("image.tar");
        image.write_archive(&archive)?;
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.at("containerd.sock")).args(["-n", "k8s.io", "images", "import", "--digests"]);
        command.arg(&archive);
        // Its own file of progress lies in the den.
        output(self.den.inside(command)).await.with_context(|| format!("the image {}", image.name()))?;
        fs::remove_file(&archive)?;
        Ok(())
    }

    /// The network plugin has no address for another Pod, for as long as the result lives.
    pub fn without_addresses(&self) -> Result<TakenAddresses> {
        TakenAddresses::all(&self.net, &self.at("addresses"))
    }

    /// Killed, as a machine's failure would.
    pub async fn stop(&self, part: Part) {
        let name = part.name();
        self.parts().retain(|(known, _)| *known != name);
    }

    pub async fn start_again(&self, part: Part) -> Result<()> {
        self.launch(part.name()).await
    }

    /// The process on this machine that is a container's first one, for a test that kills it.
    pub async fn first_process(&self, namespace: &str, pod: &str, container: &str) -> Result<u32> {
        self.first_of(namespace, pod, container, |_| true).await
    }

    /// … of this program.
    pub async fn first_process_called(&self, namespace: &str, pod: &str, container: &str, name: &str) -> Result<u32> {
        let called = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        self.first_of(namespace, pod, container, called).await
    }

    async fn first_of(&self, namespace: &str, pod: &str, container: &str, wanted: impl Fn(u32) -> bool) -> Result<u32> {
        let path = format!(r#"jsonpath={{.status.containerStatuses[?(@.name=="{container}")].containerID}}"#);
        let id = self.kubectl(&["-n", namespace, "get", "pod", pod, "-o", &path]).await?;
        let id = id.strip_prefix("containerd://").context("the container does not run")?.to_owned();
        let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut inside: Vec<u32> = processes
            .filter(|pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&id)))
            .collect();
        // Numbers go round: who started first is asked, not who has the lowest.
        inside.sort_by_key(|pid| started(*pid).unwrap_or(u64::MAX));
        inside.into_iter().find(|pid| wanted(*pid)).context("the container has no such process")
    }

    fn parts(&self) -> MutexGuard<'_, Vec<(&'static str, Daemon)>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn wait_for(&self, what: &str, question: &[&str], answer: &str) -> Result<()> {
        let mut last = String::new();
        for _ in 0..600 {
            match self.kubectl(question).await {
                Ok(said) if said == answer => return Ok(()),
                Ok(said) => last = said,
                Err(error) => last = format!("{error:#}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        bail!("{what} did not become ready: {last}\n{}", self.log_ends())
    }

    fn log_ends(&self) -> String {
        let end = |name: &str| {
            let text = fs::read_to_string(self.at(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("== {name}\n{}\n", lines[lines.len().saturating_sub(8)..].join("\n"))
        };
        self.parts().iter().map(|(name, _)| end(name)).collect()
    }

    async fn launch(&self, part: &'static str) -> Result<()> {
        let mut command = match part {
            "containerd" => Command::new("containerd"),
            _ => {
                let mut command = Command::new(&self.program);
                command.arg(part);
                command
            }
        };
        command.args(self.arguments(part));
        let log = self.at(&format!("{part}.log"));
        let daemon = Daemon::start(self.den.inside(command), Signal::KILL, &log).await?;
        // What was started last ends first.
        self.parts().insert(0, (part, daemon));
        Ok(())
    }

    fn arguments(&self, part: &str) -> Vec<String> {
        let Ports { etcd, etcd_peers, api, controllers, scheduler, .. } = self.ports;
        let at = |name: &str| self.at(name).display().to_string();
        let admin = at("admin.kubeconfig");
        let pairs: Vec<(&str, String)> = match part {
            "etcd" => vec![
                ("data-dir", at("etcd")),
                ("listen-client-urls", format!("http://127.0.0.1:{etcd}")),
                ("advertise-client-urls", format!("http://127.0.0.1:{etcd}")),
                ("listen-peer-urls", format!("http://127.0.0.1:{etcd_peers}")),
                ("initial-advertise-peer-urls", format!("http://127.0.0.1:{etcd_peers}")),
                ("initial-cluster", format!("default=http://127.0.0.1:{etcd_peers}")),
                ("unsafe-no-fsync", "true".to_owned()),
                ("log-level", "warn".to_owned()),
            ],
            "containerd" => vec![("config", at("containerd.toml"))],
            "kube-apiserver" => vec![
                ("etcd-servers", format!("http://127.0.0.1:{etcd}")),
                ("bind-address", "127.0.0.1".to_owned()),
                ("advertise-address", self.net.host()),
                ("secure-port", api.to_string()),
                ("cert-dir", at("api")),
                ("token-auth-file", at("tokens.csv")),
                ("authorization-mode", "RBAC".to_owned()),
                ("allow-privileged", "true".to_owned()),
                ("service-account-issuer", "https://rig.invalid".to_owned()),
                ("service-account-key-file", at("accounts.key")),
                ("service-account-signing-key-file", at("accounts.key")),
                ("service-cluster-ip-range", self.net.services()),
                ("endpoint-reconciler-type", "none".to_owned()),
                ("kubelet-preferred-address-types", "Hostname".to_owned()),
            ],
            "kube-controller-manager" => vec![
                ("kubeconfig", admin.clone()),
                ("authentication-kubeconfig", admin.clone()),
                ("authorization-kubeconfig", admin),
                ("leader-elect", "false".to_owned()),
                ("bind-address", "127.0.0.1".to_owned()),
                ("secure-port", controllers.to_string()),
                ("cert-dir", at("controllers")),
                ("service-account-private-key-file", at("accounts.key")),
                ("root-ca-file", at("api/apiserver.crt")),
            ],
            "kube-scheduler" => vec![
                ("kubeconfig", admin.clone()),
                ("authentication-kubeconfig", admin.clone()),
                ("authorization-kubeconfig", admin),
                ("leader-elect", "false".to_owned()),
                ("bind-address", "127.0.0.1".to_owned()),
                ("secure-port", scheduler.to_string()),
                ("cert-dir", at("scheduler")),
            ],
            "kubelet" => vec![
                ("kubeconfig", admin),
                ("config", at("kubelet.json")),
                ("hostname-override", "localhost".to_owned()),
                ("root-dir", at("kubelet")),
                ("cert-dir", at("kubelet-pki")),
                ("node-ip", self.net.host()),
            ],
            other => unreachable!("no part is called {other}"),
        };
        pairs.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
    }

    async fn write_files(&self) -> Result<()> {
        let write = |name: &str, text: String| fs::write(self.at(name), text).context("a file of the cluster");
        let mut key = Command::new("openssl");
        key.args(["genrsa", "-out"]).arg(self.at("accounts.key")).arg("2048");
        output(key).await?;
        write("tokens.csv", format!("{ADMIN},{ADMIN},{ADMIN},system:masters\n"))?;
        write("admin.kubeconfig", self.kubeconfig_of(ADMIN).to_string())?;
        write("kubelet.json", self.kubelet().to_string())?;
        write("containerd.toml", self.containerd())?;
        fs::create_dir_all(self.at("cni"))?;
        write("cni/rig.conflist", self.net.configuration(&self.at("addresses")).to_string())?;
        Ok(())
    }

    /// JSON is YAML.
    fn kubeconfig_of(&self, token: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "rig", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.ports.api),
                "certificate-authority": self.at("api/apiserver.crt"),
            } }],
            "users": [{ "name": "rig", "user": { "token": token } }],
            "contexts": [{ "name": "rig", "context": { "cluster": "rig", "user": "rig" } }],
            "current-context": "rig",
        })
    }

    fn kubelet(&self) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": self.ports.kubelet,
            "healthzPort": 0,
            "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
            "authorization": { "mode": "AlwaysAllow" },
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.den.control_group(),
            "cgroupsPerQOS": true,
            "enforceNodeAllocatable": [],
            "failCgroupV1": false,
            "failSwapOn": false,
            "containerLogMaxSize": POD_LOG_LIMIT,
            "containerLogMaxFiles": 2,
            "containerLogMonitorInterval": "3s",
            "containerRuntimeEndpoint": format!("unix://{}", self.at("containerd.sock").display()),
            "podLogsDir": self.at("pod-logs"),
            "volumePluginDir": self.at("volume-plugins"),
            "resolvConf": "",
            "registryPullQPS": 0,
            "serializeImagePulls": false,
            "clusterDNS": [self.net.host()],
            // The disk is this machine's, and how full it is is not the rig's business.
            "evictionHard": { "memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
            "imageGCHighThresholdPercent": 100,
            "syncFrequency": "2s",
            "fileCheckFrequency": "1h",
            "housekeepingInterval": "1s",
            "nodeStatusUpdateFrequency": "2s",
            "shutdownGracePeriod": "0s",
        })
    }

    fn containerd(&self) -> String {
        let at = |name: &str| self.at(name).display().to_string();
        format!(
            r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  # Where this machine does not let anybody be spared more than it is itself.
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{hosts}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#,
            root = at("containerd"),
            state = at("containerd-state"),
            socket = at("containerd.sock"),
            pause = image::PAUSE,
            cni = at("cni"),
            hosts = at("hosts"),
        )
    }

    /// Lets the node pull from a registry over plain HTTP.
    pub fn trust_registry(&self, address: &str) -> Result<()> {
        let folder = self.at("hosts").join(address);
        fs::create_dir_all(&folder)?;
        let text = format!("[host.\"http://{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
        fs::write(folder.join("hosts.toml"), text)?;
        Ok(())
    }
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::Kubelet => "kubelet",
            Self::Containerd => "containerd",
        }
    }
}

/// When a process started, in the kernel's ticks.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
