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
    world.released(&id).await;
    world.close().await;

    // There is none for longer than it may take.
    let world = open_as(Arc::new(Data::new()), &kubeconfig, |config| {
        in_it(config);
        config.patience.capacity = Duration::from_secs(2);
    })
    .await;
    ends_for_want_of_quota(&world).await;
    world.close().await;

    // The same where not even its Secret has room.
    let quota = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": { "name": "secrets", "namespace": "full" },
        "spec": { "hard": { "count/secrets": "0" } },
    });
    let cluster = &pods().await.cluster;
    cluster.apply(&quota).await.unwrap();
    let counted = "--for=jsonpath={.status.hard.count/secrets}=0";
    cluster.kubectl(&["-n", "full", "wait", counted, "--timeout=180s", "resourcequota/secrets"]).await.unwrap();
    let world = open_as(Arc::new(Data::new()), &kubeconfig, |config| {
        in_it(config);
        let short = Duration::from_secs(1);
        config.patience =
            Patience { capacity: short, image: short, container: short, starting: short, ..config.patience };
    })
    .await;
    ends_for_want_of_quota(&world).await;
    assert_eq!(left_in("full").await, "");
}

async fn ends_for_want_of_quota(world: &World) {
    let id = world.start(&world.service_of("FROM alpine:3\n").await).await;
    let row = world.over(&id).await;
    let diagnosis = row.diagnosis.as_ref().unwrap();
    assert_eq!((row.status, diagnosis.code.as_str(), row.attempt), (BuildStatus::Failure, "cluster_quota", 1));
    assert!(diagnosis.arguments["message"].contains("exceeded quota"), "{diagnosis:?}");
    assert!(world.notes(&id).await.iter().any(|note| note == "cluster_quota"));
    world.released(&id).await;
}

#[tokio::test]
async fn a_kubeconfig_that_is_mended_while_builds_wait_is_enough() {
    let _turn = together().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("of-the-cluster");
    std::fs::write(&kubeconfig, "{ not yaml").unwrap();
    let world = open_as(Arc::new(Data::new()), &kubeconfig, |_| ()).await;
    let id = world.start(&world.service_of("FROM alpine:3\nCOPY . /\n").await).await;
    until_note(&world, &id, "cluster_away").await;
    let log = world.log(&id).await;
    assert!(log.contains("KIOPS_KUBECONFIG") && log.contains("of-the-cluster"), "{log}");
    std::fs::copy(&pods().await.kubeconfig, &kubeconfig).unwrap();
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 1), "{}", world.log(&id).await);
    nothing_left(&world).await;
}

