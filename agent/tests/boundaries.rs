//! What a build must not see, leave behind, or take: secrets, the machine's network, more than its share.

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::lab;
use kiops_events::event::{AgentEnd, EventKind};
use kiops_events::spec::CgroupSpec;

#[tokio::test]
async fn no_secret_gets_into_the_spool_in_any_disguise() {
    let lab = lab().await;
    let (token, password, other) = ("glpat-To/ken+1<&>", "Registry pass&word", "line-one-of-it\nsecond line of it");
    // What is printed in two pieces stands in the Dockerfile in another spelling.
    let dockerfile = format!(
        "FROM alpine:3 AS plain\n\
         RUN echo raw '{token}'; echo raw '{password}'; printf '\\147lpat-'; sleep 0.3; printf '\\124o/ken+1<&>\\n'\n\
         RUN echo '{token_64} {auth} {url} {json}'; printf '\\163econd line '; sleep 0.2; echo 'of it'; echo 'line-one-of-it' >&2\n\
         RUN echo '{token}' >&2; exit 7\n",
        token_64 = STANDARD.encode(format!("x{token}y")),
        auth = STANDARD.encode(format!("robot:{password}")),
        url = "glpat-To%2Fken%2B1%3C%26%3E Registry+pass%26word",
        json = "glpat-To/ken+1\\u003c\\u0026\\u003e",
    );
    let mut attempt = lab.attempt_of(&dockerfile).await;
    attempt.git_credential("bot", token);
    let auth = STANDARD.encode(format!("robot:{password}"));
    let config = serde_json::json!({"auths": {"registry.example": {"auth": auth}}});
    std::fs::write(attempt.at("docker/config.json"), config.to_string()).unwrap();
    std::fs::write(attempt.at("other"), other).unwrap();
    attempt.spec.files.redact = vec![attempt.at("other")];
    let story = attempt.run().await;

    assert_eq!(story.result().end, AgentEnd::Failure);
    assert!(story.text().contains("exit code: 7"), "{}", story.text());
    let spool = std::fs::read(story.agent.attempt.at("spool")).unwrap();
    let spool = String::from_utf8_lossy(&spool).into_owned();
    let core = |text: &str| STANDARD.encode(text)[2..12].to_owned();
    for secret in [
        token,
        password,
        "line-one-of-it",
        "second line of it",
        "glpat-",
        &auth,
        "%2Fken%2B1",
        "pass%26word",
        "To/ken",
        &core(&format!("x{token}y"))[4..],
    ] {
        assert!(!spool.contains(secret), "{secret} in\n{}", story.text());
        assert!(!story.log.contains(secret), "{secret} in the agent's log");
    }
    assert_eq!(story.lines_of("RUN echo raw"), ["raw ***", "raw ***", "***"]);
    assert_eq!(story.lines_of("exit 7"), ["***"]);
}

/// As root a step has a network of its own, for which the set-up brings all that it takes.
#[tokio::test]
async fn a_step_does_not_reach_the_machines_loopback() {
    let lab = lab().await;
    let (address, port) = lab.registry.address().split_once(':').map(|(a, p)| (a.to_owned(), p.to_owned())).unwrap();
    let dockerfile =
        format!("FROM alpine:3\nRUN nc -w 2 {address} {port} </dev/null 2>/dev/null && echo reached || echo closed\n");
    let story = lab.attempt_of(&dockerfile).await.run().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    if !rustix::process::geteuid().is_root() {
        println!("not as root: steps share the machine's network");
        return;
    }
    assert_eq!(story.note("network_host"), None);
    assert_eq!(story.lines_of("RUN nc").last().unwrap(), "closed");
}

#[tokio::test]
async fn a_profile_limits_the_steps_and_their_usage_is_told() {
    let lab = lab().await;
    let parent = format!("kiops-test-{}/svc", std::process::id());
    let limits = CgroupSpec { parent: parent.clone(), cpu_millicores: 500, memory_bytes: 96 << 20 };
    let with_limits = async |dockerfile: &str| {
        let mut attempt = lab.attempt_of(dockerfile).await;
        attempt.spec.limits.cgroup = Some(limits.clone());
        attempt.run().await
    };
    let usage = |story: &common::Story| -> Vec<(u32, u64, u64, u32)> {
        story
            .events
            .iter()
            .filter_map(|e| match e.kind {
                EventKind::Usage { cpu_millicores, memory_bytes, disk_bytes, oom_kills, .. } => {
                    Some((cpu_millicores, memory_bytes, disk_bytes, oom_kills))
                }
                _ => None,
            })
            .collect()
    };
    // A file that lies there as long as the work takes, and is nothing to export afterwards.
    let busy = "head -c 256m /dev/zero >/filled; timeout 5 sh -c 'while :; do :; done' || true; rm /filled";
    let story = with_limits(&format!("FROM alpine:3\nRUN {busy}\n")).await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    if let Some(note) = story.note("limits_unavailable") {
        assert!(!rustix::process::geteuid().is_root(), "root may write limits: {note:?}");
        println!("limits cannot be written here: {note:?}");
        return;
    }
    let samples = usage(&story);
    assert!(samples.len() >= 2, "{samples:?}");
    let busiest = samples.iter().map(|s| s.0).max().unwrap();
    assert!((250..=650).contains(&busiest), "{samples:?}");
    assert!(samples.iter().all(|s| s.1 > 0 && s.3 == 0), "{samples:?}");
    // Not all of it: the disk is not this build's alone, and others may free something meanwhile.
    assert!(samples.iter().any(|s| s.2 >= 32 << 20), "{samples:?}");

    // `tail` keeps all that it is given: more than there may be.
    let story = with_limits("FROM alpine:3\nRUN head -c 300m /dev/zero | tail -c 300m | wc -c\n").await;
    let samples = usage(&story);
    assert!(samples.last().unwrap().3 > 0, "{samples:?}\n{}", story.text());
    assert!(samples.iter().all(|s| s.1 <= 96 << 20), "{samples:?}");

    for controller in
        ["memory", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "pids", "systemd", "unified", "."]
    {
        for folder in [format!("{parent}/buildkit"), parent.clone(), parent.replace("/svc", "")] {
            let _ = std::fs::remove_dir(format!("/sys/fs/cgroup/{controller}/{folder}"));
        }
    }
}
