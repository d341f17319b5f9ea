//! What befalls Pods from outside, and what a namespace refuses: each with its own words, an end, and nothing left behind.

use super::*;
use kiops_rig::Line;
use kiops_server::runner::kubernetes::Patience;
use std::path::PathBuf;

const MANIFEST: &str = include_str!("../../../../deploy/kubernetes/builds.yaml");

/// A namespace like the usual one, made from the same manifests, and the server's account in it.
async fn namespace(name: &str) -> PathBuf {
    let cluster = &pods().await.cluster;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), MANIFEST.replace(NAMESPACE, name)).unwrap();
    cluster.kubectl(&["apply", "-f", file.path().to_str().unwrap()]).await.unwrap();
    until_counted(name, "").await;
    let token = cluster.kubectl(&["-n", name, "create", "token", "kiops", "--duration=1h"]).await.unwrap();
    cluster.kubeconfig_for(&token, &format!("{name}.kubeconfig")).unwrap()
}

async fn limit_pods(namespace: &str, pods_at_most: &str) {
    let quota = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": { "name": "kiops-builds", "namespace": namespace },
        "spec": { "hard": { "pods": pods_at_most } },
    });
    let cluster = &pods().await.cluster;
    cluster.apply(&quota).await.unwrap();
    until_counted(namespace, &format!("={pods_at_most}")).await;
}

/// A quota holds when its controller has looked at it, which has other work too.
async fn until_counted(namespace: &str, hard: &str) {
    let counted = format!("--for=jsonpath={{.status.hard.pods}}{hard}");
    let wait = ["-n", namespace, "wait", &counted, "--timeout=180s", "resourcequota/kiops-builds"];
    pods().await.cluster.kubectl(&wait).await.unwrap();
}

async fn left_in(namespace: &str) -> String {
    let question = ["-n", namespace, "get", "pods,secrets", "-l", "kiops.io/build", "-o", "name"];
    pods().await.cluster.kubectl(&question).await.unwrap()
}

