//! `kill -9` of a real server while its builds run in Pods, at exactly the moments where something could be lost.

use super::*;
use crate::kill_rig::Server;

async fn killed_at(point: &str) {
    let _turn = together().await;
    Server::in_pods(pods().await).await.survives_a_kill_at(point).await;
}

#[tokio::test]
async fn between_claim_and_start() {
    killed_at("after_claim").await;
}

#[tokio::test]
async fn between_secret_and_pod() {
    killed_at("mid_start").await;
}

#[tokio::test]
async fn during_checkout() {
    killed_at("during_checkout").await;
}

#[tokio::test]
async fn between_append_and_acknowledgement() {
    killed_at("mid_append:4").await;
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
    let _turn = together().await;
    Server::in_pods(pods().await).await.survives_a_kill_during_recovery().await;
}
