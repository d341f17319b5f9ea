//! Each part proves itself for real.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use kiops_rig::{
    Fault, FaultyRegistry, GitFault, GitOptions, GitServer, Login, On, Postgres, Registry, RegistryOptions,
};
use tempfile::TempDir;

fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "credential.helper=", "-c", "protocol.version=2"])
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn with_token(url: &str, token: &str) -> String {
    url.replace("http://", &format!("http://anyone:{token}@"))
}

#[tokio::test]
async fn registry_serves_the_base_image_and_survives_a_restart() -> Result<()> {
    let mut registry = Registry::start(RegistryOptions::default()).await?;
    registry.push_base_images().await?;
    let before = registry.manifest("library/busybox", "1").await?.expect("the image that was pushed");
    let layer = before.body["layers"][0].clone();
    let content = registry.blob("library/busybox", layer["digest"].as_str().expect("a digest")).await?;
    assert_eq!(content.len() as u64, layer["size"].as_u64().expect("a size"));
    assert_eq!(registry.tags("library/alpine").await?, ["3"]);
    assert!(registry.manifest("library/busybox", "2").await?.is_none());
    assert!(registry.tags("nothing/here").await?.is_empty());

    let address = registry.address();
    registry.stop();
    assert!(registry.tags("library/alpine").await.is_err());
    registry.start_again().await?;
    assert_eq!(registry.address(), address);
    assert_eq!(registry.catalog().await?, ["library/alpine", "library/busybox"]);
    assert_eq!(registry.image_config("library/busybox", "1").await?["os"], "linux");
    Ok(())
}