/// Waits until the log has a note of this code.
async fn until_note(world: &World, id: &BuildId, code: &str) {
    let since = Instant::now();
    while !world.notes(id).await.iter().any(|note| note == code) {
        assert!(since.elapsed() < PATIENCE, "no note {code}: {:?}", world.notes(id).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_waited_for_and_said_so() {
    let _turn = together().await;
    let kubeconfig = namespace("full").await;
    limit_pods("full", "0").await;
    let in_it = |config: &mut KubernetesConfig| config.namespace = "full".into();
    let world = open_as(Arc::new(Data::new()), &kubeconfig, in_it).await;
    let id = world.start(&world.service_of("FROM alpine:3\nCOPY . /\n").await).await;
    until_note(&world, &id, "cluster_quota").await;
    // There is room, and the build begins by itself.
    limit_pods("full", "5").await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 1), "{}", world.log(&id).await);
    assert_eq!(world.notes(&id).await.iter().filter(|note| *note == "cluster_quota").count(), 1);

    // Whoever waits can be cancelled.
    limit_pods("full", "0").await;
    let id = world.start(&world.service_of("FROM alpine:3\n").await).await;
    until_note(&world, &id, "cluster_quota").await;
    world.builds.cancel(&world.caller, &id).await.unwrap();
    assert_eq!(world.over(&id).await.status, BuildStatus::Cancelled);
    world.close().await;

    // There is none for longer than it may take.
    let world = open_as(Arc::new(Data::new()), &kubeconfig, |config| {
        in_it(config);
        config.patience.capacity = Duration::from_secs(2);
    })
    .await;
    let id = world.start(&world.service_of("FROM alpine:3\n").await).await;
    let row = world.over(&id).await;
    let diagnosis = row.diagnosis.as_ref().unwrap();
    assert_eq!((row.status, diagnosis.code.as_str(), row.attempt), (BuildStatus::Failure, "cluster_quota", 1));
    assert!(diagnosis.arguments["message"].contains("exceeded quota"), "{diagnosis:?}");
    world.released(&id).await;
    assert_eq!(left_in("full").await, "");
}

#[tokio::test]
async fn a_namespace_that_forbids_what_buildkit_needs_says_which_rule() {
    let _turn = together().await;
    let kubeconfig = namespace("strict").await;
    let label = "pod-security.kubernetes.io/enforce=baseline";
    pods().await.cluster.kubectl(&["label", "--overwrite", "namespace", "strict", label]).await.unwrap();
    let world = open_as(Arc::new(Data::new()), &kubeconfig, |config| config.namespace = "strict".into()).await;
    let id = world.start(&world.service_of("FROM alpine:3\n").await).await;
    let row = world.over(&id).await;
    let diagnosis = row.diagnosis.as_ref().unwrap();
    assert_eq!((row.status, diagnosis.code.as_str()), (BuildStatus::Failure, "cluster_policy"));
    assert!(diagnosis.arguments["message"].contains("violates PodSecurity \"baseline:latest\""), "{diagnosis:?}");
    world.released(&id).await;
    assert_eq!(left_in("strict").await, "");
}

#[tokio::test]
async fn a_volume_that_never_comes_ends_the_wait_in_its_own_words() {
    let _turn = together().await;
    let world = open(Arc::new(Data::new()), |config| {
        config.state = Some(StateStorage { class: Some("none-such".into()), size: "1Gi".into() });
        config.patience = Patience { capacity: Duration::from_secs(4), ..Patience::default() };
    })
    .await;
    let service = world.service_of("FROM alpine:3\n").await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    let code = row.diagnosis.as_ref().map(|d| d.code.as_str());
    assert_eq!((row.status, code), (BuildStatus::Failure, Some("waiting_for_volume")), "{}", world.log(&id).await);
    assert!(world.notes(&id).await.contains(&"waiting_for_volume".to_owned()));
    nothing_left(&world).await;
    world.runner.forget(&service).await.unwrap();
}

#[tokio::test]
async fn a_pod_without_a_network_says_what_its_node_says() {
    let _turn = alone().await;
    let world = open(Arc::new(Data::new()), |config| config.patience.quiet = Duration::from_secs(1)).await;
    let none_left = pods().await.cluster.without_addresses().unwrap();
    let id = world.start(&world.service_of("FROM alpine:3\nCOPY . /\n").await).await;
    until_note(&world, &id, "pod_sandbox").await;
    let log = world.log(&id).await;
    assert!(log.contains("no IP addresses available"), "{log}");
    // It is only late when there are some again.
    drop(none_left);
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 1), "{}", world.log(&id).await);
    nothing_left(&world).await;
}