/// An API server that does not answer, until a build is given up, and cancelled ones in between.
#[tokio::test]
async fn a_cluster_that_stays_away_ends_a_build_after_its_time() {
    let _turn = together().await;
    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("nobody");
    let text = std::fs::read_to_string(&pods().await.kubeconfig).unwrap();
    let mut kubeconfig: serde_json::Value = serde_json::from_str(&text).unwrap();
    kubeconfig["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1".into();
    std::fs::write(&nobody, kubeconfig.to_string()).unwrap();
    let limit = |config: &mut KubernetesConfig| config.patience.absence = Duration::from_secs(12);
    let world = open_as(Arc::new(Data::new()), &nobody, limit).await;
    let id = world.start(&world.service_of("FROM alpine:3\n").await).await;
    until_note(&world, &id, "cluster_away").await;
    let other = world.start(&world.service_of("FROM alpine:3\n").await).await;
    until_note(&world, &other, "cluster_away").await;
    cancelled_at_once(&world, &other).await;
    let row = world.over(&id).await;
    // Once more, as after every trouble that may pass.
    assert_eq!((row.status, row.attempt), (BuildStatus::Failure, 2), "{}", world.log(&id).await);
    let diagnosis = row.diagnosis.unwrap();
    assert_eq!((diagnosis.code.as_str(), diagnosis.group.as_str()), ("cluster_away", "infrastructure"));
}

/// The rig's containerd is too old for it, as that of many a cluster is.
#[tokio::test]
async fn a_node_that_can_give_no_user_namespace_says_so_and_builds_nothing() {
    let _turn = together().await;
    let world = open(Arc::new(Data::new()), |config| {
        config.isolation = Isolation::Userns;
        config.patience.quiet = Duration::from_secs(1);
        config.patience.starting = Duration::from_secs(5);
    })
    .await;
    let id = world.start(&world.service_of("FROM alpine:3\n").await).await;
    let row = world.over(&id).await;
    let diagnosis = row.diagnosis.as_ref().unwrap();
    assert_eq!(
        (row.status, diagnosis.code.as_str()),
        (BuildStatus::Failure, "pod_sandbox"),
        "{}",
        world.log(&id).await
    );
    assert!(diagnosis.arguments["message"].contains("user namespaces"), "{diagnosis:?}");
    assert!(world.notes(&id).await.contains(&"pod_sandbox".to_owned()));
    nothing_left(&world).await;
}

#[tokio::test]
async fn an_image_without_the_agent_is_told_by_its_container() {
    let _turn = together().await;
    // BuildKit's image in place of the product's.
    let builder = pods().await.builder_image;
    let world = open(Arc::new(Data::new()), |config| config.own_image = builder.into()).await;
    let id = world.start(&world.service_of("FROM alpine:3\n").await).await;
    let row = world.over(&id).await;
    let diagnosis = row.diagnosis.as_ref().unwrap();
    assert_eq!(
        (row.status, diagnosis.code.as_str()),
        (BuildStatus::Failure, "container_start"),
        "{}",
        world.log(&id).await
    );
    assert!(diagnosis.arguments["message"].contains("kiops-agent"), "{diagnosis:?}");
    nothing_left(&world).await;
}

#[tokio::test]
async fn a_login_that_is_no_longer_valid_in_mid_build_loses_nothing() {
    let _turn = together().await;
    let kubeconfig = namespace("expired").await;
    let in_it = |config: &mut KubernetesConfig| config.namespace = "expired".into();
    let world = open_as(Arc::new(Data::new()), &kubeconfig, in_it).await;
    let id = world.begun(&COUNTING.replace("sleep 0.05", "sleep 0.4")).await;
    let data = world.close().await;
    let cluster = &pods().await.cluster;
    cluster.kubectl(&["-n", "expired", "delete", "serviceaccount", "kiops"]).await.unwrap();
    // The API server knows a token that was good for ten seconds more.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let world = open_as(data, &kubeconfig, in_it).await;
    until_note(&world, &id, "cluster_login").await;
    let data = world.close().await;
    // An account that is made anew has tokens of its own.
    let world = open_as(data, &namespace("expired").await, in_it).await;
    let row = world.over(&id).await;
    let end = (row.status, row.attempt, row.log_verified);
    assert_eq!(end, (BuildStatus::Success, 1, Some(true)), "{}", world.log(&id).await);
    assert_eq!(world.counted(&id, 1).await, all_lines());
    world.released(&id).await;
    assert_eq!(left_in("expired").await, "");
}

/// Beside rights and quotas, which have words of their own.
#[tokio::test]
async fn what_a_namespace_refuses_is_told_in_the_clusters_own_words() {
    let _turn = together().await;
    let cluster = &pods().await.cluster;
    let kubeconfig = namespace("narrow").await;
    let limit = json!({
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": { "name": "narrow", "namespace": "narrow" },
        "spec": { "limits": [{ "type": "Container", "max": { "memory": "512Mi" } }] },
    });
    cluster.apply(&limit).await.unwrap();
    let world = open_as(Arc::new(Data::new()), &kubeconfig, |config| config.namespace = "narrow".into()).await;
    let service = world.service_of("FROM alpine:3\n").await;
    let refused = async || {
        let id = world.start(&service).await;
        let row = world.over(&id).await;
        assert_eq!((row.status, row.attempt), (BuildStatus::Failure, 1), "{}", world.log(&id).await);
        row.diagnosis.unwrap()
    };
    let diagnosis = refused().await;
    assert_eq!(diagnosis.code, "cluster_refused");
    assert!(diagnosis.arguments["message"].contains("maximum memory usage per Container is 512Mi"), "{diagnosis:?}");

    // It is on its way out, and what gives the server its rights holds that up.
    let hold = async |finalizers: &str| {
        for object in ["serviceaccount/kiops", "role/kiops", "rolebinding/kiops"] {
            let patch = format!(r#"{{"metadata":{{"finalizers":{finalizers}}}}}"#);
            cluster.kubectl(&["-n", "narrow", "patch", object, "--type=merge", "-p", &patch]).await.unwrap();
        }
    };
    hold(r#"["kiops.io/held"]"#).await;
    cluster.kubectl(&["delete", "namespace", "narrow", "--wait=false"]).await.unwrap();
    let diagnosis = refused().await;
    assert_eq!(diagnosis.code, "cluster_namespace", "{diagnosis:?}");
    hold("null").await;
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
async fn a_build_whose_volume_never_comes_goes_on_without_it_and_says_what_is_lost() {
    let _turn = together().await;
    let world = open(Arc::new(Data::new()), |config| {
        config.state = Some(StateStorage { class: Some("none-such".into()), size: "1Gi".into() });
        config.patience = Patience { capacity: Duration::from_secs(4), ..Patience::default() };
    })
    .await;
    let service = world.service_of("FROM alpine:3\nRUN --mount=type=cache,target=/kept date >/kept/date\n").await;
    let id = world.start(&service).await;
    let row = world.over(&id).await;
    assert_eq!((row.status, row.attempt), (BuildStatus::Success, 2), "{}", world.log(&id).await);
    let notes = world.notes(&id).await;
    for code in ["waiting_for_volume", "without_volume", "retried", "cache_mounts_empty"] {
        assert!(notes.iter().any(|note| note == code), "no {code}: {notes:?}");
    }
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
    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 600\n").await;
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

/// More than the volume may have.
async fn fill(world: &World, id: &BuildId, folder: &str) {
    let (name, file) = (pod_name(&world.row(id).await), format!("/kiops/{folder}/full"));
    let fill = ["-n", NAMESPACE, "exec", &name, "-c", "build", "--", "fallocate", "--length", "1200M", &file];
    pods().await.cluster.kubectl(&fill).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_fills_its_disk_is_evicted_and_a_larger_size_has_more() {
    let _turn = together().await;
    let mut profiles = Profiles::default();
    let size = |memory_gib: u64, disk_gib: u64| ProfileSize {
        cpu_millicores: 1_000,
        memory_bytes: memory_gib << 30,
        disk_bytes: disk_gib << 30,
    };
    profiles.set(Profile::Medium, size(2, 1));
    profiles.set(Profile::Large, size(3, 4));
    let world = InPods.world_with(Wishes { profiles, ..Wishes::default() }).await;
    let dockerfile = "FROM alpine:3\nRUN echo begun; sleep 600\n";

    let id = world.start(&service_in(&world, dockerfile, Profile::Medium).await).await;
    world.until_log(&id, " begun\n").await;
    fill(&world, &id, "checkout").await;
    let row = world.over(&id).await;
    let diagnosis = row.diagnosis.as_ref().unwrap();
    let log = world.log(&id).await;
    assert_eq!((row.status, diagnosis.code.as_str(), row.attempt), (BuildStatus::Failure, "pod_disk", 1), "{log}");
    assert_eq!(diagnosis.arguments["larger"], "large");
    assert!(log.contains(" begun\n"));

    // Where nobody chose the size, it is taken at once.
    let id = world.start(&service_in(&world, dockerfile, Profile::Auto).await).await;
    world.until_log(&id, " begun\n").await;
    fill(&world, &id, "checkout").await;
    world.until(&id, "built with more", |row| row.attempt == 2 && row.status == BuildStatus::Building).await;
    let row = cancelled_at_once(&world, &id).await;
    assert_eq!(row.snapshot.resolved_profile, Profile::Large);
    assert!(world.notes(&id).await.contains(&"profile_larger_disk".to_owned()));
    nothing_left(&world).await;
}

/// As one that a node has no more room for: of this volume a larger size has no more.
#[tokio::test]
async fn a_pod_that_is_evicted_is_tried_again() {
    let _turn = together().await;
    let world = world().await;
    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 600\n").await;
    fill(&world, &id, "run").await;
    world.until(&id, "tried again", |row| row.attempt == 2 && row.status == BuildStatus::Building).await;
    cancelled_at_once(&world, &id).await;
    assert!(world.notes(&id).await.contains(&"pod_evicted".to_owned()));
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
    let id = world.begun(COUNTING).await;
    world.until_log(&id, " line 5\n").await;
    line.go_silent();
    line.carry_again();
    let row = world.over(&id).await;
    let end = (row.status, row.attempt, row.log_verified);
    assert_eq!(end, (BuildStatus::Success, 1, Some(true)), "{}", world.log(&id).await);
    assert_eq!(world.counted(&id, 1).await, all_lines());
    nothing_left(&world).await;

    // Nor does a cancel wait for an answer that never comes.
    let id = world.begun("FROM alpine:3\nRUN echo begun; sleep 600\n").await;
    line.go_silent();
    world.builds.cancel(&world.caller, &id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    line.carry_again();
    let row = world.over(&id).await;
    assert_eq!((row.status, row.log_verified), (BuildStatus::Cancelled, Some(true)), "{}", world.log(&id).await);
    nothing_left(&world).await;
}
