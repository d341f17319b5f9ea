//! `kill -9` of a real server while its builds run in Pods, at exactly the moments where something could be lost.

use super::*;
use crate::kill_rig::Server;
use hyper::Method;
use serde_json::json;

/// One kill at `point`, then a server that is left alone.
async fn killed_at(point: &str) {
    let _turn = together().await;
    let mut server = Server::in_pods(pods().await).await;
    server.up(Some(point)).await;
    let service = server.service().await;
    // The server may die before it has answered.
    let start = format!("/api/v1/services/{service}/builds");
    let once = json!({ "branch": "main", "request_key": "once" });
    server.try_ask(Method::POST, &start, once.clone()).await;
    server.dies().await;
    server.up(None).await;
    let id = server.api(Method::POST, &start["/api/v1".len()..], once).await["id"].as_str().unwrap().to_owned();
    server.assert_whole(&id).await;
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
