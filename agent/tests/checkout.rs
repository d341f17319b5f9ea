//! Checking out from a real Git host: what is fetched, and what each fault is called.

mod common;

use common::{Attempt, Lab, Story, lab};
use kiops_events::event::AgentEnd;
use kiops_rig::{GitFault, GitOptions, GitServer};

const DOCKERFILE: &str = "FROM alpine:3\nCOPY . /src\nRUN cd /src && find . -type f | sort && cat version\n";

/// What the build saw in its context.
async fn seen(attempt: Attempt) -> Vec<String> {
    let story = attempt.run().await;
    assert_eq!(story.result().end, AgentEnd::Success, "{}", story.text());
    story.lines_of("RUN cd /src")
}

async fn failed(attempt: Attempt, code: &str) -> Story {
    let story = attempt.run().await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::Failure, code), "{}", story.text());
    story
}

#[tokio::test]
async fn exactly_the_commit_that_was_asked_for_is_built() {
    let lab = lab().await;
    let (repo, first) = lab.repo(&[("Dockerfile", DOCKERFILE), ("version", "one\n")]).await;
    repo.commit("main", &[("version", b"two\n")], "Another").await.unwrap();
    let story = lab.attempt(repo.url(), &first).run().await;
    assert_eq!(story.lines_of("RUN cd /src"), ["./Dockerfile", "./version", "one"]);
    assert_eq!(story.note("commit").unwrap()["subject"], "The subject");
}

#[tokio::test]
async fn a_commit_that_no_branch_holds_any_more_is_built_while_the_host_has_it() {
    let lab = lab().await;
    let (repo, kept) = lab.repo(&[("Dockerfile", DOCKERFILE), ("version", "kept\n")]).await;
    let lost = repo.commit("main", &[("version", b"lost\n")], "Pushed over").await.unwrap();
    repo.reset("main", &kept).await.unwrap();
    assert_eq!(seen(lab.attempt(repo.url(), &lost)).await.last().unwrap(), "lost");
    repo.prune().await.unwrap();
    failed(lab.attempt(repo.url(), &lost), "git_ref").await;
}

#[tokio::test]
async fn a_branch_that_vanished_is_said() {
    let lab = lab().await;
    let (repo, commit) = lab.repo(&[("Dockerfile", DOCKERFILE), ("version", "x\n")]).await;
    let mut attempt = lab.attempt(repo.url(), "1234567890123456789012345678901234567890");
    attempt.spec.source.reference = "refs/heads/gone".into();
    let story = failed(attempt, "git_ref").await;
    assert_eq!(story.result().args["reference"], "refs/heads/gone");
    // The commit itself is enough, whatever became of the branch.
    let mut attempt = lab.attempt(repo.url(), &commit);
    attempt.spec.source.reference = "refs/heads/gone".into();
    assert_eq!(seen(attempt).await.last().unwrap(), "x");
}

#[tokio::test]
async fn submodules_come_along() {
    let lab = lab().await;
    let (inner, inner_commit) = lab.repo(&[("inner.txt", "i")]).await;
    let (middle, _) = lab.repo(&[("middle.txt", "m")]).await;
    let middle_commit = middle.add_submodule("main", "deep", inner.url(), &inner_commit).await.unwrap();
    inner.commit("main", &[("inner.txt", b"newer")], "Not what is asked for").await.unwrap();
    let (outer, _) = lab.repo(&[("Dockerfile", DOCKERFILE), ("version", "v\n")]).await;
    let commit = outer.add_submodule("main", "sub", middle.url(), &middle_commit).await.unwrap();
    let files = ["./.gitmodules", "./Dockerfile", "./sub/.gitmodules", "./sub/deep/inner.txt", "./sub/middle.txt"];
    assert_eq!(seen(lab.attempt(outer.url(), &commit)).await[..5], files);
    let mut without = lab.attempt(outer.url(), &commit);
    without.spec.source.submodules = false;
    assert_eq!(seen(without).await, ["./.gitmodules", "./Dockerfile", "./version", "v"]);
}

#[tokio::test]
async fn a_token_opens_its_host_and_no_other() {
    let lab = lab().await;
    let token = "glpat-secret-token";
    let private = GitServer::start(GitOptions { token: Some(token.into()), ..GitOptions::default() }).await.unwrap();
    let repo = private.new_repo("private").await.unwrap();
    let files: [(&str, &[u8]); 2] = [("Dockerfile", DOCKERFILE.as_bytes()), ("version", b"p\n")];
    let commit = repo.commit("main", &files, "Private").await.unwrap();
    let attempt = |user: &str, token: &str, url: &str, commit: &str| {
        let mut attempt = lab.attempt(url, commit);
        attempt.git_credential(user, token);
        attempt
    };
    assert_eq!(seen(attempt("bot", token, repo.url(), &commit)).await.last().unwrap(), "p");
    let story = failed(attempt("bot", "wrong-token", repo.url(), &commit), "git_auth").await;
    assert!(!story.text().contains("wrong-token") && !story.log.contains("wrong-token"));
    failed(lab.attempt(repo.url(), &commit), "git_auth").await;

    // A submodule on another host asks for a password, too: it does not get this one.
    let thief = GitServer::start(GitOptions { token: Some(token.into()), ..GitOptions::default() }).await.unwrap();
    let stolen = thief.new_repo("stolen").await.unwrap();
    let stolen_commit = stolen.commit("main", &[("x", b"x")], "x").await.unwrap();
    let (outer, _) = lab.repo(&[("Dockerfile", DOCKERFILE), ("version", "v\n")]).await;
    let outer_commit = outer.add_submodule("main", "sub", stolen.url(), &stolen_commit).await.unwrap();
    failed(attempt("bot", token, outer.url(), &outer_commit), "git_auth").await;
}

