//! `kiops build …` against a real server: what it prints and how it exits.

use crate::support::{COMMIT, TestServer, repository, server_program, service};
use std::process::Output;
use tokio::process::Command;

async fn kiops(server: &TestServer, args: &[&str]) -> Output {
    with(&server.url, server.token(), args).await
}

async fn with(url: &str, token: &str, args: &[&str]) -> Output {
    Command::new(server_program())
        .arg("build")
        .args(args)
        .env("KIOPS_URL", url)
        .env("KIOPS_TOKEN", token)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[tokio::test]
async fn a_build_from_the_shell() {
    let server = TestServer::start().await;
    server.pause().await;
    let id = server.register(service("orders", repository().await)).await;
    let start = ["start", "--service", "orders", "--branch", "main", "--commit", COMMIT];
    let started = kiops(&server, &start).await;
    assert_eq!(code(&started), 0, "{started:?}");
    let build = text(&started.stdout);
    assert!(build.starts_with("bld-"), "{build}");

    let mut watched = start.to_vec();
    watched.push("--watch");
    watched[2] = &id;
    let (ended, ()) = tokio::join!(kiops(&server, &watched), async {
        // Cancelled as soon as it is there.
        loop {
            let page = server.get(&format!("services/{id}/builds")).await.ok();
            if let Some(second) = page["builds"].as_array().unwrap().iter().find(|b| b["number"] == 2) {
                let second = second["id"].as_str().unwrap().to_owned();
                assert_eq!(code(&kiops(&server, &["cancel", &second]).await), 0);
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    assert_eq!(code(&ended), 2, "{ended:?}");
    assert!(text(&ended.stdout).contains("queued"), "{ended:?}");

    let log = kiops(&server, &["log", &build]).await;
    assert_eq!(code(&log), 0);
    assert!(text(&log.stdout).contains("queued"), "{log:?}");
}

#[tokio::test]
async fn a_build_that_fails() {
    // There is no agent beside this test, so that every build fails at once.
    let server = TestServer::start().await;
    server.register(service("orders", repository().await)).await;
    let ended =
        kiops(&server, &["start", "--service", "orders", "--branch", "main", "--commit", COMMIT, "--watch"]).await;
    assert_eq!(code(&ended), 1, "{ended:?}");
    assert!(text(&ended.stderr).contains("Failure"), "{ended:?}");
}

#[tokio::test]
async fn troubles_are_sentences() {
    let server = TestServer::start().await;
    for (url, token, args, says) in [
        (
            server.url.as_str(),
            server.token(),
            ["start", "--service", "none", "--branch", "main"].as_slice(),
            "no service",
        ),
        (&server.url, "wrong", &["log", "bld-aaaaaaaaaaaaaaaaaaaa"], "signed in"),
        (&server.url, server.token(), &["watch", "bld-aaaaaaaaaaaaaaaaaaaa"], "does not exist"),
        (&server.url, server.token(), &["cancel", "../sessions"], "build"),
        ("http://127.0.0.1:1", server.token(), &["log", "bld-aaaaaaaaaaaaaaaaaaaa"], "KIOPS_URL"),
        ("nonsense", server.token(), &["log", "bld-aaaaaaaaaaaaaaaaaaaa"], "KIOPS_URL"),
    ] {
        let output = with(url, token, args).await;
        let said = text(&output.stderr);
        assert_eq!(code(&output), 3, "{args:?} {said}");
        assert!(said.contains(says) && !said.contains("panicked") && !said.contains(server.token()), "{args:?} {said}");
    }
}
