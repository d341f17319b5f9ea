//! Signing in: the right and the wrong, sessions that end, the one-time link.

use crate::support::{PASSWORD, TestServer, count, refused};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn signing_in_and_out() {
    let server = TestServer::start().await;
    let mine = server.token().to_owned();
    assert_eq!(server.get("services").await.status, 200);
    assert_eq!(server.delete("sessions").await.status, 204);
    assert_eq!(server.get("services").await.refusal(), refused(401, "sign_in_needed", ""));
    assert_eq!(server.delete("sessions").await.status, 401, "and not twice");
    server.never_said(&[&mine, PASSWORD]);
}

#[tokio::test]
async fn wrong_words_are_refused_alike_and_not_for_ever() {
    let server = TestServer::start().await;
    let sign_in =
        async |user: &str, password: &str| server.post("sessions", json!({ "user": user, "password": password })).await;
    let wrong = refused(401, "wrong_credentials", "");
    for (user, password) in [("admin", "wrong"), ("nobody", PASSWORD), ("", ""), ("admin", "")] {
        assert_eq!(sign_in(user, password).await.refusal(), wrong, "{user}");
    }
    let mut last = 0;
    for _ in 0..12 {
        last = sign_in("guessed", "wrong").await.status;
    }
    assert_eq!(last, 429);
    let reply = sign_in("guessed", "wrong").await;
    assert_eq!(reply.refusal().1, "too_many_attempts");
    assert!(reply.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(sign_in("admin", PASSWORD).await.status, 201, "others are not held up");
}

#[tokio::test]
async fn sessions_end_by_themselves() {
    let server = TestServer::with(|config| config.session_s = 5).await;
    assert_eq!(server.get("services").await.status, 200);
    tokio::time::sleep(Duration::from_millis(5_200)).await;
    assert_eq!(server.get("services").await.refusal(), refused(401, "sign_in_needed", ""));
}

#[tokio::test]
async fn tokens_that_are_none() {
    let server = TestServer::start().await;
    let other = "f".repeat(64);
    for token in ["x", "", &other, "../../etc", "'; drop table sessions; --"] {
        let request = server.request(Method::GET, "/api/v1/services").bearer_auth(token);
        assert_eq!(server.send(request).await.refusal(), refused(401, "sign_in_needed", ""), "{token}");
    }
    // The cookie counts like the header, and a header that is shown counts more.
    assert_eq!(server.send(server.browser(Method::GET, "/api/v1/services")).await.status, 200);
    let both = server.browser(Method::GET, "/api/v1/services").bearer_auth("x");
    assert_eq!(server.send(both).await.status, 401);
}

#[tokio::test]
async fn the_password_of_the_environment_is_the_administrators() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = TestServer::on(folder.path(), |_| ()).await;
    first.sign_in().await;
    let token = first.token().to_owned();
    first.stop().await.unwrap();
    let ask = async |server: &TestServer| {
        let request = server.request(Method::GET, "/api/v1/services").bearer_auth(&token);
        server.send(request).await.status
    };
    let same = TestServer::on(folder.path(), |_| ()).await;
    assert_eq!(ask(&same).await, 200, "the same password changes nothing");
    same.stop().await.unwrap();
    let new = "another horse battery";
    let second = TestServer::on(folder.path(), |config| {
        config.secrets.admin_password = Some(kiops_server::config::Secret::new(new));
    })
    .await;
    let sign_in =
        async |password: &str| second.post("sessions", json!({ "user": "admin", "password": password })).await.status;
    assert_eq!(ask(&second).await, 401, "who knew the password before is not let in by it");
    assert_eq!(sign_in(PASSWORD).await, 401);
    assert_eq!(sign_in(new).await, 201);
}

#[tokio::test]
async fn changes_of_accounts_leave_their_trace() {
    let server = TestServer::start().await;
    server.delete("sessions").await;
    let traces = async |action: &str, by: &str| {
        let question = format!(
            "SELECT COUNT(*) FROM audit a JOIN users u ON u.id = a.subject WHERE u.name = 'admin' \
             AND a.org_id = u.org_id AND a.action = '{action}' AND {by}"
        );
        count(&server.folder, &question).await
    };
    assert_eq!(traces("account.password", "a.user_id IS NULL AND a.detail LIKE '%environment%'").await, 1);
    assert_eq!(traces("account.sign_in", "a.user_id = u.id").await, 1);
    assert_eq!(traces("account.sign_out", "a.user_id = u.id").await, 1);
    server.post("sessions", json!({ "user": "admin", "password": "wrong" })).await;
    assert_eq!(traces("account.sign_in", "a.user_id = u.id").await, 1, "who was not let in has changed nothing");
}