#[tokio::test]
async fn each_fault_of_a_host_has_its_name() {
    let lab = lab().await;
    let sha = "1234567890123456789012345678901234567890";
    let host = GitServer::start(GitOptions::default()).await.unwrap();
    let repo = host.new_repo("repo").await.unwrap();
    let commit = repo.commit("main", &[("Dockerfile", b"FROM scratch")], "x").await.unwrap();
    for (status, code) in [(403, "git_auth"), (404, "git_not_found"), (503, "network")] {
        host.set_fault(Some(GitFault::Status(status)));
        failed(lab.attempt(repo.url(), &commit), code).await;
    }
    host.set_fault(None);
    failed(lab.attempt(&format!("{}/nothing.git", host.url()), sha), "git_not_found").await;
    failed(lab.attempt(&format!("http://127.0.0.1:{}/x.git", kiops_rig::free_port()), sha), "network").await;
    failed(lab.attempt("https://no-such-host.invalid/x.git", sha), "dns").await;
    failed(lab.attempt(&format!("http://{}/v2/", lab.registry.address()), sha), "git_not_found").await;
    failed(lab.attempt("file:///etc", sha), "git_not_found").await;
    failed(lab.attempt("ext::sh -c touch% /tmp/never", sha), "git_not_found").await;
    failed(lab.attempt(repo.url(), "main"), "git_ref").await;
}

#[tokio::test]
async fn what_only_this_machine_reaches_is_not_fetched() {
    let lab = lab().await;
    let sha = "1234567890123456789012345678901234567890";
    for url in ["http://169.254.169.254/latest/x.git", "https://[fd00:ec2::254]/x.git", "http://0.0.0.0/x.git"] {
        let story = failed(lab.attempt(url, sha), "git_address").await;
        assert!(url.contains(&story.result().args["host"]), "{url}");
    }
    // A server that others reach does not lend them its loopback, by whatever name.
    let (repo, commit) = lab.repo(&[("Dockerfile", DOCKERFILE), ("version", "v\n")]).await;
    for url in
        [repo.url().to_owned(), repo.url().replace("127.0.0.1", "localhost"), repo.url().replace("127.0.0.1", "0x7f.1")]
    {
        let mut attempt = lab.attempt(&url, &commit);
        attempt.spec.source.addresses.loopback = false;
        failed(attempt, "git_address").await;
    }
    // Nor is a repository a way there: neither its submodules, also those of a submodule, nor a redirect.
    let (inner, _) = lab.repo(&[("inner.txt", "i")]).await;
    let inner_commit = inner.add_submodule("main", "deep", "http://169.254.169.254/deep.git", sha).await.unwrap();
    for (url, commit) in
        [("http://169.254.169.254/x.git", sha), ("git@169.254.169.254:x.git", sha), (inner.url(), &inner_commit)]
    {
        let (outer, _) = lab.repo(&[("Dockerfile", DOCKERFILE), ("version", "v\n")]).await;
        let outer_commit = outer.add_submodule("main", "sub", url, commit).await.unwrap();
        let story = failed(lab.attempt(outer.url(), &outer_commit), "git_address").await;
        assert_eq!(story.result().args["host"], "169.254.169.254");
    }
    let moved = redirecting(|_| "http://169.254.169.254/latest".to_owned()).await;
    failed(lab.attempt(&format!("{moved}/x.git"), sha), "git_not_found").await;
}

#[tokio::test]
async fn a_missing_suffix_is_added_for_repositories_and_submodules() {
    let lab = lab().await;
    let (module, module_commit) = lab.repo(&[("module.txt", "m")]).await;
    let (outer, _) = lab.repo(&[("Dockerfile", DOCKERFILE), ("version", "v\n")]).await;
    // As GitLab does: the address without its suffix redirects to the one with it.
    let behind = lab.git.url();
    let host = redirecting(move |path| format!("{behind}{}", path.replace("/info/refs", ".git/info/refs"))).await;
    let without =
        |repo: &kiops_rig::Repo| repo.url().replace(&lab.git.url(), &host).trim_end_matches(".git").to_owned();
    let commit = outer.add_submodule("main", "sub", &without(&module), &module_commit).await.unwrap();
    assert_eq!(seen(lab.attempt(&without(&outer), &commit)).await[2], "./sub/module.txt");
}

/// A host that hands requests with the suffix on to the lab's and answers all others with a redirect.
async fn redirecting(to: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let behind = lab().await.git.url().trim_start_matches("http://").to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = std::sync::Arc::new(to);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let (to, behind) = (to.clone(), behind.clone());
            tokio::spawn(async move {
                let mut head = vec![0; 16_384];
                let read = connection.read(&mut head).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&head[..read]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default();
                if path.contains(".git/") && !path.starts_with("/x.git") {
                    let mut other = tokio::net::TcpStream::connect(&behind).await.unwrap();
                    other.write_all(&head[..read]).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut connection, &mut other).await;
                } else {
                    let moved = format!(
                        "HTTP/1.1 301 Moved\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                        to(path)
                    );
                    let _ = connection.write_all(moved.as_bytes()).await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_host_that_never_answers_is_ended_by_the_time_limit() {
    let lab: &Lab = lab().await;
    let host = GitServer::start(GitOptions::default()).await.unwrap();
    host.set_fault(Some(GitFault::Hang));
    let mut attempt = lab.attempt(&format!("{}/x.git", host.url()), "1234567890123456789012345678901234567890");
    attempt.spec.limits.time_limit_s = 1;
    let story = attempt.run().await;
    assert_eq!((story.result().end, story.code()), (AgentEnd::TimeLimit, "timeout"));
    assert_eq!(story.exit.code(), Some(5));
}