#[tokio::test]
async fn a_volume_of_a_service_that_is_no_more_goes_and_no_other() {
    let _turn = together().await;
    let world = world().await;
    let installation = world.data.path.file_name().unwrap().to_str().unwrap().to_owned();
    let own = world.service_of("FROM alpine:3\n").await;
    let [gone, foreign] = [1, 2].map(|n| ServiceId::from_random([n; ID_LETTERS]));
    let cluster = &pods().await.cluster;
    for (service, installation) in [(&own, &*installation), (&gone, &*installation), (&foreign, "another")] {
        let claim = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": format!("state-{service}"), "namespace": NAMESPACE,
                "labels": { "kiops.io/installation": installation, "kiops.io/service": service.to_string() },
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "none-such",
                "resources": { "requests": { "storage": "1Gi" } },
            },
        });
        cluster.apply(&claim).await.unwrap();
    }
    let world = open(world.close().await, |_| ()).await;
    let name = |service: &ServiceId| format!("persistentvolumeclaim/state-{service}");
    // One that is deleted is there until the cluster has seen that no Pod uses it.
    let without = async |service: &ServiceId| {
        let since = Instant::now();
        loop {
            let question = ["-n", NAMESPACE, "get", "persistentvolumeclaims", "-o", "name"];
            let left = cluster.kubectl(&question).await.unwrap();
            if !left.contains(&name(service)) {
                return left;
            }
            assert!(since.elapsed() < PATIENCE, "{left}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let left = without(&gone).await;
    assert!(left.contains(&name(&own)) && left.contains(&name(&foreign)), "{left}");
    // Another installation's is not for us to take, whoever asks.
    world.runner.forget(&foreign).await.unwrap();
    world.runner.forget(&own).await.unwrap();
    without(&own).await;
    let kept = object("persistentvolumeclaim", &format!("state-{foreign}")).await;
    assert!(kept["metadata"]["deletionTimestamp"].is_null(), "another installation's volume was given back: {kept:#}");
}

#[tokio::test]
async fn a_pod_that_outlives_its_deadline_is_a_timeout() {
    let _turn = together().await;
    let world = world().await;
    let id = begun(&world, "FROM alpine:3\nRUN echo begun; sleep 600\n").await;
    let row = world.row(&id).await;
    let sooner = r#"{"spec":{"activeDeadlineSeconds":1}}"#;
    let cluster = &pods().await.cluster;
    cluster.kubectl(&["-n", NAMESPACE, "patch", "pod", &pod_name(&row), "-p", sooner]).await.unwrap();
    let row = world.over(&id).await;
    let code = row.diagnosis.as_ref().map(|d| d.code.as_str());
    assert_eq!((row.status, code, row.attempt), (BuildStatus::Failure, Some("timeout"), 1), "{}", world.log(&id).await);
    assert!(world.log(&id).await.contains(" begun\n"));
    assert!(world.notes(&id).await.contains(&"pod_deadline".to_owned()));
    nothing_left(&world).await;
}

#[tokio::test]
async fn a_pod_that_fills_its_disk_is_evicted_and_not_tried_again() {
    let _turn = together().await;
    let world = world().await;
    let id = begun(&world, "FROM alpine:3\nRUN echo begun; sleep 600\n").await;
    let name = pod_name(&world.row(&id).await);
    let fill = ["exec", &name, "-c", "build", "--", "fallocate", "--length", "1200M", "/kiops/run/full"];
    pods().await.cluster.kubectl(&[&["-n", NAMESPACE][..], &fill].concat()).await.unwrap();
    let row = world.over(&id).await;
    let code = row.diagnosis.as_ref().map(|d| d.code.as_str());
    assert_eq!(
        (row.status, code, row.attempt),
        (BuildStatus::Failure, Some("pod_disk"), 1),
        "{}",
        world.log(&id).await
    );
    assert!(world.log(&id).await.contains(" begun\n"));
    nothing_left(&world).await;
}

/// The kubelet keeps 1 MiB of a container's log here, in two pieces.
#[tokio::test]
async fn a_log_that_kubernetes_rotates_away_is_whole_here() {
    let _turn = together().await;
    let world = world().await;
    let many = "FROM alpine:3\nRUN for i in $(seq 1 60000); do echo \
                \"line $i of a log that is far longer than what the node keeps of it\"; done\n";
    let id = world.start(&world.service_of(many).await).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.log_verified), (BuildStatus::Success, Some(true)));
    let log = world.log(&id).await;
    let numbers = log.lines().filter_map(|line| line.split_once(" line ")?.1.split(' ').next()?.parse::<u32>().ok());
    assert!(numbers.eq(1..=60_000));
}

/// Whatever stands between server and API server may forget a connection without a word.
#[tokio::test]
async fn an_api_connection_that_goes_silent_is_made_anew_and_nothing_is_lost() {
    let _turn = together().await;
    let cluster = &pods().await.cluster;
    let line = Line::to(cluster.api_port()).await.unwrap();
    let kubeconfig = cluster.kubeconfig_by(&pods().await.kubeconfig, line.port()).unwrap();
    let world = open_as(Arc::new(Data::new()), &kubeconfig, |_| ()).await;
    let id = begun(&world, COUNTING).await;
    world.until_log(&id, " line 5\n").await;
    line.go_silent();
    line.carry_again();
    let row = world.over(&id).await;
    let end = (row.status, row.attempt, row.log_verified);
    assert_eq!(end, (BuildStatus::Success, 1, Some(true)), "{}", world.log(&id).await);
    assert!(counted(&world.log(&id).await).into_iter().eq(1..=100));
    nothing_left(&world).await;

    // Nor does a cancel wait for an answer that never comes.
    let id = begun(&world, "FROM alpine:3\nRUN echo begun; sleep 600\n").await;
    line.go_silent();
    world.builds.cancel(&world.caller, &id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    line.carry_again();
    let row = world.over(&id).await;
    assert_eq!((row.status, row.log_verified), (BuildStatus::Cancelled, Some(true)), "{}", world.log(&id).await);
    nothing_left(&world).await;
}