#[tokio::test]
async fn registry_lets_in_only_its_login() -> Result<()> {
    let login = Login { user: "robot".into(), password: "right password".into() };
    let registry = Registry::start(RegistryOptions { login: Some(login), ..RegistryOptions::default() }).await?;
    registry.push_base_image("project/image", "1").await?;
    let url = format!("http://{}/v2/project/image/tags/list", registry.address());
    let client = reqwest::Client::new();
    assert_eq!(client.get(&url).send().await?.status(), 401);
    assert_eq!(client.get(&url).basic_auth("robot", Some("wrong")).send().await?.status(), 401);
    assert_eq!(client.get(&url).basic_auth("robot", Some("right password")).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn faulty_registry_breaks_what_it_is_told_to() -> Result<()> {
    let registry = Registry::start(RegistryOptions::default()).await?;
    registry.push_base_image("project/image", "1").await?;
    let faulty = FaultyRegistry::in_front_of(registry.address()).await?;
    let client = reqwest::Client::new();
    let manifest = |tag: &str| format!("http://{}/v2/project/image/manifests/{tag}", faulty.address());
    let body = serde_json::to_vec(&registry.manifest("project/image", "1").await?.expect("just pushed").body)?;
    let get = || client.get(manifest("1")).header("accept", "application/vnd.oci.image.manifest.v1+json").send();
    let put = |tag: &str| {
        let request = client.put(manifest(tag)).header("content-type", "application/vnd.oci.image.manifest.v1+json");
        request.body(body.clone()).send()
    };

    assert_eq!(put("2").await?.status(), 201);
    faulty.fail(On::Pushes, Fault::Status(413));
    assert_eq!(put("3").await?.status(), 413);
    assert_eq!(get().await?.status(), 200);
    faulty.fail(On::ManifestPushes, Fault::Drop);
    assert!(put("4").await.is_err());
    faulty.fail(On::ManifestPushes, Fault::LoseAnswer);
    assert!(put("5").await.is_err());
    faulty.fail(On::Everything, Fault::Status(401));
    assert!(get().await?.headers().contains_key("www-authenticate"));
    faulty.recover();
    assert_eq!(put("6").await?.status(), 201);

    let mut tags = registry.tags("project/image").await?;
    tags.sort();
    assert_eq!(tags, ["1", "2", "5", "6"]);
    Ok(())
}

#[tokio::test]
async fn git_gives_a_commit_that_no_branch_holds_until_it_is_pruned() -> Result<()> {
    let host = GitServer::start(GitOptions::default()).await?;
    let repo = host.new_repo("app").await?;
    let first = repo.commit("main", &[("a.txt", b"one"), ("run.sh", b"#!/bin/sh\n")], "First").await?;
    let second = repo.commit("main", &[("a.txt", b"two")], "Second").await?;
    repo.reset("main", &first).await?;
    assert_eq!(repo.head("main").await?, first);

    let clone = TempDir::new()?;
    git(clone.path(), &["init", "--quiet"])?;
    git(clone.path(), &["fetch", "--quiet", "--depth=1", repo.url(), &second])?;
    assert_eq!(git(clone.path(), &["show", "FETCH_HEAD:a.txt"])?, "two");
    assert!(git(clone.path(), &["ls-tree", "FETCH_HEAD", "run.sh"])?.starts_with("100755"));

    repo.prune().await?;
    let other = TempDir::new()?;
    git(other.path(), &["init", "--quiet"])?;
    assert!(git(other.path(), &["fetch", "--quiet", "--depth=1", repo.url(), &second]).is_err());
    Ok(())
}

#[tokio::test]
async fn git_has_branches_tags_submodules_and_partial_clones() -> Result<()> {
    let host = GitServer::start(GitOptions::default()).await?;
    let library = host.new_repo("library").await?;
    let pinned = library.commit("main", &[("lib.txt", b"library")], "Library").await?;
    let repo = host.new_repo("group/app").await?;
    let first = repo.commit("main", &[("a.txt", b"one"), ("b.txt", b"two")], "First").await?;
    repo.branch("feature/x", "main").await?;
    repo.branch("gone", "main").await?;
    repo.delete_branch("gone").await?;
    repo.tag("v1", &first).await?;
    repo.annotated_tag("v2", &first, "Second").await?;
    repo.remove("main", &["b.txt"], "Less").await?;
    repo.add_submodule("main", "deps/library", library.url(), &pinned).await?;

    let clone = TempDir::new()?;
    let refs = git(clone.path(), &["ls-remote", repo.url()])?;
    let names: Vec<_> = refs.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    let expected =
        ["HEAD", "refs/heads/feature/x", "refs/heads/main", "refs/tags/v1", "refs/tags/v2", "refs/tags/v2^{}"];
    assert_eq!(names, expected);
    git(clone.path(), &["clone", "--quiet", "--filter=tree:0", "--recurse-submodules", repo.url(), "."])?;
    assert_eq!(std::fs::read_to_string(clone.path().join("deps/library/lib.txt"))?, "library");
    assert!(!clone.path().join("b.txt").exists());
    Ok(())
}

#[tokio::test]
async fn git_asks_for_its_token_and_misbehaves_on_demand() -> Result<()> {
    let host = GitServer::start(GitOptions { token: Some("secret-token".into()), ..GitOptions::default() }).await?;
    let repo = host.new_repo("app").await?;
    repo.commit("main", &[("a.txt", b"one")], "First").await?;
    let here = TempDir::new()?;
    let list = |token: &str| git(here.path(), &["ls-remote", &with_token(repo.url(), token)]);

    let refused = list("wrong").expect_err("a wrong token").to_string();
    assert!(refused.contains("Authentication failed"), "{refused}");
    assert!(list("secret-token")?.contains("refs/heads/main"));
    host.set_fault(Some(GitFault::Status(403)));
    assert!(list("secret-token").expect_err("403").to_string().contains("403"));
    host.set_fault(Some(GitFault::Status(404)));
    assert!(list("secret-token").expect_err("404").to_string().contains("not found"));
    host.set_fault(Some(GitFault::Hang));
    let unanswered = reqwest::Client::new().get(host.url()).timeout(Duration::from_millis(300)).send().await;
    assert!(unanswered.expect_err("no answer").is_timeout());
    host.set_fault(None);
    assert!(list("secret-token").is_ok());
    Ok(())
}

/// Git packs a request of more than 1 KiB with gzip: here, many commits that it already has.
#[tokio::test]
async fn git_takes_large_requests() -> Result<()> {
    let host = GitServer::start(GitOptions::default()).await?;
    let repo = host.new_repo("app").await?;
    for n in 0..40 {
        repo.commit(&format!("b{n}"), &[("n.txt", n.to_string().as_bytes())], "Branch").await?;
    }
    let clone = TempDir::new()?;
    git(clone.path(), &["clone", "--quiet", repo.url(), "."])?;
    assert_eq!(git(clone.path(), &["branch", "--remotes"])?.lines().count(), 40);
    let last = repo.commit("b0", &[("n.txt", b"new")], "More").await?;
    git(clone.path(), &["fetch", "--quiet"])?;
    assert_eq!(git(clone.path(), &["rev-parse", "origin/b0"])?, last);
    Ok(())
}

#[tokio::test]
async fn postgres_answers() -> Result<()> {
    let postgres = Postgres::start().await?;
    assert_eq!(postgres.psql("SELECT 6 * 7").await?, "42");
    let (one, two) = (postgres.create_database().await?, postgres.create_database().await?);
    assert_ne!(one, two);
    assert!(postgres.psql("SELECT no_such_function()").await.is_err());
    Ok(())
}
