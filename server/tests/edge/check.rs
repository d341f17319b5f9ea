//! The self-test of a server on one machine, as it is asked for by HTTP, by a form and by the program.

use crate::builds_rig::{agent_program, hosts};
use crate::support::*;
use kiops_server::config::Config;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

fn programs(config: &mut Config) {
    let bins = kiops_rig::buildkit_bins().unwrap();
    config.agent = Some(agent_program());
    config.buildkitd = Some(bins.buildkitd.clone());
    config.buildctl = Some(bins.buildctl.clone());
}

/// Outcome by name; every finding has its sentences.
fn outcomes(report: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().all(|f| !text(&f["title"]).is_empty() && !text(&f["message"]).is_empty()), "{report:#}");
    findings.iter().map(|f| (text(&f["name"]), text(&f["outcome"]))).collect()
}

#[tokio::test]
async fn a_check_tries_buildkit_out_and_is_kept() {
    let server = TestServer::with(programs).await;
    // The registry of a service is one that builds are to reach.
    let host = hosts().await.registry.address();
    let mut service = service("orders", repository().await);
    service["registry_config"]["url"] = host.as_str().into();
    server.register(service).await;
    assert_eq!(server.get("check").await.ok(), Value::Null);
    let (one, other) = tokio::join!(server.post("check", json!({})), server.post("check", json!({})));
    // Whichever came first is at work.
    let (first, second) = if one.status == 409 { (other, one) } else { (one, other) };
    assert_eq!(second.refusal(), refused(409, "check_running", ""));
    let report = first.ok();
    assert_eq!(report["runner"], "local");
    let found = outcomes(&report);
    for name in ["disk", "git", "agent", "buildkit", "build", "registry", "registry_server"] {
        assert_eq!(found.get(name).map(String::as_str), Some("ok"), "{name}: {report:#}");
    }
    // As root there is more isolation to be had, and without root limits that hold.
    let root = rustix::process::geteuid().is_root();
    assert_eq!(found["isolation"], if root { "warning" } else { "ok" }, "{report:#}");
    assert_eq!(server.get("check").await.ok(), report);
    assert_eq!(server.get("system").await.ok()["runner"], "local");

    // The page shows it before its program has loaded, and its form leads back to it.
    let page = server.send(server.browser(Method::GET, "/settings/check")).await;
    let advice = report["findings"].as_array().unwrap().iter().find_map(|finding| finding["advice"].as_str());
    assert!(page.text.contains("class=\"check-list\"") && page.text.contains(advice.unwrap()), "{}", page.text);
    let form = server.browser(Method::POST, "/api/fn/kiops_app/check/api/run_check").body("");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let posted = server.send(form).await;
    assert_eq!((posted.status, posted.header("location")), (302, "/settings/check"), "{posted:?}");
    assert_ne!(server.get("check").await.ok()["checked_at"], report["checked_at"]);
}

#[tokio::test]
async fn a_check_is_for_whoever_is_signed_in() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::on(folder.path(), |_| ()).await;
    assert_eq!(server.post("check", json!({})).await.status, 401);
    assert_eq!(server.get("check").await.status, 401);
}

#[tokio::test]
async fn the_program_says_what_is_missing_beside_a_server_and_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let run = async |agent: &str| {
        let bins = kiops_rig::buildkit_bins().unwrap();
        let mut command = Command::new(server_program());
        command.arg("check").arg("--data").arg(&data).args(["--min-free-bytes", "0"]);
        command.args(["--agent", agent]).env_remove("KIOPS_AGENT");
        command.arg("--buildkitd").arg(&bins.buildkitd).arg("--buildctl").arg(&bins.buildctl);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run(agent_program().to_str().unwrap()).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.lines().any(|line| line.starts_with("ok    Build ")), "{said}");
    assert!(!data.exists(), "it made a data folder");
    let (code, said) = run("/nowhere/kiops-agent").await;
    assert_eq!(code, Some(1), "{said}");
    let mut lines = said.lines().skip_while(|line| !line.starts_with("FAIL  Agent"));
    assert!(lines.next().is_some_and(|line| line.contains("/nowhere/kiops-agent")), "{said}");
    assert!(lines.next().is_some_and(|line| line.contains("→ Install it beside this program")), "{said}");
    assert!(said.lines().any(|line| line.starts_with("skip  Isolation")), "{said}");
}
