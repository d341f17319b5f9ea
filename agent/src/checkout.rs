//! Getting exactly one commit into the workspace, with the git program.
//!
//! The credential is never in an argument, an address or an environment variable's value: git asks this same program for
//! it ([`answer_git`]), which reads the file, and only where the host is the repository's own. No configuration of the
//! machine or its users has a say. Every address, of submodules too, is looked up and judged before git asks it, git is
//! told what was found, and redirects are not followed: they could lead anywhere. `.git` is taken away at the end: it
//! differs from one checkout to the next, so with it `COPY . .` would never be cached.

use crate::process::{Ended, environment, output_within, run_logged};
use crate::proxy;
use crate::record::{Ending, PhaseLog, Recorder};
use crate::stop::Stop;
use kiops_events::address;
use kiops_events::event::Phase;
use kiops_events::spec::SourceSpec;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// Set in git's environment, so that this program, called by git, knows what it is asked for.
pub const ASKED_FILE: &str = "KIOPS_ASKED_FILE";
const ASKED_ORIGIN: &str = "KIOPS_ASKED_ORIGIN";

/// Everything that a machine's configuration could otherwise decide.
const CONFIGURATION: &str = "\
[advice]
\tdetachedHead = false
[core]
\thooksPath = /dev/null
[gc]
\tauto = 0
[http]
\tfollowRedirects = false
\tlowSpeedLimit = 1000
\tlowSpeedTime = 60
[maintenance]
\tauto = false
[protocol]
\tversion = 2
[submodule]
\trecurse = false
";

/// What git may take for what it does by itself.
const OWN_TIME: Duration = Duration::from_secs(30);

/// Where the checkout works.
pub struct Places<'a> {
    /// Becomes the commit's tree.
    pub tree: &'a Path,
    /// Holds git's configuration; its home.
    pub home: &'a Path,
    pub credential: Option<&'a Path>,
}

struct Git<'a> {
    source: &'a SourceSpec,
    places: &'a Places<'a>,
    log: PhaseLog,
    stop: &'a Stop,
}

pub async fn run(source: &SourceSpec, places: &Places<'_>, recorder: &Recorder, stop: &Stop) -> Result<(), Ending> {
    recorder.enter(Phase::Checkout);
    if let Err(why) = acceptable(source) {
        return Err(Ending::failure(why, [("url", shown(&source.url)), ("commit", source.commit.clone())]));
    }
    let prepared = std::fs::create_dir_all(places.tree)
        .and_then(|()| std::fs::create_dir_all(places.home))
        .and_then(|()| std::fs::write(places.home.join("gitconfig"), CONFIGURATION));
    prepared.map_err(|e| Ending::trouble("agent", "the workspace cannot be made", &e))?;
    let mut git = Git { source, places, log: PhaseLog::new(recorder, Phase::Checkout), stop };
    git.admit(&source.url).await?;
    git.commit().await?;
    git.tell_commit(recorder).await;
    if source.submodules {
        git.submodules().await?;
    }
    without_git(places.tree).map_err(|e| Ending::trouble("agent", ".git cannot be taken away", &e))
}

/// What must hold of an address and a commit before git gets to see them.
fn acceptable(source: &SourceSpec) -> Result<(), &'static str> {
    let hash = matches!(source.commit.len(), 40 | 64) && source.commit.bytes().all(|b| b.is_ascii_hexdigit());
    if !hash || source.reference.starts_with('-') {
        return Err("git_ref");
    }
    if source.url.starts_with('-') || source.url.chars().any(char::is_control) {
        return Err("git_not_found");
    }
    Ok(())
}

