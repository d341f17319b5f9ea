//! Builds by the runner `kubernetes` over the rig's double of a cluster: what the measurement of 200 builds stands on. The
//! Kubernetes client, the port-forward and the relays are real; what a cluster does is proven on one (`pods`).

mod builds_rig;

use builds_rig::*;
use kiops_app::model::*;
use kiops_events::event::{AgentEnd, AgentResult};
use kiops_events::wire::{SPOOL_MAGIC, put_record};
use kiops_events::{AgentEvent, EventKind, LineText, Phase, Place};
use kiops_rig::KubeDouble;
use kiops_server::git::AddressPolicy;
use kiops_server::runner::kubernetes::{Isolation, KubernetesConfig, KubernetesRunner, Patience, client};
use std::path::Path;
use std::sync::Arc;

fn config(installation: &str) -> KubernetesConfig {
    KubernetesConfig {
        namespace: "builds".into(),
        installation: installation.into(),
        builder_image: "rig.invalid/buildkit:1".into(),
        own_image: "rig.invalid/kiops:1".into(),
        isolation: Isolation::Rootless,
        image_pull_secrets: Vec::new(),
        node_selector: Default::default(),
        tolerations: Vec::new(),
        platform: None,
        proxies: Default::default(),
        authorities: None,
        dockerhub_mirrors: Vec::new(),
        insecure_registries: Vec::new(),
        addresses: AddressPolicy { loopback: true },
        state: None,
        patience: Patience::default(),
    }
}

/// A spool as a build leaves it: a phase each 100 ms, two lines, a result with this digest.
fn record(spool: &Path, digest: &str) {
    let text = "first\nsecond".to_owned();
    let lines = LineText { place: Place::Phase(Phase::Checkout), first: 1, at_ms: 0, text, cut: vec![] };
    let result = AgentResult {
        end: AgentEnd::Success,
        exit_code: Some(0),
        digest: Some(digest.to_owned()),
        code: None,
        args: Default::default(),
        left_out_bytes: 0,
        push_began: true,
        count: 0,
        hash: String::new(),
    };
    let entered = |phase| EventKind::PhaseEntered { phase };
    let kinds = [
        entered(Phase::Checkout),
        EventKind::Lines(lines),
        entered(Phase::Daemon),
        entered(Phase::Build),
        entered(Phase::Push),
        EventKind::Result(result),
    ];
    let mut bytes = SPOOL_MAGIC.to_vec();
    bytes.extend_from_slice(&0i64.to_le_bytes());
    for (seq, kind) in (1u64..).zip(kinds) {
        let event = AgentEvent { attempt: 7, seq, offset_ms: 100 * seq as i64, kind };
        put_record(&mut bytes, &serde_json::to_vec(&event).unwrap());
    }
    std::fs::write(spool, bytes).unwrap();
}

/// A world whose builds are replayed, each with the base image's digest.
async fn world(double: &KubeDouble, builds_at_once: u32) -> World {
    let data = Arc::new(Data::new());
    let installation = data.path.file_name().unwrap().to_str().unwrap().to_owned();
    let client = client(Some(double.kubeconfig())).await.unwrap();
    let runner = Some(Arc::new(KubernetesRunner::new(Arc::new(client.into()), config(&installation))) as _);
    World::open(data, Wishes { runner, builds_at_once, ..Wishes::default() }).await
}

/// A service whose repository holds the image that its builds are said to push.
async fn service(world: &World) -> ServiceId {
    let registry = world.registry_config();
    world.hosts.registry.push_base_image(&format!("test/{}", registry.image_name), "1").await.unwrap();
    let repo = world.hosts.repo("FROM busybox:1\n").await;
    world.service_with(&repo, BuildSettings::default(), registry, Credentials::default()).await
}

#[tokio::test]
async fn builds_in_the_double_are_followed_whole_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let digest = hosts().await.registry.manifest("library/busybox", "1").await.unwrap().unwrap().digest;
    record(&spool, &digest);
    let double = KubeDouble::start(&agent_program(), &spool).await.unwrap();
    let world = world(&double, 3).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.start(&service(&world).await).await);
    }
    for id in &ids {
        let row = world.over(id).await;
        assert_eq!((row.status, row.attempt), (BuildStatus::Success, 1), "{}", world.log(id).await);
        let detail = world.detail(id).await;
        assert_eq!(detail.log_verified, Some(true));
        assert!(detail.head.image_size_bytes.is_some_and(|bytes| bytes > 0));
        // Each line says when it was written.
        let log = world.log(id).await;
        let written = |line: &str| {
            let stamp = log.lines().find_map(|row| row.split_once(line)?.1.strip_prefix(" @"));
            stamp.unwrap_or_else(|| panic!("no {line:?} in\n{log}")).parse::<i64>().unwrap()
        };
        let started = row.started_at.unwrap();
        assert!(started <= written("first") && written("second") <= row.finished_at.unwrap(), "{log}");
        world.released(id).await;
    }
    assert_eq!(world.runner.list().await.unwrap(), []);
}
