//! The product installed as its README says: its image by `make image`, its manifests as they are, in a real cluster.

use super::*;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const PASSWORD: &str = "of the installed server";
const MANIFESTS: [&str; 2] = [
    include_str!("../../../../deploy/kubernetes/builds.yaml"),
    include_str!("../../../../deploy/kubernetes/server.yaml"),
];
/// The name that stands in the manifests.
const IMAGE: &str = "registry.example/kiops:1";

const ENV: &str = "          env:\n";

/// A command of `kubectl` that stays; dropped, it ends.
struct Forward {
    _program: Child,
    /// It says each connection, and would end if nobody could read it.
    _said: Lines<BufReader<ChildStdout>>,
    url: String,
}

/// As README's line does it, to a free port.
async fn forward() -> Forward {
    let mut command = pods().await.cluster.kubectl_command();
    command.args(["-n", "kiops", "port-forward", "service/kiops", ":80"]).kill_on_drop(true).stdout(Stdio::piped());
    let mut program = command.spawn().unwrap();
    let mut said = BufReader::new(program.stdout.take().unwrap()).lines();
    let line = said.next_line().await.unwrap().unwrap();
    let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("{line}")).to_owned();
    Forward { _program: program, _said: said, url: format!("http://{address}") }
}

impl Forward {
    async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Value {
        let mut request = reqwest::Client::new().post(format!("{}/api/v1/{path}", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// The image, built and pushed by the script that people use; from programs that are built already.
async fn make_image(registry: &str, image: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/image.sh");
    let made = Command::new(script)
        .env("IMAGE", image)
        .env("BASE", "docker.io/library/debian:rig")
        .env("KIOPS_DOCKERHUB_MIRROR", registry)
        .env("KIOPS_INSECURE_REGISTRIES", registry)
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(said.starts_with(&format!("{}@sha256:", image.rsplit_once(':').unwrap().0)), "{said}");
}

#[tokio::test]
async fn what_the_manifests_install_builds_in_pods() {
    let _turn = together().await;
    let (furnished, hosts) = (pods().await, hosts().await);
    let cluster = &furnished.cluster;
    let registry = hosts.registry.address();
    hosts.registry.push("library/debian", "rig", &Image::of_programs("debian", &[]).unwrap()).await.unwrap();
    make_image(&registry, &format!("{registry}/kiops:1")).await;
    let seen = registry.replace("127.0.0.1", &cluster.host_address());
    cluster.trust_registry(&seen).unwrap();
    cluster.storage("usual", 2).await.unwrap();
    let usual = "storageclass.kubernetes.io/is-default-class=true";
    cluster.kubectl(&["annotate", "storageclass", "usual", usual]).await.unwrap();

    // What an administrator says about this cluster beside the image's name.
    let told: String = [
        ("KIOPS_ADMIN_PASSWORD", PASSWORD),
        ("KIOPS_BUILDER_IMAGE", furnished.builder_image),
        ("KIOPS_DOCKERHUB_MIRROR", &seen),
        ("KIOPS_INSECURE_REGISTRIES", &seen),
    ]
    .map(|(name, value)| format!("            - name: {name}\n              value: \"{value}\"\n"))
    .concat();
    for manifest in MANIFESTS {
        let manifest = manifest.replace(IMAGE, &format!("{seen}/kiops:1")).replace(ENV, &format!("{ENV}{told}"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), manifest).unwrap();
        cluster.kubectl(&["apply", "-f", file.path().to_str().unwrap()]).await.unwrap();
    }
    let rolled = cluster.kubectl(&["-n", "kiops", "rollout", "status", "deployment/kiops", "--timeout=150s"]).await;
    if let Err(error) = rolled {
        let described = cluster.kubectl(&["-n", "kiops", "describe", "pods"]).await.unwrap_or_default();
        let said = cluster.kubectl(&["-n", "kiops", "logs", "deployment/kiops"]).await.unwrap_or_default();
        panic!("{error:#}\n{described}\n{said}");
    }

    let server = forward().await;
    let session = server.post("sessions", None, json!({ "user": "admin", "password": PASSWORD })).await;
    let token = session["token"].as_str().unwrap();
    let repo = hosts.repo("FROM alpine:3\nRUN --mount=type=cache,target=/c echo from the installed product\n").await;
    let service = json!({
        "name": "installed",
        "source": {
            "kind": "git",
            "url": repo.url().replace("127.0.0.1", &cluster.host_address()),
            "default_branch": "main",
        },
        "registry_config": {
            "kind": "private", "url": seen, "path": "installed", "image_name": "it",
            "username": "anybody", "password": "a-password", "plain_http": true,
        },
        "settings": {
            "dockerfile": { "mode": "auto", "path": null }, "profile": "small", "no_cache": false, "time_limit_s": 600,
        },
    });
    server.post("services", Some(token), service).await;
    let built = Command::new(server_program())
        .args(["build", "start", "--service", "installed", "--branch", "main", "--watch"])
        .env("KIOPS_URL", &server.url)
        .env("KIOPS_TOKEN", token)
        .output()
        .await
        .unwrap();
    let log = String::from_utf8_lossy(&built.stdout).into_owned();
    assert!(built.status.success(), "{log}\n{}", String::from_utf8_lossy(&built.stderr));
    assert!(log.contains(" from the installed product\n"), "{log}");
    assert_eq!(hosts.registry.tags("installed/it").await.unwrap().len(), 1);
    cluster.kubectl(&["delete", "namespace", "kiops", "--wait=false"]).await.unwrap();
}