impl Git<'_> {
    async fn commit(&mut self) -> Result<(), Ending> {
        let (commit, reference) = (self.source.commit.clone(), self.source.reference.clone());
        self.must(&["init", "--quiet", "--template=", "."]).await?;
        self.must(&["remote", "add", "--", "origin", &self.source.url]).await?;
        let fetch = ["fetch", "--no-tags", "--no-recurse-submodules", "--depth=1", "--", "origin"];
        // Some servers give a commit by its hash only where a branch or tag stands at it, old ones never. Then what is
        // known of the reference must do, and at last all of its history.
        let mut text = self.fetch(&[&fetch[..], &[&commit]].concat()).await?;
        if let Some(url) = text.as_deref().and_then(|text| with_suffix(&self.source.url, text)) {
            self.must(&["remote", "set-url", "origin", &url]).await?;
            text = self.fetch(&[&fetch[..], &[&commit]].concat()).await?;
        }
        if text.is_some() && !reference.is_empty() {
            let first = text.take();
            if !first.as_deref().is_some_and(refused_by_hash) {
                return Err(self.failed(&first.unwrap_or_default()));
            }
            text = self.fetch(&[&fetch[..], &[&reference]].concat()).await?;
            if text.is_none() && !self.has(&commit).await {
                text = self
                    .fetch(&[
                        "fetch",
                        "--no-tags",
                        "--no-recurse-submodules",
                        "--unshallow",
                        "--",
                        "origin",
                        &reference,
                    ])
                    .await?;
            }
        }
        if let Some(text) = text {
            return Err(self.failed(&text));
        }
        if !self.has(&commit).await {
            return Err(self.failure("git_ref"));
        }
        self.must(&["checkout", "--quiet", "--force", "--detach", &commit]).await
    }

    /// One level after another, so that every address is judged before it is asked.
    async fn submodules(&mut self) -> Result<(), Ending> {
        let mut folders = vec![self.places.tree.to_owned()];
        while let Some(folder) = folders.pop() {
            if !folder.join(".gitmodules").exists() {
                continue;
            }
            self.must_in(&folder, &["submodule", "--quiet", "init"]).await?;
            let urls = self.submodule_urls(&folder).await?;
            for (_, url) in &urls {
                self.admit(url).await?;
            }
            let update = ["submodule", "--quiet", "update", "--depth=1", "--jobs=4"];
            if let Some(text) = self.fetch_in(&folder, &update).await? {
                let suffixed: Vec<_> =
                    urls.iter().filter_map(|(key, url)| Some((key, with_suffix(url, &text)?))).collect();
                if suffixed.is_empty() {
                    return Err(self.failed(&text));
                }
                for (key, url) in suffixed {
                    self.must_in(&folder, &["config", key, &url]).await?;
                }
                self.must_in(&folder, &update).await?;
            }
            folders.extend(self.submodule_folders(&folder).await?);
        }
        Ok(())
    }

    /// Key and address of each, relative ones made whole.
    async fn submodule_urls(&self, folder: &Path) -> Result<Vec<(String, String)>, Ending> {
        let found = self.read(folder, &["config", "--null", "--get-regexp", r"^submodule\..*\.url$"]).await?;
        Ok(found.split('\0').filter_map(|e| e.split_once('\n')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// Where the commit has others, as its tree says: what a file says could lead out of it.
    async fn submodule_folders(&self, folder: &Path) -> Result<Vec<PathBuf>, Ending> {
        let tree = self.read(folder, &["ls-files", "--stage", "-z"]).await?;
        let modules = tree.split('\0').filter_map(|entry| entry.strip_prefix("160000 ")?.split_once('\t'));
        Ok(modules.map(|(_, path)| folder.join(path)).collect())
    }

    /// Refuses an address that may not be fetched from, and has git go to where it was found: a second look-up could lead
    /// elsewhere.
    async fn admit(&self, url: &str) -> Result<(), Ending> {
        let Some((host, port)) = place_of(url) else {
            // A folder, or a protocol that git refuses by itself.
            return Ok(());
        };
        let policy = self.source.addresses;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let ips: Vec<IpAddr> = match tokio::net::lookup_host((name.as_str(), port)).await {
            Ok(found) => found.map(|address| address.ip()).collect(),
            // Then a proxy looks the name up, and it alone knows what may be reached.
            Err(_) if proxy::looks_names_up(&environment()) => return Ok(()),
            Err(_) => return Err(self.failure("git_dns")),
        };
        if !ips.iter().all(|ip| policy.allows(*ip)) {
            let mut refused = self.failure("git_address");
            refused.args.insert("host".to_owned(), host);
            return Err(refused);
        }
        let Some(pin) = address::pin(&host, port, &ips) else { return Ok(()) };
        let file = std::fs::OpenOptions::new().append(true).open(self.configuration());
        file.and_then(|mut file| writeln!(file, "[http]\n\tcurloptResolve = {pin}"))
            .map_err(|e| Ending::trouble("agent", "git's settings cannot be written", &e))
    }

    /// Fetches; the error's text where git fails.
    async fn fetch(&mut self, arguments: &[&str]) -> Result<Option<String>, Ending> {
        self.fetch_in(self.places.tree, arguments).await
    }

    async fn fetch_in(&mut self, folder: &Path, arguments: &[&str]) -> Result<Option<String>, Ending> {
        let command = self.command(folder, arguments);
        match run_logged(command, &mut self.log, self.stop).await {
            Ok(Ended::By(status)) if status.success() => Ok(None),
            Ok(Ended::By(_)) => Ok(Some(self.log.take_tail())),
            Ok(Ended::Stopped(why)) => Err(Ending::stopped(why)),
            Err(error) => Err(Ending::trouble("agent", "git cannot be run", &error)),
        }
    }

    async fn must(&mut self, arguments: &[&str]) -> Result<(), Ending> {
        self.must_in(self.places.tree, arguments).await
    }

    async fn must_in(&mut self, folder: &Path, arguments: &[&str]) -> Result<(), Ending> {
        match self.fetch_in(folder, arguments).await? {
            None => Ok(()),
            Some(text) => Err(self.failed(&text)),
        }
    }

    /// What a command that asks nobody prints. Where it fails there is nothing of what was asked for.
    async fn read(&self, folder: &Path, arguments: &[&str]) -> Result<String, Ending> {
        let output = output_within(self.command(folder, arguments), OWN_TIME)
            .await
            .map_err(|e| Ending::trouble("agent", "git cannot be run", &e))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn has(&self, commit: &str) -> bool {
        let command = self.command(self.places.tree, &["cat-file", "-e", &format!("{commit}^{{commit}}")]);
        output_within(command, OWN_TIME).await.is_ok_and(|o| o.status.success())
    }

    /// Subject and author, for the log and the history.
    async fn tell_commit(&self, recorder: &Recorder) {
        let format = "--format=%an%x00%cI%x00%s";
        let command = self.command(self.places.tree, &["log", "-1", "--no-show-signature", format, "HEAD"]);
        let Ok(output) = output_within(command, OWN_TIME).await else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        let mut parts = text.trim_end().splitn(3, '\0').map(|p| p.chars().take(500).collect::<String>());
        let (author, at, subject) = (parts.next(), parts.next(), parts.next());
        recorder.note(
            "commit",
            [
                ("sha", self.source.commit.clone()),
                ("author", author.unwrap_or_default()),
                ("at", at.unwrap_or_default()),
                ("subject", subject.unwrap_or_default()),
            ],
        );
    }

    fn configuration(&self) -> PathBuf {
        self.places.home.join("gitconfig")
    }

    fn command(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(folder).args(arguments).env_clear().envs(environment()).envs([
            ("HOME", self.places.home.as_os_str()),
            ("GIT_CONFIG_GLOBAL", self.configuration().as_os_str()),
            ("GIT_CONFIG_NOSYSTEM", OsStr::new("1")),
            ("GIT_TERMINAL_PROMPT", OsStr::new("0")),
            ("GIT_ALLOW_PROTOCOL", OsStr::new("http:https:ssh")),
            ("GIT_SSH_COMMAND", OsStr::new("ssh -o BatchMode=yes")),
            ("LC_ALL", OsStr::new("C")),
        ]);
        if let (Some(file), Some(origin)) = (self.places.credential, origin(&self.source.url)) {
            // Ourselves, under a name that stays true when the file is replaced by a newer version meanwhile.
            let ourselves = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
            command.env("GIT_ASKPASS", ourselves).env(ASKED_FILE, file).env(ASKED_ORIGIN, origin);
        }
        command
    }

    fn failed(&self, text: &str) -> Ending {
        self.failure(classify(text))
    }

    fn failure(&self, code: &str) -> Ending {
        Ending::failure(
            code,
            [
                ("url", shown(&self.source.url)),
                ("reference", self.source.reference.clone()),
                ("commit", self.source.commit.clone()),
            ],
        )
    }
}

/// Whom a remote's address asks: by HTTP, by SSH, or by SSH as Git writes it for short. None for a folder, and for what
/// git refuses by itself.
fn place_of(remote: &str) -> Option<(String, u16)> {
    if let Some(place) = address::host_and_port(remote) {
        return Some(place);
    }
    let authority = match remote.split_once("://") {
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" | "ssh" => rest.split(['/', '?', '#']).next()?,
            _ => return None,
        },
        None => {
            let (host, path) = remote.split_once(':')?;
            // `name::address` names a program.
            if host.contains('/') || path.starts_with(':') {
                return None;
            }
            host
        }
    };
    let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    // What has not the form of a host is looked up as it stands, and not found.
    let host = address::split_host(authority).unwrap_or(authority);
    let port = authority[host.len()..].strip_prefix(':').and_then(|port| port.parse().ok());
    Some((host.to_ascii_lowercase(), port.unwrap_or(22)))
}

/// The address that hosts which insist on the suffix redirect to, where that is what went wrong: it needs no host's word.
fn with_suffix(url: &str, text: &str) -> Option<String> {
    let redirected = text.to_lowercase().contains("the requested url returned error: 30");
    (redirected && !url.ends_with(".git") && address::host_and_port(url).is_some())
        .then(|| format!("{}.git", url.trim_end_matches('/')))
}

/// Git asks `Username for 'https://host': ` and `Password for 'https://user@host': `, also for a submodule on another
/// host, or where a server has sent it elsewhere: those get nothing.
pub fn answer_git(prompt: &str) -> Option<String> {
    let file = std::env::var_os(ASKED_FILE)?;
    let wanted = std::env::var(ASKED_ORIGIN).ok()?;
    answer(prompt, &wanted, &std::fs::read_to_string(file).ok()?)
}

fn answer(prompt: &str, wanted: &str, credential: &str) -> Option<String> {
    let (what, address) = prompt.split_once(" for '")?;
    if origin(address.split('\'').next()?)?.as_str() != wanted {
        return None;
    }
    let mut lines = credential.lines();
    let (user, token) = (lines.next()?, lines.next()?);
    match what {
        "Username" => Some(user.to_owned()),
        "Password" => Some(token.to_owned()),
        _ => None,
    }
}

/// Scheme, host and port of an HTTP address, in one spelling; none for others.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    let host = host.strip_suffix(default_port).unwrap_or(&host);
    (!host.is_empty()).then(|| format!("{scheme}://{host}"))
}

/// The address without what stands before the host, should there be anything.
fn shown(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// Whether git failed only because the server does not give commits by their hash, or not this one.
fn refused_by_hash(text: &str) -> bool {
    let text = text.to_lowercase();
    ["unadvertised object", "not our ref", "couldn't find remote ref", "no such remote ref", "upload-pack: not our ref"]
        .iter()
        .any(|s| text.contains(s))
}

/// What a person must change, from what git printed. The order matters: the more certain texts come first.
fn classify(text: &str) -> &'static str {
    const TABLE: &[(&str, &[&str])] = &[
        ("disk_full", &["no space left on device", "disk quota exceeded"]),
        (
            "git_tls",
            &[
                "certificate verification failed",
                "ssl certificate problem",
                "x509:",
                "certificate subject name",
                "gnutls_handshake() failed",
                "ssl_error",
                "tls connection was non-properly terminated",
            ],
        ),
        ("git_dns", &["could not resolve host", "could not resolve hostname", "name or service not known"]),
        (
            "git_auth",
            &[
                "could not read username for",
                "could not read password for",
                "terminal prompts disabled",
                "http basic: access denied",
                "authentication failed for",
                "invalid username or password",
                "invalid username or token",
                "permission denied (publickey",
                "host key verification failed",
                "support for password authentication was removed",
                "requested url returned error: 401",
                "requested url returned error: 403",
            ],
        ),
        (
            "git_ref",
            &[
                "couldn't find remote ref",
                "not our ref",
                "unadvertised object",
                "does not contain ref",
                "did not contain ",
                "unable to find current revision in submodule",
                "remote branch",
            ],
        ),
        (
            "git_net",
            &[
                "couldn't connect to server",
                "connection refused",
                "connection timed out",
                "connection reset by peer",
                "operation too slow",
                "operation timed out",
                "network is unreachable",
                "no route to host",
                "early eof",
                "empty reply from server",
                "unexpected disconnect",
                "requested url returned error: 5",
                "requested url returned error: 429",
                "rpc failed",
            ],
        ),
        (
            "git_not_found",
            &[
                "not found",
                "the project you were looking for could not be found",
                "does not appear to be a git repository",
                "could not read from remote repository",
                "requested url returned error: 404",
                "requested url returned error: 30",
                "unsupported protocol",
                "is not a valid repository",
                "not valid: is this a git repository",
                "transport '",
                "unable to find remote helper",
                "malformed",
            ],
        ),
    ];
    let text = text.to_lowercase();
    TABLE.iter().find(|(_, texts)| texts.iter().any(|t| text.contains(t))).map_or("git_failed", |(code, _)| code)
}

/// Takes `.git` away, here and in submodules.
fn without_git(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        match (entry.file_name() == ".git", kind.is_dir()) {
            (true, true) => std::fs::remove_dir_all(entry.path())?,
            (true, false) => std::fs::remove_file(entry.path())?,
            (false, true) => without_git(&entry.path())?,
            (false, false) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_gets_the_credential_for_the_repositorys_own_host_only() {
        let file = "build-bot\nsecret\n";
        let table = [
            ("Username for 'https://git.example': ", "https://git.example/a/b.git", Some("build-bot")),
            ("Password for 'https://build-bot@git.example': ", "https://git.example/a/b.git", Some("secret")),
            ("Password for 'https://u@git.example:443': ", "https://GIT.example/a/b.git", Some("secret")),
            ("Password for 'http://u@127.0.0.1:3000': ", "http://127.0.0.1:3000/x.git", Some("secret")),
            ("Password for 'https://u@evil.example': ", "https://git.example/a/b.git", None),
            ("Password for 'http://u@git.example': ", "https://git.example/a/b.git", None),
            ("Password for 'https://git.example@evil.example': ", "https://git.example/a.git", None),
            ("Password for 'https://u@git.example:8443': ", "https://git.example/a.git", None),
            ("Enter passphrase for key '/x': ", "https://git.example/a.git", None),
            ("", "https://git.example/a.git", None),
        ];
        for (prompt, url, wanted) in table {
            assert_eq!(answer(prompt, &origin(url).unwrap(), file).as_deref(), wanted, "{prompt} {url}");
        }
        assert_eq!(origin("ssh://git@host/x"), None);
        assert_eq!(origin("git@host:x"), None);
    }

    #[test]
    fn what_git_prints_has_a_code() {
        for (text, code) in [
            ("fatal: could not read Username for 'https://x': terminal prompts disabled", "git_auth"),
            ("remote: HTTP Basic: Access denied\nfatal: Authentication failed for 'https://x/'", "git_auth"),
            ("fatal: unable to access 'http://x/': The requested URL returned error: 403", "git_auth"),
            ("git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.", "git_auth"),
            ("remote: Repository not found.\nfatal: repository 'https://x/y.git/' not found", "git_not_found"),
            ("fatal: 'x' does not appear to be a git repository", "git_not_found"),
            ("fatal: transport 'file' not allowed", "git_not_found"),
            ("fatal: http://x/info/refs not valid: is this a git repository?", "git_not_found"),
            ("fatal: couldn't find remote ref refs/heads/gone", "git_ref"),
            ("fatal: remote error: upload-pack: not our ref 1234", "git_ref"),
            ("error: Server does not allow request for unadvertised object 1234", "git_ref"),
            ("fatal: unable to access 'https://x/': server certificate verification failed. CAfile: none", "git_tls"),
            ("fatal: unable to access 'https://x/': Could not resolve host: x", "git_dns"),
            (
                "fatal: unable to access 'http://x/': Failed to connect to x port 1: Couldn't connect to server",
                "git_net",
            ),
            ("fatal: unable to access 'http://x/': The requested URL returned error: 502", "git_net"),
            ("fatal: write error: No space left on device", "disk_full"),
            ("fatal: something new", "git_failed"),
        ] {
            assert_eq!(classify(text), code, "{text}");
        }
    }

    #[test]
    fn addresses_and_commits_that_git_could_mistake_for_options_are_refused() {
        let source = |url: &str, commit: &str, reference: &str| SourceSpec {
            url: url.into(),
            commit: commit.into(),
            reference: reference.into(),
            submodules: false,
            addresses: Default::default(),
        };
        let sha = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(acceptable(&source("https://x/y.git", sha, "refs/heads/main")), Ok(()));
        assert_eq!(acceptable(&source("--upload-pack=evil", sha, "main")), Err("git_not_found"));
        assert_eq!(acceptable(&source("https://x/\ny", sha, "main")), Err("git_not_found"));
        assert_eq!(acceptable(&source("https://x", "--output=/etc/passwd", "main")), Err("git_ref"));
        assert_eq!(acceptable(&source("https://x", "main", "main")), Err("git_ref"));
        assert_eq!(acceptable(&source("https://x", sha, "--all")), Err("git_ref"));
    }

    #[test]
    fn whom_a_remote_asks() {
        let place = |host: &str, port| Some((host.to_owned(), port));
        for (remote, asked) in [
            ("https://Git.example/a.git", place("git.example", 443)),
            ("http://user@git.example:81/a", place("git.example", 81)),
            ("ssh://git@git.example:2222/a", place("git.example", 2222)),
            ("SSH://169.254.169.254/a", place("169.254.169.254", 22)),
            ("git@git.example:a/b.git", place("git.example", 22)),
            ("http://a b/c", place("a b", 22)),
            ("ext::sh -c x", None),
            ("file:///etc", None),
            ("../other.git", None),
            ("/srv/git:x", None),
        ] {
            assert_eq!(place_of(remote), asked, "{remote}");
        }
    }

    #[test]
    fn only_the_suffix_is_followed() {
        let moved = "fatal: unable to access 'http://h/a/': The requested URL returned error: 301";
        assert_eq!(with_suffix("http://h/a", moved).as_deref(), Some("http://h/a.git"));
        assert_eq!(with_suffix("http://h/a/", moved).as_deref(), Some("http://h/a.git"));
        assert_eq!(with_suffix("http://h/a.git", moved), None);
        assert_eq!(with_suffix("git@h:a", moved), None);
        assert_eq!(with_suffix("http://h/a", "fatal: repository 'http://h/a/' not found"), None);
    }

    #[test]
    fn an_address_is_shown_without_what_stands_before_the_host() {
        assert_eq!(shown("https://u:p@host/x@y.git"), "https://host/x@y.git");
        assert_eq!(shown("https://host:1/x"), "https://host:1/x");
        assert_eq!(shown("git@host:x"), "git@host:x");
    }

    #[test]
    fn git_folders_are_taken_away_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |p: &str| folder.path().join(p);
        std::fs::create_dir_all(at(".git/objects")).unwrap();
        std::fs::create_dir_all(at("module/deep")).unwrap();
        std::fs::write(at("module/.git"), "gitdir: ../.git/modules/module").unwrap();
        std::fs::write(at("module/deep/.gitignore"), "").unwrap();
        std::os::unix::fs::symlink("/", at("module/link")).unwrap();
        without_git(folder.path()).unwrap();
        assert!(!at(".git").exists() && !at("module/.git").exists());
        assert!(at("module/deep/.gitignore").exists() && at("module/link").is_symlink());
    }
}
