//! Asking Git hosts: what they list, how they fail, and what is never sent to them.

use kiops_app::error::Problem;
use kiops_app::model::{RefList, ServiceId};
use kiops_rig::{GitFault, GitOptions, GitServer, Repo};
use kiops_server::builds::Head;
use kiops_server::git::{AddressPolicy, Git, Remote};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TOKEN: &str = "git:token/4711@ü";

fn asker() -> (TempDir, Git) {
    let folder = tempfile::tempdir().unwrap();
    let tmp = folder.path().join("it's tmp");
    std::fs::create_dir(&tmp).unwrap();
    let git = Git::new(&tmp, &folder.path().join("git"), AddressPolicy { loopback: true });
    (folder, git)
}

async fn host(token: Option<&str>, filter: bool) -> (GitServer, Repo) {
    let options = GitOptions { token: token.map(str::to_owned), filter, ..GitOptions::default() };
    let server = GitServer::start(options).await.unwrap();
    let repo = server.new_repo("shop/orders").await.unwrap();
    (server, repo)
}

fn names(list: &RefList) -> Vec<&str> {
    list.refs.iter().map(|head| head.name.as_str()).collect()
}

#[track_caller]
fn code<T>(result: Result<T, Problem>) -> String {
    result.err().expect("refused").code
}

#[tokio::test]
async fn branches_and_tags_with_their_heads() {
    let (_server, repo) = host(Some(TOKEN), true).await;
    let first = repo.commit("main", &[("a", b"1")], "First\n\nWith a body").await.unwrap();
    repo.annotated_tag("v1.9", &first, "A tag").await.unwrap();
    repo.tag("v1.10", &first).await.unwrap();
    repo.branch("feature/쇼핑", "main").await.unwrap();
    let second = repo.commit("feature/쇼핑", &[("a", b"2")], "둘째").await.unwrap();

    let (folder, git) = asker();
    let remote = Remote { url: repo.url(), token: Some(TOKEN) };
    let check = git.check(remote).await.unwrap();
    assert_eq!((check.default_branch.as_str(), check.branches), ("main", 2));

    let service = ServiceId::from_random([3; 20]);
    let list = git.refs(&service, remote, "main").await.unwrap();
    assert_eq!(names(&list), ["main", "feature/쇼핑", "refs/tags/v1.10", "refs/tags/v1.9"]);
    let head = |list: &RefList, name: &str| list.refs.iter().find(|r| r.name == name).cloned().unwrap();
    let main = head(&list, "main");
    assert_eq!((main.commit.as_str(), main.subject.as_deref()), (first.as_str(), Some("First")));
    assert!((list.now_ms - main.committed_at.unwrap()).abs() < 60_000);
    assert_eq!(head(&list, "feature/쇼핑").subject.as_deref(), Some("둘째"));
    assert_eq!(head(&list, "refs/tags/v1.9").commit, first, "an annotated tag stands for its commit");
    assert!(head(&list, "refs/tags/v1.9").is_tag);

    // What is known is not fetched again; what moved is.
    let kept = folder.path().join(format!("git/{service}.json"));
    let text = std::fs::read_to_string(&kept).unwrap().replace("First", "Kept");
    std::fs::write(&kept, text).unwrap();
    repo.commit("feature/쇼핑", &[("a", b"3")], "Third").await.unwrap();
    let list = git.refs(&service, remote, "main").await.unwrap();
    assert_eq!(head(&list, "main").subject.as_deref(), Some("Kept"));
    assert_eq!(head(&list, "feature/쇼핑").subject.as_deref(), Some("Third"));
    assert!(!std::fs::read_to_string(&kept).unwrap().contains(&second), "what no branch holds is forgotten");

    for (asked, name) in [("main", "main"), ("refs/tags/v1.9", "refs/tags/v1.9"), ("v1.9", "refs/tags/v1.9")] {
        let head = Head { name: name.to_owned(), commit: first.clone() };
        assert_eq!(git.head(remote, asked).await.unwrap(), head);
    }
    for gone in ["gone", "ain", "refs/tags/gone", ".9"] {
        assert_eq!(code(git.head(remote, gone).await), "git_ref", "{gone}");
    }
    // A branch comes before a tag of the same name.
    repo.commit("v1.9", &[("a", b"4")], "Fourth").await.unwrap();
    assert_eq!(git.head(remote, "v1.9").await.unwrap().name, "v1.9");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("it's tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_host_without_filters_sends_no_trees() {
    let (_server, repo) = host(None, false).await;
    repo.commit("main", &[("a", b"1")], "First").await.unwrap();
    let (folder, git) = asker();
    let remote = Remote { url: repo.url(), token: None };
    let list = git.refs(&ServiceId::from_random([3; 20]), remote, "main").await.unwrap();
    assert_eq!(names(&list), ["main"]);
    assert_eq!((&list.refs[0].subject, list.refs[0].committed_at), (&None, None));
    assert!(!folder.path().join("git").exists());
}

#[tokio::test]
async fn an_empty_repository_has_no_branch() {
    let (_server, repo) = host(None, true).await;
    let (_folder, git) = asker();
    let remote = Remote { url: repo.url(), token: None };
    let check = git.check(remote).await.unwrap();
    assert_eq!((check.default_branch.as_str(), check.branches), ("", 0));
    assert_eq!(names(&git.refs(&ServiceId::from_random([3; 20]), remote, "main").await.unwrap()), Vec::<&str>::new());
}

#[tokio::test]
async fn hosts_that_refuse_or_fail() {
    let (server, repo) = host(Some(TOKEN), true).await;
    repo.commit("main", &[("a", b"1")], "First").await.unwrap();
    let (_folder, git) = asker();
    let ask = async |url: &str, token: Option<&str>| code(git.check(Remote { url, token }).await);
    assert_eq!(ask(repo.url(), Some("wrong-token")).await, "git_auth");
    assert_eq!(ask(repo.url(), None).await, "git_auth");
    assert_eq!(ask(&format!("{}/none.git", server.url()), Some(TOKEN)).await, "git_not_found");
    assert_eq!(ask("http://127.0.0.1:1/a.git", None).await, "network");
    assert_eq!(ask("http://nosuch.invalid/a.git", None).await, "dns");
    assert_eq!(ask(&repo.url().replace("http://", "https://"), None).await, "tls");
    for (status, expected) in [(403, "git_auth"), (404, "git_not_found"), (500, "network"), (503, "network")] {
        server.set_fault(Some(GitFault::Status(status)));
        assert_eq!(ask(repo.url(), Some(TOKEN)).await, expected, "{status}");
    }
    server.set_fault(None);
    assert!(git.check(Remote { url: repo.url(), token: Some(TOKEN) }).await.is_ok());
}

/// Answers every request with one text; keeps what was asked.
async fn fixed(answer: String) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(String::new()));
    let kept = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut buffer = [0; 8192];
            let read = connection.read(&mut buffer).await.unwrap_or(0);
            kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

