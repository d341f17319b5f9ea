//! What a Git host is asked: which branches and tags there are, how old their heads are, which commit a branch names.
//!
//! Git itself does it, as a child process that knows nothing of this machine's settings ([`command`]), reaches only
//! hosts that it may ([`address`]), and gets its token by a file that only it reads ([`credential`]). What never enters:
//! checkouts (the agent's business) and whose repository it is.

mod address;
mod command;
mod credential;
mod faults;
mod heads;
mod listing;

pub use address::AddressPolicy;

use crate::builds::{Head, HeadOf};
use crate::clock::now_ms;
use crate::problems::internal;
use address::{Address, Refused};
use async_trait::async_trait;
use command::{Capture, GitCommand};
use credential::Credential;
use faults::Fault;
use heads::HeadCache;
use kiops_app::error::{Problem, ProblemStatus, Result};
use kiops_app::model::{RefList, RepositoryCheck, ServiceId};
use listing::Listing;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Git hosts take an access token as the password of any user; this name is the one that GitLab's manual gives.
pub const TOKEN_USER: &str = "oauth2";
/// A host that has not answered by then is not there.
const LISTING_TIME: Duration = Duration::from_secs(20);
const HEADS_TIME: Duration = Duration::from_secs(30);
/// Git processes at the same time: a page that many people open must not fill the machine with them.
const AT_ONCE: usize = 4;

/// A repository and what opens it.
#[derive(Clone, Copy)]
pub struct Remote<'a> {
    /// As `kiops_app::model::git_url` lets it through.
    pub url: &'a str,
    pub token: Option<&'a str>,
}

pub struct Git {
    tmp: PathBuf,
    heads: HeadCache,
    policy: AddressPolicy,
    places: Semaphore,
}

impl Git {
    /// `tmp` is for files that live as long as one command; `cache` keeps what is known of heads.
    pub fn new(tmp: &Path, cache: &Path, policy: AddressPolicy) -> Self {
        Self { tmp: tmp.to_owned(), heads: HeadCache::new(cache), policy, places: Semaphore::new(AT_ONCE) }
    }

    /// Whether the repository can be read, and which branch its HEAD names.
    pub async fn check(&self, remote: Remote<'_>) -> Result<RepositoryCheck> {
        // A pattern is matched on this side only, but it keeps merge requests and the like out of the output.
        let listing = self.list(remote, &["--symref"], &["HEAD", "refs/heads/*"]).await?.listing;
        let default_branch = listing.default_branch().unwrap_or_default();
        Ok(RepositoryCheck { default_branch, branches: listing.branches().count() as u32 })
    }

    /// The branch that is built unless another is chosen: `wanted`, which must be there, or the one that HEAD names.
    pub async fn default_branch(&self, remote: Remote<'_>, wanted: Option<&str>) -> Result<String> {
        const FIELD: &str = "source.default_branch";
        let full = wanted.map_or_else(|| "HEAD".to_owned(), full_name);
        let listing = self.list(remote, &["--symref"], &["HEAD", "refs/heads/*", &full]).await?.listing;
        match wanted {
            Some(branch) if listing.commit(&full).is_some() => Ok(branch.to_owned()),
            Some(branch) => Err(Problem::invalid(Fault::Ref.code(), FIELD).with("ref", branch)),
            None => listing.default_branch().ok_or_else(|| Problem::invalid("required", FIELD)),
        }
    }

    /// All branches and tags: the default branch first, then branches by age of their head, then tags.
    pub async fn refs(&self, service: &ServiceId, remote: Remote<'_>, default_branch: &str) -> Result<RefList> {
        let found = self.list(remote, &["--heads", "--tags"], &[]).await?;
        let mut known = self.heads.known(service).await;
        let missing = heads::missing(&found.listing, &known);
        // A host without filters would send whole trees: ages are not worth that.
        if found.filters && !missing.is_empty() {
            match self.fetch_heads(&found, remote, &missing).await {
                Ok(output) => {
                    known.extend(heads::parse(&output.stdout));
                    heads::forget_others(&mut known, &found.listing);
                    self.heads.keep(service, &known).await;
                }
                // The list is worth showing without them.
                Err(problem) => tracing::debug!(%service, code = problem.code, "heads could not be fetched"),
            }
        }
        let refs = listing::sorted(&found.listing, default_branch, &known);
        Ok(RefList { default_branch: default_branch.to_owned(), refs, now_ms: now_ms() })
    }

    /// What a branch, or a tag (as `refs/tags/…`, or by its short name where no branch has it), names at this moment.
    pub async fn head(&self, remote: Remote<'_>, name: &str) -> Result<Head> {
        let branch = full_name(name);
        let tag = if branch == name { branch.clone() } else { format!("refs/tags/{name}") };
        // An annotated tag's commit is listed as a name of its own.
        let peeled = format!("{tag}^{{}}");
        let listing = self.list(remote, &["--heads", "--tags"], &[&branch, &tag, &peeled]).await?.listing;
        let at = |full: &str, name: &str| {
            listing.commit(full).map(|commit| Head { name: name.to_owned(), commit: commit.to_owned() })
        };
        let missing = || Problem::invalid(Fault::Ref.code(), "branch").with("ref", name);
        at(&branch, name).or_else(|| at(&tag, &tag)).ok_or_else(missing)
    }

