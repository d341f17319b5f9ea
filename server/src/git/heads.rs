//! Age and subject of the commits that branches stand at, kept from one look to the next: a commit never changes.
//!
//! One small file a service, written whole. It is only a saving: what cannot be read is asked for again.

use super::listing::Listing;
use kiops_app::model::ServiceId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// For `git for-each-ref`; the subject last, for it may hold anything.
pub(super) const FORMAT: &str = "--format=%(objectname) %(committerdate:unix) %(contents:subject)";
const MOST_SUBJECT: usize = 200;
/// Of a repository with more branches than anybody reads only so many get their age.
const MOST_HEADS: usize = 5_000;

/// What is known, by commit.
pub(super) type Known = HashMap<String, HeadInfo>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeadInfo {
    /// UTC milliseconds.
    pub committed_at: i64,
    pub subject: String,
}

pub(super) struct HeadCache {
    folder: PathBuf,
}

impl HeadCache {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn file(&self, service: &ServiceId) -> PathBuf {
        self.folder.join(format!("{service}.json"))
    }

    pub async fn known(&self, service: &ServiceId) -> Known {
        let text = tokio::fs::read(self.file(service)).await.unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub async fn keep(&self, service: &ServiceId, known: &Known) {
        let file = self.file(service);
        let folder = self.folder.clone();
        let text = serde_json::to_vec(known).unwrap_or_default();
        let kept = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            let mut new = tempfile::NamedTempFile::new_in(&folder)?;
            std::io::Write::write_all(&mut new, &text)?;
            new.persist(&file)?;
            Ok(())
        })
        .await;
        if let Ok(Err(error)) = kept {
            tracing::debug!(%service, "heads are not kept: {error}");
        }
    }
}

/// Branches whose commit nothing is known of.
pub(super) fn missing<'a>(listing: &'a Listing, known: &Known) -> Vec<&'a str> {
    listing
        .branches()
        .filter(|(_, commit)| !known.contains_key(*commit))
        .map(|(name, _)| name)
        .take(MOST_HEADS)
        .collect()
}

/// Drops commits that no branch stands at any more.
pub(super) fn forget_others(known: &mut Known, listing: &Listing) {
    let current: std::collections::HashSet<_> = listing.branches().map(|(_, commit)| commit).collect();
    known.retain(|commit, _| current.contains(commit.as_str()));
}

pub(super) fn parse(output: &str) -> impl Iterator<Item = (String, HeadInfo)> {
    output.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ' ');
        let (commit, seconds) = (parts.next()?, parts.next()?.parse::<i64>().ok()?);
        let subject: String =
            parts.next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(MOST_SUBJECT).collect();
        Some((commit.to_owned(), HeadInfo { committed_at: seconds.saturating_mul(1_000), subject }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_prints_of_heads() {
        let printed = "aa 1700000000 Say hello\nbb 1700000001 \ncc x y\nbroken\n";
        let heads: Known = parse(printed).collect();
        assert_eq!(heads.len(), 2);
        assert_eq!(heads["aa"], HeadInfo { committed_at: 1_700_000_000_000, subject: "Say hello".into() });
        assert_eq!(heads["bb"].subject, "");
    }

    #[tokio::test]
    async fn what_is_kept_reads_back_and_damage_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = HeadCache::new(&folder.path().join("git"));
        let service = ServiceId::from_random([1; 20]);
        assert!(cache.known(&service).await.is_empty());
        let known: Known = parse("aa 1 x\n").collect();
        cache.keep(&service, &known).await;
        assert_eq!(cache.known(&service).await, known);
        std::fs::write(cache.file(&service), "{").unwrap();
        assert!(cache.known(&service).await.is_empty());
    }
}
