//! Reading what `git ls-remote` prints. Pure, but for the file of a trace.

use super::heads::Known;
use kiops_app::model::RefHead;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

const BRANCH: &str = "refs/heads/";
const TAG: &str = "refs/tags/";
const PEELED: &str = "^{}";

#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Commit by full name; of an annotated tag the commit that it leads to.
    refs: BTreeMap<String, String>,
    head: Option<String>,
}

impl Listing {
    pub fn parse(output: &str) -> Self {
        let mut listing = Self::default();
        let mut peeled = Vec::new();
        for line in output.lines() {
            let Some((what, name)) = line.split_once('\t') else { continue };
            if let Some(target) = what.strip_prefix("ref: ") {
                if name == "HEAD" {
                    listing.head = Some(target.to_owned());
                }
            } else if let Some(tag) = name.strip_suffix(PEELED) {
                peeled.push((tag.to_owned(), what.to_owned()));
            } else {
                listing.refs.insert(name.to_owned(), what.to_owned());
            }
        }
        listing.refs.extend(peeled);
        listing
    }

    pub fn commit(&self, full_name: &str) -> Option<&str> {
        self.refs.get(full_name).map(String::as_str)
    }

    /// Name and commit.
    pub fn branches(&self) -> impl Iterator<Item = (&str, &str)> {
        self.refs.iter().filter_map(|(name, commit)| Some((name.strip_prefix(BRANCH)?, commit.as_str())))
    }

    fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.refs
            .iter()
            .filter(|(name, _)| name.starts_with(TAG))
            .map(|(name, commit)| (name.as_str(), commit.as_str()))
    }

    /// What HEAD names, when that branch is there.
    pub fn default_branch(&self) -> Option<String> {
        let full = self.head.as_deref()?;
        self.refs.contains_key(full).then(|| full.strip_prefix(BRANCH).map(str::to_owned))?
    }
}

/// The default branch, then branches by the age of their head (the youngest first; those of unknown age by name at
/// the end), then tags, the highest version first.
pub(super) fn sorted(listing: &Listing, default_branch: &str, known: &Known) -> Vec<RefHead> {
    let head = |name: &str, commit: &str, is_tag| {
        let info = known.get(commit);
        RefHead {
            name: name.to_owned(),
            is_tag,
            commit: commit.to_owned(),
            subject: info.map(|i| i.subject.clone()),
            committed_at: info.map(|i| i.committed_at),
        }
    };
    let mut branches: Vec<_> = listing.branches().map(|(name, commit)| head(name, commit, false)).collect();
    branches.sort_by(|a, b| {
        let rank = |r: &RefHead| (r.name != default_branch, r.committed_at.is_none());
        rank(a).cmp(&rank(b)).then(b.committed_at.cmp(&a.committed_at)).then_with(|| a.name.cmp(&b.name))
    });
    let mut tags: Vec<_> = listing.tags().map(|(name, commit)| head(name, commit, true)).collect();
    tags.sort_by(|a, b| by_version(&b.name, &a.name));
    branches.append(&mut tags);
    branches
}

/// `v1.10` is higher than `v1.9`: stretches of digits are compared as numbers.
fn by_version(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.bytes().peekable(), b.bytes().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return Ordering::Equal,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (x, y) = (number(&mut a), number(&mut b));
                x.len().cmp(&y.len()).then_with(|| x.cmp(&y))
            }
            _ => a.next().cmp(&b.next()),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The next stretch of digits, without leading zeros.
fn number(bytes: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> Vec<u8> {
    let mut digits = Vec::new();
    while let Some(digit) = bytes.next_if(u8::is_ascii_digit) {
        if digit != b'0' || !digits.is_empty() {
            digits.push(digit);
        }
    }
    digits
}

/// Whether a host offers partial clones: in a packet trace's first lines, where the host says what it can. Protocol 2
/// says `fetch=shallow wait-for-done filter`, the older ones list words behind the first ref.
pub(super) fn offers_filter(trace: &Path) -> bool {
    const BEGINNING: u64 = 16 << 10;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(trace).and_then(|file| file.take(BEGINNING).read_to_end(&mut bytes));
    read.is_ok() && says_filter(&String::from_utf8_lossy(&bytes))
}

fn says_filter(trace: &str) -> bool {
    trace.lines().filter_map(|line| line.split_once("< ")).any(|(_, packet)| {
        let offers = packet.strip_prefix("fetch=").or_else(|| packet.split_once("\\0").map(|(_, words)| words));
        offers.is_some_and(|words| words.split([' ', '=']).any(|word| word == "filter"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::heads;

    const PRINTED: &str = "ref: refs/heads/main\tHEAD\n\
        aaa\tHEAD\n\
        bbb\trefs/heads/feature/x\n\
        aaa\trefs/heads/main\n\
        ccc\trefs/heads/old\n\
        ddd\trefs/heads/unknown\n\
        t09\trefs/tags/v1.9\n\
        tag\trefs/tags/v1.10\n\
        t10\trefs/tags/v1.10^{}\n";

    #[test]
    fn branches_tags_and_head() {
        let listing = Listing::parse(PRINTED);
        assert_eq!(listing.default_branch().as_deref(), Some("main"));
        assert_eq!(listing.branches().count(), 4);
        assert_eq!(listing.commit("refs/heads/feature/x"), Some("bbb"));
        assert_eq!(listing.commit("refs/tags/v1.10"), Some("t10"), "an annotated tag stands for its commit");
        assert_eq!(listing.commit("refs/heads/none"), None);
        assert_eq!(Listing::parse("").default_branch(), None);
        assert_eq!(Listing::parse("ref: refs/heads/gone\tHEAD\n").default_branch(), None);
    }

    #[test]
    fn the_order_people_look_in() {
        let known: Known = heads::parse("aaa 100 a\nbbb 300 b\nccc 200 c\n").collect();
        let names =
            |default| sorted(&Listing::parse(PRINTED), default, &known).into_iter().map(|r| r.name).collect::<Vec<_>>();
        assert_eq!(names("main"), ["main", "feature/x", "old", "unknown", "refs/tags/v1.10", "refs/tags/v1.9"]);
        assert_eq!(names("gone"), ["feature/x", "old", "main", "unknown", "refs/tags/v1.10", "refs/tags/v1.9"]);
    }

    #[test]
    fn versions_are_numbers() {
        for (low, high) in [("v1.9", "v1.10"), ("v1", "v1.0"), ("v009", "v10"), ("a2", "b1"), ("v1.2", "v1.02b")] {
            assert_eq!(by_version(low, high), Ordering::Less, "{low} {high}");
            assert_eq!(by_version(high, low), Ordering::Greater, "{low} {high}");
        }
    }

    #[test]
    fn what_hosts_say_about_filters() {
        let v2 = "12:00:00.1 pkt-line.c:80 packet:          git< version 2\n\
                  12:00:00.1 pkt-line.c:80 packet:          git< fetch=shallow wait-for-done filter\n";
        let v0 = "12:00:00.1 pkt-line.c:80 packet:          git< aaa HEAD\\0multi_ack side-band filter agent=git/2\n";
        assert!(says_filter(v2) && says_filter(v0));
        assert!(!says_filter(&v2.replace(" filter", "")) && !says_filter(&v0.replace(" filter", "")));
        assert!(!says_filter("x packet: git< aaa refs/heads/filter\n"));
    }
}