    async fn list(&self, remote: Remote<'_>, options: &[&str], patterns: &[&str]) -> Result<Found> {
        let mut url = remote.url.to_owned();
        let mut listed = self.list_at(&url, remote.token, options, patterns).await;
        // Hosts that insist on the suffix redirect to it. Redirects are not followed (they could lead anywhere), but
        // this one needs no host's word.
        if matches!(&listed, Err(problem) if problem.code == Fault::Redirect.code()) && !url.ends_with(".git") {
            url.push_str(".git");
            listed = self.list_at(&url, remote.token, options, patterns).await;
        }
        listed
    }

    async fn list_at(&self, url: &str, token: Option<&str>, options: &[&str], patterns: &[&str]) -> Result<Found> {
        let address = self.reachable(url).await?;
        let credential = Credential::new(&self.tmp, url, token).map_err(|e| internal("a credential's file", e))?;
        let trace = tempfile::NamedTempFile::new_in(&self.tmp).map_err(|e| internal("a trace's file", e))?;
        let mut git = GitCommand::new(&address, &credential);
        git.arg("ls-remote").args(options).arg("--").arg(url).args(patterns);
        // The host's abilities stand in the first packets, and nowhere in the output.
        git.env("GIT_TRACE_PACKET", trace.path());
        let output = self.run(git, LISTING_TIME).await?;
        let listing = Listing::parse(&output.stdout);
        let filters = listing::offers_filter(trace.path());
        Ok(Found { url: url.to_owned(), address, listing, filters })
    }

    /// Fetches the commits (and nothing else) that branches stand at, into a repository that is thrown away.
    async fn fetch_heads(&self, found: &Found, remote: Remote<'_>, branches: &[&str]) -> Result<Capture> {
        let folder = tempfile::tempdir_in(&self.tmp).map_err(|e| internal("a folder for heads", e))?;
        let credential =
            Credential::new(&self.tmp, &found.url, remote.token).map_err(|e| internal("a credential's file", e))?;
        let mut init = GitCommand::new(&found.address, &credential);
        init.args(["init", "--quiet", "--bare", "--template="]).arg(folder.path());
        self.run(init, LISTING_TIME).await?;

        let mut fetch = GitCommand::new(&found.address, &credential);
        fetch.arg("--git-dir").arg(folder.path()).args([
            "fetch",
            "--quiet",
            "--depth=1",
            "--filter=tree:0",
            "--no-tags",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--stdin",
            "--",
            &found.url,
        ]);
        fetch.input(branches.iter().map(|b| format!("+refs/heads/{b}:refs/heads/{b}\n")).collect());
        self.run(fetch, HEADS_TIME).await?;

        let mut read = GitCommand::new(&found.address, &credential);
        read.arg("--git-dir").arg(folder.path()).args(["for-each-ref", heads::FORMAT, "refs/heads/"]);
        self.run(read, LISTING_TIME).await
    }

    async fn reachable(&self, url: &str) -> Result<Address> {
        Address::resolve(url, self.policy).await.map_err(|refused| match refused {
            Refused::Unknown => Fault::Dns.problem(address::host_of(url), ""),
            Refused::Forbidden => Problem::invalid("address_refused", "source.url"),
        })
    }

    async fn run(&self, command: GitCommand, time: Duration) -> Result<Capture> {
        let _place = self.places.acquire().await.map_err(|e| internal("git's places", e))?;
        let host = command.host.clone();
        let output = command.run(time).await.map_err(|error| match error {
            command::Broken::TooLong => Fault::Network.problem(&host, ""),
            command::Broken::TooMuch => Problem::new(ProblemStatus::Upstream, "git_too_large").at("source.url"),
            command::Broken::Io(error) => internal("git could not be run", error),
        })?;
        if output.success {
            return Ok(output);
        }
        let fault = faults::classify(&output.stderr);
        tracing::debug!(code = fault.code(), "git: {}", faults::safe_line(&output.stderr));
        Err(fault.problem(&host, &output.stderr))
    }
}

/// As Git names it: a build is started with a branch's short name or a tag's full one.
fn full_name(branch: &str) -> String {
    if branch.starts_with("refs/tags/") { branch.to_owned() } else { format!("refs/heads/{branch}") }
}

/// A host's answer, and what the next question to it needs.
struct Found {
    /// The one that worked.
    url: String,
    address: Address,
    listing: Listing,
    /// Partial clones are offered.
    filters: bool,
}

#[async_trait]
impl HeadOf for Git {
    async fn head_of(&self, url: &str, token: Option<&str>, name: &str) -> Result<Head> {
        self.head(Remote { url, token }, name).await
    }
}
