//! The cluster by itself: that it runs Pods as a real one does, and that nothing of it is left.

use kiops_rig::{Cluster, Image, Part};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": "rig.invalid/tools:1",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", script],
            }],
        },
    })
}

async fn until(cluster: &Cluster, question: &[&str], answer: &str) {
    for _ in 0..600 {
        if cluster.kubectl(question).await.is_ok_and(|said| said == answer) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let said = cluster.kubectl(question).await;
    panic!(
        "{question:?} is never {answer:?}: {said:?}\n{}",
        cluster.kubectl(&["describe", "pods"]).await.unwrap_or_default()
    );
}

/// What a node needs.
mod needs_root {
    use super::*;

    #[tokio::test]
    async fn a_cluster_runs_pods_and_leaves_nothing() {
        let cluster = Cluster::start().await.unwrap();
        cluster.load(&Image::of_programs("rig.invalid/tools:1", &[]).unwrap()).await.unwrap();

        cluster.apply(&pod("speaks", "git --version && id -u")).await.unwrap();
        until(&cluster, &["get", "pod", "speaks", "-o", "jsonpath={.status.phase}"], "Succeeded").await;
        let said = cluster.kubectl(&["logs", "speaks"]).await.unwrap();
        assert!(said.starts_with("git version") && said.ends_with("\n0"), "{said}");

        // Parts come and go without taking Pods with them.
        cluster.apply(&pod("stays", "sleep 600")).await.unwrap();
        until(&cluster, &["get", "pod", "stays", "-o", "jsonpath={.status.phase}"], "Running").await;
        let process = cluster.first_process("default", "stays", "main").await.unwrap();
        for part in [Part::Kubelet, Part::ApiServer, Part::Containerd] {
            cluster.stop(part).await;
            assert!(Path::new("/proc").join(process.to_string()).exists(), "{part:?}");
            cluster.start_again(part).await.unwrap();
            until(&cluster, &["get", "pod", "stays", "-o", "jsonpath={.status.phase}"], "Running").await;
        }

        // Port-forward ends at a loopback port in the Pod, and the machine can be reached from there.
        let host = cluster.host_address();
        assert!(host.starts_with("198.1"), "{host}");

        let own = format!("kiops-rig-{}-", std::process::id());
        let bridge = format!("kk{}-", std::process::id());
        drop(cluster);
        for _ in 0..50 {
            if !Path::new("/proc").join(process.to_string()).exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!Path::new("/proc").join(process.to_string()).exists(), "a container outlived its cluster");
        let named = |folder: &str, start: &str| -> Vec<String> {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.starts_with(start)).collect()
        };
        assert_eq!(named("/sys/class/net", &bridge), [""; 0]);
        for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            assert_eq!(named(&controller.path().display().to_string(), &own), [""; 0]);
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&own), "{mounts}");
    }
}