#[tokio::test]
async fn what_is_no_git_host() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";
    let (url, _) = fixed(page.into()).await;
    let (_folder, git) = asker();
    assert_eq!(code(git.check(Remote { url: &format!("{url}/a.git"), token: None }).await), "git_not_found");
}

#[tokio::test]
async fn a_token_is_not_carried_elsewhere() {
    let asks = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (other, asked) = fixed(asks.into()).await;
    let moved = format!(
        "HTTP/1.1 302 Found\r\nlocation: {other}/a.git/info/refs?service=git-upload-pack\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (first, _) = fixed(moved).await;
    let (_folder, git) = asker();
    let refused = git.check(Remote { url: &format!("{first}/a.git"), token: Some(TOKEN) }).await;
    assert_eq!(code(refused), "git_redirect");
    assert_eq!(*asked.lock().unwrap(), "", "the other host was not even asked");
}

#[tokio::test]
async fn a_missing_suffix_is_added() {
    let (server, repo) = host(None, true).await;
    repo.commit("main", &[("a", b"1")], "First").await.unwrap();
    // As GitLab does: the address without its suffix redirects to the one with it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (behind, port) = (server.url(), listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let behind = behind.trim_start_matches("http://").to_owned();
            tokio::spawn(async move {
                let mut head = vec![0; 8192];
                let read = connection.read(&mut head).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&head[..read]).into_owned();
                if text.contains("/shop/orders.git/") {
                    let mut other = tokio::net::TcpStream::connect(&behind).await.unwrap();
                    other.write_all(&head[..read]).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut connection, &mut other).await;
                } else {
                    let to = format!("http://127.0.0.1:{port}/shop/orders.git/info/refs?service=git-upload-pack");
                    let moved = format!(
                        "HTTP/1.1 301 Moved\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    );
                    let _ = connection.write_all(moved.as_bytes()).await;
                }
            });
        }
    });
    let (_folder, git) = asker();
    let remote_url = format!("{url}/shop/orders");
    let check = git.check(Remote { url: &remote_url, token: None }).await.unwrap();
    assert_eq!(check.default_branch, "main");
    let list =
        git.refs(&ServiceId::from_random([3; 20]), Remote { url: &remote_url, token: None }, "main").await.unwrap();
    assert_eq!(list.refs[0].subject.as_deref(), Some("First"));
}

#[tokio::test]
async fn addresses_that_only_this_machine_reaches() {
    let folder = tempfile::tempdir().unwrap();
    let git = Git::new(folder.path(), folder.path(), AddressPolicy { loopback: false });
    for url in ["http://127.0.0.1:1/a", "http://localhost/a", "http://[::1]/a", "http://169.254.169.254/latest/a"] {
        assert_eq!(code(git.check(Remote { url, token: None }).await), "address_refused", "{url}");
    }
}
