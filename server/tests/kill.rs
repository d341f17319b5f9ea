//! `kill -9` of a real server, at exactly the moments where something could be lost. `make soak` does it at random ones,
//! too (`soak.rs`).
//!
//! Afterwards every build is a success in its first attempt, its agent was started once, and the stored log, read
//! through the API, has the count and the hash that the agent wrote down as its last word.

mod builds_rig;
mod kill_rig;

use builds_rig::PATIENCE;
use kill_rig::Server;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

async fn killed_at(point: &str) {
    Server::new().await.survives_a_kill_at(point).await;
}

#[tokio::test]
async fn between_claim_and_start() {
    killed_at("after_claim").await;
}

#[tokio::test]
async fn during_checkout() {
    killed_at("during_checkout").await;
}

#[tokio::test]
async fn between_append_and_acknowledgement() {
    killed_at("mid_append:12").await;
}

#[tokio::test]
async fn between_result_and_finish() {
    killed_at("after_result_before_finish").await;
}

#[tokio::test]
async fn between_finish_and_release() {
    killed_at("after_finish_before_release").await;
}

#[tokio::test]
async fn during_recovery_itself() {
    Server::new().await.survives_a_kill_during_recovery().await;
}

#[tokio::test]
async fn while_a_client_watches() {
    let mut server = Server::new().await;
    server.up(None).await;
    let service = server.service().await;
    let start = ["start", "--service", service.as_str(), "--branch", "main", "--watch"];
    let mut watching = server.client(&start).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut printed = Vec::new();
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await.expect("it goes on").unwrap() {
        let in_mid_build = line.ends_with(" line 10");
        printed.push(line);
        if in_mid_build {
            server.kill();
            server.up(None).await;
        }
    }
    let ended = watching.wait_with_output().await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{said}\n{}", server.log());
    assert!(said.lines().last().is_some_and(|last| last.starts_with("Success: ")), "{said}");
    let id = said.split_whitespace().find(|word| word.starts_with("bld-")).unwrap();
    server.assert_whole(id).await;
    let text = server.text(id).await;
    assert_eq!(printed, text.lines().collect::<Vec<_>>(), "no line is missing, and none is there twice");

    // Whoever comes when it is over is told the same.
    let late = server.client(&["watch", id]).output().await.unwrap();
    let said = String::from_utf8(late.stderr).unwrap();
    assert_eq!((late.status.code(), String::from_utf8(late.stdout).unwrap()), (Some(0), text), "{said}");
    assert!(said.lines().last().is_some_and(|last| last.starts_with("Success: ")), "{said}");
}
