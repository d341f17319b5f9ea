//! `kill -9` of a real server, at exactly the moments where something could be lost. `make soak` does it at random ones,
//! too (`soak.rs`).
//!
//! Afterwards every build is a success in its first attempt, its agent was started once, and the stored log, read
//! through the API, has the count and the hash that the agent wrote down as its last word.

mod builds_rig;
mod kill_rig;

use kill_rig::Server;

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
    let mut server = Server::new().await;
    server.up(Some("mid_append:5")).await;
    let service = server.service().await;
    let id = server.build(&service).await;
    server.dies().await;
    server.start(Some("during_recovery")).await;
    server.dies().await;
    server.up(None).await;
    server.assert_whole(&id).await;
}
